/**
 * The faults, by name. A fault names what it does and to whom: `kill:worker`, `stop:gateway`, `half-open:gateway-nats`,
 * `failpoint:loader.before-insert`. Those that end by themselves are here; who is killed when is the scheduler's business.
 */
import { failpoints } from '../lib/failpoint.js';
import { integer, pick, type Random } from '../lib/testing/batches.js';
import type { ProxyMode } from './proxy.js';
import type { Role, Slot } from './slot.js';
import { type LinkName, links, type Stack } from './stack.js';

/** Something that is done to the stack and undone again. */
export interface Disturbance {
  readonly name: string;
  /** What is measured to work again, from the end of it on. */
  readonly role: Role;
  /** Nothing else happens to this meanwhile. */
  readonly target: string;
  /** Only where the log is a cluster. */
  readonly inCluster?: boolean;
  /** Undefined when it cannot be done now. Resolves when it is undone; also when the signal says stop. */
  apply(stack: Stack, random: Random, stop: AbortSignal): Promise<{ readonly slot: Slot | undefined } | undefined>;
}

export const killNames = (['client', 'gateway', 'worker', 'clickhouse', 'nats'] as const).map((role) => `kill:${role}`);
export const failpointNames = Object.keys(failpoints).map((name) => `failpoint:${name}`);

const pause = (ms: number, stop: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    const timer = setTimeout(done, ms);
    function done(): void {
      clearTimeout(timer);
      stop.removeEventListener('abort', done);
      resolve();
    }
    if (stop.aborted) done();
    else stop.addEventListener('abort', done, { once: true });
  });

/** SIGSTOP, and SIGCONT after a time. Workers stand still for longer than their lease of 3 s, so that another one goes on. */
function stop(role: Role, leastMs: number, mostMs: number): Disturbance {
  return {
    name: `stop:${role}`,
    role,
    target: `stop:${role}`,
    async apply(stack, random, signal) {
      const standing = stack.slotsOf(role).filter(({ ready, paused }) => ready && !paused);
      if (standing.length === 0) return undefined;
      const slot = pick(random, standing);
      slot.pause();
      await pause(integer(random, leastMs, mostMs), signal);
      slot.resume();
      return { slot: role === 'gateway' ? slot : undefined };
    },
  };
}

/** Who is measured when the way is open again. */
const measuredBy: Readonly<Record<LinkName, Role>> = {
  'client-gateway': 'gateway',
  'gateway-nats': 'nats',
  'worker-nats': 'worker',
  'worker-clickhouse': 'clickhouse',
};

function misbehave(mode: ProxyMode, link: LinkName, leastMs: number, mostMs: number): Disturbance {
  return {
    name: `${mode}:${link}`,
    role: measuredBy[link],
    target: link,
    async apply(stack, random, signal) {
      const proxy = stack.proxies[link];
      proxy.set(mode);
      await pause(integer(random, leastMs, mostMs), signal);
      proxy.set('pass');
      return { slot: undefined };
    },
  };
}

const cut = (link: LinkName): Disturbance => ({
  name: `cut:${link}`,
  role: measuredBy[link],
  target: link,
  async apply(stack) {
    stack.proxies[link].cut();
    return { slot: undefined };
  },
});

/** Told to end under load; it drains and is started again. */
const term = (role: Role): Disturbance => ({
  name: `term:${role}`,
  role,
  target: `term:${role}`,
  async apply(stack, random) {
    const standing = stack.slotsOf(role).filter(({ ready, paused }) => ready && !paused);
    if (standing.length === 0) return undefined;
    const slot = pick(random, standing);
    slot.term();
    return { slot: role === 'gateway' ? slot : undefined };
  },
});

/** All nodes of the log's cluster at the same time: they come back with what is on their disks. */
const killAll: Disturbance = {
  name: 'kill-all:nats',
  role: 'nats',
  target: 'kill-all:nats',
  inCluster: true,
  async apply(stack, _random, signal) {
    const nodes = stack.slotsOf('nats');
    if (!nodes.every(({ ready, paused }) => ready && !paused)) return undefined;
    for (const node of nodes) node.kill();
    // Not again before they have found together.
    await Promise.all(nodes.map((node) => Promise.race([node.whenReady(), pause(60_000, signal)])));
    await stack.logHealthy(signal);
    return { slot: undefined };
  },
};

export const disturbances: readonly Disturbance[] = [
  killAll,
  stop('worker', 3_500, 8_000),
  stop('gateway', 300, 7_000),
  stop('clickhouse', 300, 5_000),
  stop('nats', 300, 7_000),
  term('gateway'),
  term('worker'),
  ...links.flatMap((link) => [
    misbehave('drop-replies', link, 200, 2_500),
    misbehave('half-open', link, 500, 6_000),
    misbehave('slow', link, 500, 4_000),
    misbehave('refuse', link, 200, 2_000),
    cut(link),
  ]),
];

/** Every name, for help and for checking what was given. */
export const faultNames: readonly string[] = [...killNames, ...failpointNames, ...disturbances.map(({ name }) => name)];

/** Whether a fault is among those chosen: by its name, or by what it begins with (`kill`, `stop`, `failpoint:loader`). */
export const isChosen = (name: string, only: readonly string[]): boolean =>
  only.length === 0 || only.some((part) => name === part || name.startsWith(`${part}:`) || name.startsWith(`${part}.`));

/**
 * The faults, by name. A fault names what it does and to whom: `kill:worker`, `stop:gateway`, `half-open:gateway-nats`,
 * `failpoint:loader.before-insert`, `freeze:loader.half-sent`. Those that end by themselves are here; who is killed when is the scheduler's business.
 */
import { type Failpoint, failpoints } from '../lib/failpoint.js';
import { integer, pick, type Random } from '../lib/testing/batches.js';
import { KiB } from '../lib/units.js';
import type { Poisoner } from './poison.js';
import type { Prober } from './prober.js';
import type { ProxyMode } from './proxy.js';
import type { ProcessSlot, Role } from './slot.js';
import { type DiskName, type LinkName, links, type Stack } from './stack.js';

/** What a fault can lay hands on. */
export interface Scene {
  readonly stack: Stack;
  readonly clients: readonly ProcessSlot[];
  readonly prober: Prober;
  readonly poisoner: Poisoner;
  readonly random: Random;
}

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
  apply(scene: Scene, stop: AbortSignal): Promise<{ readonly slot: ProcessSlot | undefined } | undefined>;
}

export const killNames = (['client', 'gateway', 'worker', 'clickhouse', 'nats'] as const).map((role) => `kill:${role}`);
export const failpointNames = Object.keys(failpoints).map((name) => `failpoint:${name}`);
/** Failpoints at which workers are frozen, too, for longer than their lease: in the middle of what they say to ClickHouse. */
const frozenAt: readonly Failpoint[] = ['loader.half-sent', 'loader.half-read'];
export const freezeNames = frozenAt.map((name) => `freeze:${name}`);

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
function stop(role: Role, minMs: number, maxMs: number): Disturbance {
  return {
    name: `stop:${role}`,
    role,
    target: `stop:${role}`,
    async apply({ stack, random }, signal) {
      const standing = stack.slotsOf(role).filter(({ ready, paused }) => ready && !paused);
      if (standing.length === 0) return undefined;
      const slot = pick(random, standing);
      slot.pause();
      await pause(integer(random, minMs, maxMs), signal);
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

function misbehave(mode: ProxyMode, link: LinkName, minMs: number, maxMs: number): Disturbance {
  return {
    name: `${mode}:${link}`,
    role: measuredBy[link],
    target: link,
    async apply({ stack, random }, signal) {
      const proxy = stack.proxies[link];
      proxy.set(mode);
      await pause(integer(random, minMs, maxMs), signal);
      proxy.set('pass');
      return { slot: undefined };
    },
  };
}

const cut = (link: LinkName): Disturbance => ({
  name: `cut:${link}`,
  role: measuredBy[link],
  target: link,
  async apply({ stack }) {
    stack.proxies[link].cut();
    return { slot: undefined };
  },
});

/** Told to end under load; it drains and is started again. */
const term = (role: Role): Disturbance => ({
  name: `term:${role}`,
  role,
  target: `term:${role}`,
  async apply({ stack, random }) {
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
  async apply({ stack }, signal) {
    const nodes = stack.slotsOf('nats');
    if (!nodes.every(({ ready, paused }) => ready && !paused)) return undefined;
    for (const node of nodes) node.kill();
    // Not again before they have found together.
    await Promise.all(nodes.map((node) => Promise.race([node.whenReady(), pause(60_000, signal)])));
    await stack.logHealthy(signal);
    return { slot: undefined };
  },
};

const full = (name: DiskName): Disturbance => ({
  name: `disk-full:${name}`,
  role: name,
  target: `disk:${name}`,
  async apply({ stack, random }, signal) {
    const disk = stack.disks.get(name);
    if (disk === undefined) return undefined;
    await disk.fill(integer(random, 0, 512 * KiB));
    await pause(integer(random, 1_000, 6_000), signal);
    disk.free();
    // The caller has to start it again. nats-server 2.9.10 answers no request once a write has failed. ClickHouse 26.7 may
    // have put a merged part with an empty marks file in place of good ones (of 30 merges that the disk broke off, 2 to 13): every
    // read of it fails, until a start finds it broken and takes the parts that it was merged from, which it keeps for 8 minutes.
    for (const slot of stack.slotsOf(name)) slot.kill();
    return { slot: undefined };
  },
});

/**
 * Clients fall silent, and then nothing comes for a while but batches that were accepted before: blocks without a row (LOAD-5).
 * A client that is killed meanwhile speaks again, which does no harm.
 */
export const echo: Disturbance = {
  name: 'echo:client',
  role: 'worker',
  target: 'echo:client',
  async apply({ stack, clients, prober, random }, signal) {
    const quiet = clients.filter(({ ready, paused }) => ready && !paused);
    for (const client of quiet) client.pause();
    try {
      const until = Date.now() + integer(random, 1_500, 3_000);
      while (Date.now() < until && !signal.aborted) {
        await pause(250, signal);
        await prober.again(
          stack
            .slotsOf('gateway')
            .filter(({ ready }) => ready)
            .map(({ port }) => port),
        );
      }
    } finally {
      for (const client of quiet) client.resume();
    }
    return { slot: undefined };
  },
};

/** Bad messages in the log, one for each of these shards. */
const poison = (shardsOf: (scene: Scene) => readonly number[]): Disturbance => ({
  name: 'poison:log',
  role: 'worker',
  target: 'poison:log',
  async apply(scene) {
    await Promise.all(shardsOf(scene).map((shard) => scene.poisoner.put(shard)));
    return { slot: undefined };
  },
});

/** Whatever shards a worker has, one of them is hit. */
export const poisonAll = poison(({ stack }) => Array.from({ length: stack.shards }, (_, shard) => shard));

export const diskFaults: readonly { readonly disk: DiskName; readonly name: string }[] = [
  { disk: 'clickhouse', name: 'disk-full:clickhouse' },
  { disk: 'nats', name: 'disk-full:nats' },
];

export const disturbances: readonly Disturbance[] = [
  killAll,
  stop('worker', 3_500, 8_000),
  stop('gateway', 300, 7_000),
  stop('clickhouse', 300, 5_000),
  stop('nats', 300, 7_000),
  term('gateway'),
  term('worker'),
  echo,
  poison(({ stack, random }) => [integer(random, 0, stack.shards - 1)]),
  ...diskFaults.map(({ disk }) => full(disk)),
  ...links.flatMap((link) => [
    misbehave('drop-replies', link, 200, 2_500),
    misbehave('half-open', link, 500, 6_000),
    misbehave('slow', link, 500, 4_000),
    misbehave('refuse', link, 200, 2_000),
    cut(link),
  ]),
];

/** Every name, for help and for checking what was given. */
export const faultNames: readonly string[] = [
  ...killNames,
  ...failpointNames,
  ...freezeNames,
  ...disturbances.map(({ name }) => name),
];

/** Whether a fault is among those chosen: by its name, or by what it begins with (`kill`, `stop`, `failpoint:loader`). */
export const isChosen = (name: string, only: readonly string[]): boolean =>
  only.length === 0 || only.some((part) => name === part || name.startsWith(`${part}:`) || name.startsWith(`${part}.`));

/**
 * Who is hit when: one killer for each process, with the pace of its role, and one disturber for the faults that end by themselves.
 * They know nothing of one another, so faults overlap. Everything random comes from the seed; when things happen depends on the
 * machine as well, so a seed repeats the choice of faults and not the moment.
 */
import { setMaxListeners } from 'node:events';
import { type Failpoint, failpoints } from '../lib/failpoint.js';
import { integer, pick, type Random } from '../lib/testing/batches.js';
import { isFrozen } from '../lib/testing/freeze.js';
import { type Disturbance, disturbances, echo, freezeNames, isChosen, poisonAll, type Scene } from './faults.js';
import type { Recoveries } from './recovery.js';
import type { Death, Role, Slot } from './slot.js';
import type { Stack } from './stack.js';

export interface ScheduleOptions {
  readonly random: Random;
  /** Names or beginnings of names; empty: all. */
  readonly only: readonly string[];
  /** The log is a cluster. */
  readonly cluster: boolean;
  /** Waits are multiplied by this. */
  readonly pace: number;
  /** Each fault waits until what the one before hit has recovered. */
  readonly oneByOne: boolean;
  /** A fault happened. */
  readonly say: (line: string) => void;
}

export interface Schedule {
  /** The failpoint that the next process of this role gets. */
  arm(role: Role): string | undefined;
  died(death: Death): void;
  begin(scene: Omit<Scene, 'random'>, recoveries: Recoveries): void;
  /** No more faults; resolves when all are undone. */
  end(): Promise<void>;
  /** How often each fault happened. */
  readonly counts: ReadonlyMap<string, number>;
  readonly kills: number;
  readonly killsByRole: ReadonlyMap<Role, number>;
  readonly faults: number;
  /** Deaths that no fault caused, a line each. */
  readonly crashes: readonly string[];
  /** Least number of times that one of the chosen failpoints was died at; infinite when none is chosen. */
  readonly minFailpoint: number;
}

/** How long a process lives after it is ready, ms. */
const lives: Readonly<Record<Role, readonly [number, number]>> = {
  client: [4_000, 10_000],
  gateway: [2_000, 6_000],
  worker: [2_000, 6_000],
  clickhouse: [4_000, 9_000],
  nats: [4_000, 9_000],
};
/** Share of gateways and workers that are started with a failpoint, where they may also be killed at any other time. */
const armedShare = 0.8;
/** Most of the kills that may be of clients. */
const clientShare = 0.25;
/** A failpoint that is not passed within this time of being ready is given up, and the process is killed. */
const armedMs = 20_000;
/** How long a process that froze itself stands still: longer than a worker's lease of 3 s. */
const frozenMs: readonly [number, number] = [3_500, 8_000];
const disturbedEveryMs: readonly [number, number] = [1_000, 6_000];
const maxDisturbances = 3;
/**
 * So many things may be down at a time. Without a bound a slow machine is hit faster than it recovers, and nothing at all is stored:
 * a run then shows only that nothing is doubled.
 */
const maxOpen = 4;
/** One by one: between a recovery and the next fault, so that leases and assignments are what they were, ms. */
const calmMs: readonly [number, number] = [1_500, 3_500];

const roleOf = (failpoint: string): Role => (failpoint.startsWith('gateway.') ? 'gateway' : 'worker');
/** About how often a failpoint is passed in some seconds of a process, so that it dies at any time of its life. */
function passings(name: string): number {
  if (/^gateway\.(?:draining|drained)$|-carry$|-dead-letter$|-purge$|-recover$/.test(name)) return 2;
  return name.startsWith('gateway.') || name === 'loader.half-read' ? 100 : 8;
}

/** This one is passed when nothing new comes. */
const carrying: Failpoint = 'loader.after-carry';
/** These are passed when something cannot be stored. */
const byPoison: ReadonlySet<string> = new Set<Failpoint>(['loader.before-dead-letter', 'loader.after-dead-letter']);
/** These are passed by a gateway that is asked to end. */
const byTerm: ReadonlySet<string> = new Set<Failpoint>(['gateway.draining', 'gateway.drained']);

export function createSchedule({ random, only, cluster, pace, oneByOne, say }: ScheduleOptions): Schedule {
  const counts = new Map<string, number>();
  const killsByRole = new Map<Role, number>();
  const crashes: string[] = [];
  const over = new AbortController();
  setMaxListeners(0, over.signal);
  const running = new Set<Promise<void>>();
  const busy = new Set<string>();
  let recoveries: Recoveries | undefined;
  /** Of the last fault. */
  let recovered: Promise<void> = Promise.resolve();
  const chosenFailpoints = Object.keys(failpoints).filter((name) => isChosen(`failpoint:${name}`, only));
  const chosenFreezes = freezeNames.filter((name) => isChosen(name, only));
  const chosen = disturbances.filter(({ name, inCluster }) => isChosen(name, only) && (cluster || inCluster !== true));
  /** Started with it, whether or not it was passed. */
  const armed = new Map<string, number>();

  const count = <K>(map: Map<K, number>, key: K): void => {
    map.set(key, (map.get(key) ?? 0) + 1);
  };
  const sleep = (ms: number): Promise<void> =>
    new Promise((resolve) => {
      if (over.signal.aborted) return resolve();
      const done = (): void => {
        clearTimeout(timer);
        over.signal.removeEventListener('abort', done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      over.signal.addEventListener('abort', done, { once: true });
    });
  const between = ([least, most]: readonly [number, number]): number => integer(random, least, most) * pace;
  const ended = new Promise<false>((resolve) =>
    over.signal.addEventListener('abort', () => resolve(false), { once: true }),
  );
  const background = (work: Promise<void>): void => {
    running.add(work);
    void work.finally(() => running.delete(work));
  };

  /** Resolves when another one may be hit. */
  async function room(): Promise<void> {
    while (!over.signal.aborted && (recoveries?.open ?? 0) >= maxOpen) await sleep(50);
  }

  /** Clients wait for no recovery, and would be most of the dead. */
  async function turn(): Promise<void> {
    const kills = (): number => killsByRole.get('client') ?? 0;
    const all = (): number => [...killsByRole.values()].reduce((sum, of) => sum + of, 0);
    const alone = !['gateway', 'worker', 'clickhouse', 'nats'].some((role) => isChosen(`kill:${role}`, only));
    while (!over.signal.aborted && !alone && kills() > clientShare * all() + 3) await sleep(100);
  }

  /** Waits until a process has frozen itself, and lets it go on when another one has its shards. */
  async function thaw({ stack }: Scene, slot: Slot, name: string): Promise<void> {
    const { pid } = slot;
    const until = Date.now() + armedMs;
    while (slot.pid === pid && Date.now() < until && !over.signal.aborted && !isFrozen(pid)) await sleep(50);
    if (slot.pid !== pid) return;
    if (isFrozen(pid)) {
      slot.pause();
      count(counts, `freeze:${name}`);
      recovered = recoveries?.measure(`freeze:${name}`, slot.role, undefined) ?? recovered;
      const since = Date.now();
      const alone = !stack.slotsOf(slot.role).some((other) => other !== slot && other.ready && !other.paused);
      await sleep(alone ? 500 : integer(random, frozenMs[0], frozenMs[1]));
      if (slot.pid === pid) slot.resume();
      say(`freeze:${name} ${slot.name}, ${Date.now() - since} ms`);
      await sleep(between([1_000, 3_000]));
    }
    // After the faults have ended no fault thaws a process, so it must not freeze.
    if (over.signal.aborted && slot.pid === pid) slot.kill();
  }

  /** Resolves when a process of the slot serves, or all is over. One that freezes, before it serves or later, goes on first. */
  async function served(slot: Slot, scene: Scene): Promise<void> {
    let seen: number | undefined;
    for (;;) {
      if (slot.pid !== seen && slot.failpoint?.endsWith(':freeze')) {
        seen = slot.pid;
        await thaw(scene, slot, slot.failpoint.split('@')[0] as string);
      }
      if (slot.ready || over.signal.aborted) return;
      await Promise.race([slot.whenReady(), sleep(100)]);
    }
  }

  /** Kills the processes of a slot, one after the other. */
  async function killer(slot: Slot, scene: Scene): Promise<void> {
    while (!over.signal.aborted) {
      await served(slot, scene);
      if (over.signal.aborted) return;
      const { pid, failpoint } = slot;
      const freezes = failpoint?.endsWith(':freeze') === true;
      const name = failpoint?.split('@')[0];
      if (name !== undefined && !freezes) {
        if (byTerm.has(name)) {
          await sleep(between([500, 2_000]));
          if (slot.pid === pid) slot.term();
        } else if (name === carrying && !busy.has(echo.target)) await disturb(scene, echo);
        else if (byPoison.has(name)) await disturb(scene, poisonAll);
        const until = Date.now() + armedMs;
        while (slot.pid === pid && Date.now() < until && !over.signal.aborted) await sleep(50);
      } else {
        await sleep(between(lives[slot.role]));
        if (slot.role === 'client') await turn();
        else await room();
      }
      if (over.signal.aborted) return;
      // Also one that has outlived its failpoint, or that was started without one: the next start arms one.
      if (slot.pid === pid) slot.kill();
      await sleep(20);
    }
  }

  /** Kills the nodes of a cluster, one at a time: the next one when all are there again. */
  async function nodeKiller(stack: Stack): Promise<void> {
    while (!over.signal.aborted) {
      await stack.logHealthy(over.signal);
      await sleep(between(lives.nats));
      const standing = stack.slotsOf('nats').filter(({ ready, paused }) => ready && !paused);
      if (!over.signal.aborted && standing.length > 0) pick(random, standing).kill();
      await sleep(20);
    }
  }

  async function disturber(scene: Scene): Promise<void> {
    while (!over.signal.aborted) {
      await sleep(between(disturbedEveryMs));
      await room();
      if (over.signal.aborted || running.size > 100 || busy.size >= maxDisturbances) continue;
      const free = chosen.filter(({ target }) => !busy.has(target));
      const least = Math.min(...free.map(({ name }) => counts.get(name) ?? 0));
      const next = free.filter(({ name }) => (counts.get(name) ?? 0) <= least + 1);
      if (next.length > 0) background(disturb(scene, pick(random, next)));
    }
  }

  /** One fault after the other, each when what the one before hit works again. */
  async function taker(scene: Scene): Promise<void> {
    const slots = [...scene.stack.slots, ...scene.clients];
    const roles = [...new Set(slots.map(({ role }) => role))].filter((role) => isChosen(`kill:${role}`, only));
    const all = [...roles.map((role) => ({ name: `kill:${role}`, role })), ...chosen];
    while (!over.signal.aborted) {
      await sleep(between(calmMs));
      const least = Math.min(...all.map(({ name }) => counts.get(name) ?? 0));
      const next = pick(
        random,
        all.filter(({ name }) => (counts.get(name) ?? 0) === least),
      );
      if (over.signal.aborted) return;
      if ('apply' in next) await disturb(scene, next);
      else {
        const slot = pick(
          random,
          slots.filter(({ role }) => role === next.role),
        );
        await slot.whenReady();
        const before = recovered;
        slot.kill();
        while (recovered === before && !over.signal.aborted) await sleep(10);
      }
      await Promise.race([recovered, ended]);
      if (!over.signal.aborted) await Promise.all(slots.map((slot) => Promise.race([slot.whenReady(), ended])));
    }
  }

  async function disturb(scene: Scene, { name, role, target, apply }: Disturbance): Promise<void> {
    busy.add(target);
    try {
      const since = Date.now();
      const done = await apply(scene, over.signal);
      if (done === undefined) return;
      count(counts, name);
      say(`${name}${done.slot === undefined ? '' : ` ${done.slot.name}`}, ${Date.now() - since} ms`);
      recovered = recoveries?.measure(name, role, done.slot) ?? recovered;
    } finally {
      busy.delete(target);
    }
  }

  return {
    arm(role) {
      const names = [...chosenFailpoints.map((name) => `failpoint:${name}`), ...chosenFreezes].filter(
        (name) => roleOf(name.slice(name.indexOf(':') + 1)) === role,
      );
      if (over.signal.aborted || oneByOne || recoveries === undefined || names.length === 0) return undefined;
      // One that dies again before it has done anything would keep everything from recovering.
      if (recoveries.open >= 2 * maxOpen) return undefined;
      const mixed = isChosen(`kill:${role}`, only);
      if (mixed && random() >= armedShare) return undefined;
      const tries = (name: string): number => (counts.get(name) ?? 0) + (armed.get(name) ?? 0) / 2;
      const least = Math.min(...names.map(tries));
      const name = pick(
        random,
        names.filter((one) => tries(one) <= least + 1),
      );
      count(armed, name);
      const [kind, point] = name.split(':') as [string, string];
      const times = random() < 0.25 ? 1 : integer(random, 1, passings(point));
      return `${point}@${times}${kind === 'freeze' ? ':freeze' : ''}`;
    },
    died({ slot, how, failpoint, detail }) {
      if (how === 'ended') return;
      if (how === 'crashed') {
        crashes.push(`${slot.name} ended by itself: ${detail}`);
        say(`${slot.name} ended by itself: ${detail}`);
        return;
      }
      const name = how === 'failpoint' ? `failpoint:${failpoint?.split('@')[0]}` : `kill:${slot.role}`;
      count(counts, name);
      count(killsByRole, slot.role);
      say(how === 'failpoint' ? `${slot.name} died at ${failpoint}` : `${name} ${slot.name}`);
      const measured = slot.role === 'gateway' || slot.role === 'client' ? slot : undefined;
      recovered = recoveries?.measure(name, slot.role, measured) ?? recovered;
    },
    begin(hands, measured) {
      const scene: Scene = { ...hands, random };
      recoveries = measured;
      if (oneByOne) return background(taker(scene));
      for (const slot of [...scene.stack.slots, ...scene.clients]) {
        if (cluster && slot.role === 'nats') continue;
        const kills = isChosen(`kill:${slot.role}`, only);
        const armable = [...chosenFailpoints, ...chosenFreezes.map((name) => name.slice('freeze:'.length))];
        if (kills || armable.some((name) => roleOf(name) === slot.role)) background(killer(slot, scene));
      }
      if (cluster && isChosen('kill:nats', only)) background(nodeKiller(scene.stack));
      if (chosen.length > 0) background(disturber(scene));
    },
    async end() {
      over.abort();
      await Promise.all(running);
    },
    counts,
    get kills() {
      return [...killsByRole.values()].reduce((sum, kills) => sum + kills, 0);
    },
    killsByRole,
    get faults() {
      return [...counts.values()].reduce((sum, times) => sum + times, 0);
    },
    crashes,
    get minFailpoint() {
      return Math.min(...chosenFailpoints.map((name) => counts.get(`failpoint:${name}`) ?? 0));
    },
  };
}

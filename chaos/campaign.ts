/**
 * The faults of one run, as killers, disturbers and the arming of failpoints share them: how often each happened, what is being
 * disturbed, when the last one has recovered, and that all is over.
 */
import { setMaxListeners } from 'node:events';
import { integer, type Random } from '../lib/testing/batches.js';
import type { Recoveries } from './recovery.js';
import type { ProcessSlot, Role } from './slot.js';

export interface CampaignOptions {
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

/** Least and most, ms. */
export type Range = readonly [number, number];

export interface Campaign extends Omit<CampaignOptions, 'pace'> {
  /** Aborted when there are no more faults. */
  readonly over: AbortSignal;
  /** Resolves when it is over. */
  readonly ended: Promise<false>;
  /** How often each fault happened. */
  readonly counts: Map<string, number>;
  readonly killsByRole: Map<Role, number>;
  /** Targets of disturbances that go on. */
  readonly busy: Set<string>;
  /** Faults and killers that go on. */
  readonly running: ReadonlySet<Promise<void>>;
  /** Undefined before the first fault may happen. */
  readonly recoveries: Recoveries | undefined;
  /** Resolves when what the last fault hit works again. */
  readonly recovered: Promise<void>;
  begin(recoveries: Recoveries): void;
  /** No more faults; resolves when all are undone. */
  end(): Promise<void>;
  background(work: Promise<void>): void;
  count(fault: string): void;
  /** Measures how long what was hit takes to recover, from now on. */
  measure(fault: string, role: Role, slot: ProcessSlot | undefined): void;
  /** Until then, or until it is over. */
  sleep(ms: number): Promise<void>;
  /** Sleeps for a random time from the range, at the pace of the campaign. */
  wait(range: Range): Promise<void>;
  /** Resolves when another process may be hit. */
  room(): Promise<void>;
}

/**
 * So many things may be down at a time. Without a bound a slow machine is hit faster than it recovers, and nothing at all is stored:
 * a run then shows only that nothing is doubled.
 */
export const maxOpen = 4;

export const increment = <K>(map: Map<K, number>, key: K): void => {
  map.set(key, (map.get(key) ?? 0) + 1);
};

export const sum = (counts: ReadonlyMap<unknown, number>): number =>
  [...counts.values()].reduce((all, of) => all + of, 0);

export function createCampaign({ pace, ...options }: CampaignOptions): Campaign {
  const counts = new Map<string, number>();
  const over = new AbortController();
  setMaxListeners(0, over.signal);
  const running = new Set<Promise<void>>();
  let recoveries: Recoveries | undefined;
  let recovered: Promise<void> = Promise.resolve();
  const sleep = (ms: number): Promise<void> => sleepUntil(over.signal, ms);
  return {
    ...options,
    over: over.signal,
    ended: new Promise((resolve) => over.signal.addEventListener('abort', () => resolve(false), { once: true })),
    counts,
    killsByRole: new Map(),
    busy: new Set(),
    running,
    get recoveries() {
      return recoveries;
    },
    get recovered() {
      return recovered;
    },
    begin(measured) {
      recoveries = measured;
    },
    async end() {
      over.abort();
      await Promise.all(running);
    },
    background(work) {
      running.add(work);
      void work.finally(() => running.delete(work));
    },
    count: (fault) => increment(counts, fault),
    measure(fault, role, slot) {
      recovered = recoveries?.measure(fault, role, slot) ?? recovered;
    },
    sleep,
    wait: ([least, most]) => sleep(integer(options.random, least, most) * pace),
    async room() {
      while (!over.signal.aborted && (recoveries?.open ?? 0) >= maxOpen) await sleep(50);
    },
  };
}

function sleepUntil(over: AbortSignal, ms: number): Promise<void> {
  return new Promise((resolve) => {
    if (over.aborted) return resolve();
    const done = (): void => {
      clearTimeout(timer);
      over.removeEventListener('abort', done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    over.addEventListener('abort', done, { once: true });
  });
}

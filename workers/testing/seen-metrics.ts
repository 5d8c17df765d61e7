/**
 * Instruments that remember what they recorded, for tests of the loader.
 */
import type { LoaderMetrics } from '../loader/loader-metrics.js';

export interface SeenMetrics {
  stopped: boolean;
  stuck: boolean;
  lettersBlocked: boolean;
  standing: boolean;
  /** INSERTs that failed though their block was stored, by code. */
  storedAnyway: number[];
  deadBatches: number;
  /** Of the last look at the stream; -1 before the first. */
  depth: number;
  lagMs: number;
  trims: number;
  /** Messages that were gone before they were loaded. */
  gaps: number;
}

export function seeingMetrics(): { readonly seen: SeenMetrics; readonly metrics: LoaderMetrics } {
  const seen: SeenMetrics = {
    stopped: false,
    stuck: false,
    lettersBlocked: false,
    standing: false,
    storedAnyway: [],
    deadBatches: 0,
    depth: -1,
    lagMs: -1,
    trims: 0,
    gaps: 0,
  };
  const nothing = (): void => undefined;
  const metrics: LoaderMetrics = {
    inserted: nothing,
    insertFailed: nothing,
    settled: () => {
      seen.stuck = false;
    },
    recovered: () => {
      seen.stopped = false;
    },
    gap: (_, messages) => {
      seen.gaps += messages;
    },
    trimmed: () => {
      seen.trims++;
    },
    dead: () => {
      seen.deadBatches++;
    },
    lettersBlocked: (_, blocked) => {
      seen.lettersBlocked = blocked;
    },
    stopped: (_, stopped) => {
      seen.stopped = stopped;
    },
    stuck: (_, stuck) => {
      seen.stuck = stuck;
    },
    standing: (_, standing) => {
      seen.standing = standing;
    },
    storedAnyway: (_, code) => void seen.storedAnyway.push(code),
    measured: (_, { depth, lagMs }) => Object.assign(seen, { depth, lagMs }),
    left: nothing,
  };
  return { seen, metrics };
}

/**
 * Decides what a world is like, from its seed alone. Each world has some troubles and not all: where everything fails at once, little
 * of interest happens.
 */
import { integer, pick, type Random } from '../lib/testing/batches.js';
import { hourMs } from '../lib/units.js';

export const faultKinds = [
  'kill gateway',
  'freeze gateway',
  'drain gateway',
  'kill worker',
  'freeze worker',
  'kill client',
  'freeze client',
  'cut network',
  'stall network',
  'restart log',
  'cut log lines',
  'stall log lines',
  'restart sink',
  'set clock',
  'rewind log',
  'remove stream',
] as const;

export type FaultKind = (typeof faultKinds)[number];

/** Kinds that break what the log promises: in few worlds only, since they excuse losses. */
const logBreakers: ReadonlySet<FaultKind> = new Set(['rewind log', 'remove stream']);

export interface Plan {
  readonly seed: number;
  readonly shards: number;
  readonly gateways: number;
  readonly workers: number;
  readonly clients: number;
  /** Share of clients that want to hear of commits. */
  readonly committing: number;
  /**
   * Share of clients whose processes count their batches from 1 and name them by that, so that each process uses the ids of the one
   * before again for other events.
   */
  readonly counting: number;
  /** Batches, all clients together, spread over the safety phase. */
  readonly batches: number;
  readonly batchEvents: number;
  readonly maxBatchesInFlight: number;
  readonly ackTimeoutMs: number;
  /** When the world begins, ms since 1970: so that a day ends within it, or soon after. */
  readonly startMs: number;
  /** How long the phase with faults lasts, ms. */
  readonly safetyMs: number;
  readonly faults: readonly FaultKind[];
  readonly faultCount: number;
  /** A frozen process stays so for at most this long, ms. */
  readonly longestFreezeMs: number;
  readonly logMaxBytes: number;
  /** 0: the log syncs each write. */
  readonly syncMs: number;
  readonly publishWindow: number;
  readonly publishTimeoutMs: number;
  readonly coalesceDelayMs: number;
  /** 0: gateways do not hedge. */
  readonly hedgeMs: number;
  readonly blockRows: number;
  readonly blockDelayMs: number;
  readonly replayMs: number;
  /** How often a worker looks at its streams, ms. */
  readonly roundMs: number;
  /** Share of events that the sink does not take. */
  readonly poison: number;
}

export interface PlanOptions {
  /** What these worlds are like instead of what the seed says. */
  readonly favour?: Partial<Plan> | undefined;
  /** Whether the log loses what it acknowledged. */
  readonly breakLog?: boolean | undefined;
}

export function makePlan(seed: number, random: Random, options: PlanOptions = {}): Plan {
  const breaking = options.breakLog === true;
  const long = random() < 0.1;
  const faults = faultKinds.filter((kind) => (logBreakers.has(kind) ? breaking && random() < 0.7 : random() < 0.45));
  const breaks = faults.some((kind) => logBreakers.has(kind));
  const safetyMs = long ? integer(random, 10 * 60_000, 3 * hourMs) : integer(random, 3_000, 30_000);
  return {
    seed,
    shards: random() < 0.7 ? 1 : 2,
    gateways: integer(random, 1, 2),
    workers: integer(random, 1, 3),
    clients: integer(random, 1, 3),
    committing: breaks ? pick(random, [0, 0.5, 1]) : pick(random, [0, 0, 0.5, 1]),
    batches: integer(random, 3, 12),
    batchEvents: integer(random, 1, 4),
    maxBatchesInFlight: pick(random, [1, 2, 8]),
    ackTimeoutMs: pick(random, [500, 1_500, 5_000, 60_000]),
    safetyMs,
    // A log that loses its end, a frozen worker with a block of that end and a change of the day all at once would make two blocks
    // of one number, on two days: a hole that is known (docs/architecture.md), so days do not end in worlds whose log breaks.
    startMs: breaking ? Date.UTC(2026, 2, 2, 6) : Date.UTC(2026, 2, 2) - integer(random, 0, Math.floor(safetyMs * 1.3)),
    faults,
    faultCount: faults.length === 0 ? 0 : integer(random, 1, 10),
    longestFreezeMs: long ? 2 * hourMs : pick(random, [2_000, 20_000, 60_000]),
    logMaxBytes: random() < 0.15 ? integer(random, 1_500, 4_000) : 1 << 20,
    syncMs: breaks ? pick(random, [0, 5_000, 120_000]) : 0,
    publishWindow: pick(random, [1, 4, 32]),
    publishTimeoutMs: pick(random, [500, 5_000]),
    coalesceDelayMs: pick(random, [3, 50]),
    hedgeMs: pick(random, [0, 0, 20, 300]),
    blockRows: pick(random, [2, 6, 20]),
    blockDelayMs: pick(random, [100, 1_000]),
    replayMs: pick(random, [1_000, 10_000, hourMs]),
    roundMs: Math.max(5_000, safetyMs / 6),
    // The dead letters lie in the log: what it loses of them is another story.
    poison: random() < 0.1 && !breaking ? 0.05 : 0,
    counting: pick(random, [0, 0, 0.5, 1]),
    ...options.favour,
  };
}

/** The batches that were accepted and are kept until ClickHouse has them (DELIVER-8, DELIVER-9). */
import type { Batch } from './batch.js';
import type { Acceptance } from './link.js';
import type { Stream } from './stream.js';

export interface Kept {
  readonly batch: Batch;
  readonly stream: Stream;
  readonly shard: number;
  readonly sequence: bigint;
  readonly since: number;
}

export interface Commits {
  readonly count: number;
  /** When the oldest is kept for too long; undefined: none is kept. */
  readonly dueAt: number | undefined;
  keep(batch: Batch, stream: Stream, position: NonNullable<Acceptance['position']>, since: number): void;
  /** The gateway says that it failed after all. */
  drop(stream: Stream, batchId: string): Kept | undefined;
  /** A watermark of a stream: it covers what this stream accepted before. */
  cover(stream: Stream, shard: number, sequence: bigint, settle: (batch: Batch) => void): void;
  /** The stream ended. @returns what was kept for it */
  take(stream: Stream): Batch[];
  /** Waits longer from now on when one was kept for too long. @returns the stream of that one */
  expire(now: number): Stream | undefined;
  streams(): Stream[];
}

/** How often the time for a commit is doubled (DELIVER-9). */
const maxDoublings = 4;

export function createCommits(commitTimeoutMs: number): Commits {
  /** In the order of their acceptance. */
  const kept = new Map<string, Kept>();
  /** How often in a row a wait for a commit ended without one. */
  let doublings = 0;
  const waitMs = (): number => commitTimeoutMs * 2 ** doublings;
  const oldest = (): Kept | undefined => kept.values().next().value;
  return {
    get count() {
      return kept.size;
    },
    get dueAt() {
      const first = oldest();
      return first === undefined ? undefined : first.since + waitMs();
    },
    keep(batch, stream, { shard, sequence }, since) {
      // Field by field: what a gateway sends has more, such as a name of its own for the log's stream.
      kept.set(batch.batchId, { batch, stream, shard, sequence, since });
    },
    drop(stream, batchId) {
      const one = kept.get(batchId);
      if (one?.stream !== stream) return undefined;
      kept.delete(batchId);
      return one;
    },
    cover(stream, shard, sequence, settle) {
      for (const one of kept.values()) {
        if (one.stream !== stream || one.shard !== shard || one.sequence > sequence) continue;
        kept.delete(one.batch.batchId);
        // What made no progress before moves again.
        if (one.batch.overdue) doublings = 0;
        settle(one.batch);
      }
    },
    take(stream) {
      const own = [...kept.values()].filter((one) => one.stream === stream).map(({ batch }) => batch);
      for (const batch of own) kept.delete(batch.batchId);
      return own;
    },
    expire(now) {
      const first = oldest();
      if (first === undefined || now - first.since < waitMs()) return undefined;
      for (const { batch, since } of kept.values()) if (now - since >= waitMs()) batch.overdue = true;
      doublings = Math.min(doublings + 1, maxDoublings);
      return first.stream;
    },
    streams: () => [...kept.values()].map(({ stream }) => stream),
  };
}

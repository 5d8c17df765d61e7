/**
 * Trimming a shard's stream (LOAD-8): loaded messages stay for a while, so that other teams' consumers can read recent
 * history again, and what is not loaded is never touched.
 */

/** A block in ClickHouse whose messages may still be in the stream. */
interface Loaded {
  readonly hi: number;
  readonly bytes: number;
  /** When its last message was written, ms; for what was loaded before this worker came, when it came. */
  readonly timeMs: number;
}

export interface TrimState {
  readonly nowMs: number;
  /** Bytes in the stream, loaded or not. */
  readonly streamBytes: number;
  /** The stream's limit; -1 for none. */
  readonly maxBytes: number;
  /** How long loaded messages stay at most, ms. */
  readonly replayMs: number;
}

export interface TrimLedger {
  /** ClickHouse says that everything up to `hi` is loaded. */
  begin(hi: number, nowMs: number): void;
  /** A block was stored. */
  loaded(block: Loaded): void;
  /** The last sequence that may go now, undefined when none. Never above what is loaded. */
  point(state: TrimState): number | undefined;
  /** It is gone. */
  trimmed(hi: number): void;
}

/**
 * A purge takes 75 to 113 ms whether it removes much or little, and publishes wait (nats-server 2.9.10; docs/performance.md, End to
 * end): so there are few, each of so much of the stream's limit at least, or after so much more of the replay time.
 */
const minShare = 1 / 8;
const minDelay = 1 / 60;

/** Blocks are remembered one by one up to so many, then in pairs. */
const maxEntries = 4_096;

export function createTrimLedger(): TrimLedger {
  let entries: Loaded[] = [];
  return {
    begin(hi, nowMs) {
      entries = entries.filter((entry) => entry.hi <= hi);
      if (hi > (entries.at(-1)?.hi ?? 0)) entries.push({ hi, bytes: 0, timeMs: nowMs });
    },
    loaded(block) {
      entries.push(block);
      if (entries.length > maxEntries) {
        entries = entries.flatMap((entry, i) => {
          const next = entries[i + 1];
          if (i % 2 === 1) return [];
          return next === undefined ? [entry] : [{ ...next, bytes: entry.bytes + next.bytes }];
        });
      }
    },
    point({ nowMs, streamBytes, maxBytes, replayMs }) {
      const above = maxBytes > 0 ? streamBytes - maxBytes / 2 : 0;
      let excess = above >= maxBytes * minShare ? above : 0;
      let hi: number | undefined;
      const first = entries[0];
      const overdue = first !== undefined && nowMs - first.timeMs > replayMs * (1 + minDelay);
      for (const entry of entries) {
        const old = overdue && nowMs - entry.timeMs > replayMs;
        if (!old && excess <= 0) break;
        hi = entry.hi;
        excess -= entry.bytes;
        // It stands for an unknown number of bytes: look at the stream again before more goes.
        if (!old && entry.bytes === 0) break;
      }
      return hi;
    },
    trimmed(hi) {
      entries = entries.filter((entry) => entry.hi > hi);
    },
  };
}

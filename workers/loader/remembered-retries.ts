/**
 * The identities of retries that were seen lately: each is a suspect until its time is over (DEDUP-2). The set is bounded (DEDUP-5).
 * Pure: its times are those of the log.
 */
import { batchIdHash } from './suspects.js';

export interface RememberedRetries {
  /**
   * @param key of a tenant and batch id (`keyOf`)
   * @param untilMs the log's time up to which it is a suspect; a later one that is known already stays
   */
  add(key: string, untilMs: number): void;
  has(key: string): boolean;
  /** Whether one of the batch ids has this hash ({@link batchIdHash}). */
  hasHash(hash: number): boolean;
  /** DEDUP-5: every batch is a suspect up to this time of the log. */
  suspectAll(untilMs: number): void;
  suspectsAll(nowMs: number): boolean;
  /** Forgets those whose time is over. */
  expire(nowMs: number): void;
  readonly size: number;
}

const hashOfKey = (key: string): number => {
  const bytes = Buffer.from(key.slice(key.indexOf('\0') + 1));
  return batchIdHash(bytes, 0, bytes.length);
};

/** @param max identities at most; about 150 bytes each */
export function createRememberedRetries(max: number): RememberedRetries {
  /** Identity → the log's time until which it is a suspect, oldest first. */
  const until = new Map<string, number>();
  /** Hashes of their batch ids, with how many have each. */
  const hashes = new Map<number, number>();
  let allUntil = Number.NEGATIVE_INFINITY;

  function forget(key: string): void {
    until.delete(key);
    const hash = hashOfKey(key);
    const left = (hashes.get(hash) ?? 1) - 1;
    if (left === 0) hashes.delete(hash);
    else hashes.set(hash, left);
  }

  function suspectAll(untilMs: number): void {
    allUntil = Math.max(allUntil, untilMs);
  }

  return {
    add(key, untilMs) {
      const before = until.get(key);
      if (before !== undefined) {
        // Last again: the order is that of the last retry.
        until.delete(key);
        until.set(key, Math.max(before, untilMs));
        return;
      }
      const hash = hashOfKey(key);
      until.set(key, untilMs);
      hashes.set(hash, (hashes.get(hash) ?? 0) + 1);
      if (until.size <= max) return;
      const [oldest, oldestUntil] = until.entries().next().value as [string, number];
      forget(oldest);
      suspectAll(oldestUntil);
    },
    has: (key) => until.has(key),
    hasHash: (hash) => hashes.has(hash),
    suspectAll,
    suspectsAll: (nowMs) => nowMs <= allUntil,
    expire(nowMs) {
      for (const [key, untilMs] of until) {
        if (untilMs >= nowMs) return;
        forget(key);
      }
    },
    get size() {
      return until.size;
    },
  };
}

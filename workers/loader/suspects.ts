/** Finds the copies in a block that may be stored already: those of suspects (DEDUP-1 to DEDUP-3). */
import type { Block } from './block.js';
import { batchIdIn, eachFrame, type Frame, keyOf, tenantIn } from './frames.js';
import type { Identity } from './stored-events.js';

/** A copy of a suspect in the block. */
export interface Copy {
  /** Which of the block's messages, and which batch in it. */
  readonly message: number;
  readonly index: number;
  readonly frame: Frame;
}

/** A batch that may have another copy, with its copies in the block, in the order of the log. */
export interface Suspect extends Identity {
  readonly copies: Copy[];
}

/** Identities of suspects. */
export interface SuspectSet {
  /** @param key of a tenant and batch id (`keyOf`) */
  has(key: string): boolean;
  /** Whether one of the batch ids has this hash. Asked first: it needs no string. */
  hasHash(hash: number): boolean;
}

/** FNV-1a of a batch id's bytes: tells most batches apart without a string. */
export function batchIdHash(data: Uint8Array, from: number, to: number): number {
  let hash = 0x811c9dc5;
  for (let i = from; i < to; i++) hash = Math.imul(hash ^ (data[i] as number), 0x01000193);
  return hash >>> 0;
}

/** DEDUP-1: identities of the block's retries. */
export interface Retries extends SuspectSet {
  readonly keys: ReadonlySet<string>;
}

export function retriesIn(block: Block): Retries {
  const keys = new Set<string>();
  const hashes = new Set<number>();
  const retries: Retries = { keys, has: (key) => keys.has(key), hasHash: (hash) => hashes.has(hash) };
  if (!block.retried) return retries;
  for (const data of block.messages) {
    eachFrame(data, (frame) => {
      // Without an id there is no identity: a gateway always gives one.
      if (frame.attempt === 1 || frame.idFrom === frame.idTo) return;
      keys.add(keyOf(tenantIn(data, frame), batchIdIn(data, frame)));
      hashes.add(batchIdHash(data, frame.idFrom, frame.idTo));
    });
  }
  return retries;
}

/** What is in one of two sets. */
export const inEither = (one: SuspectSet, other: SuspectSet): SuspectSet => ({
  has: (key) => one.has(key) || other.has(key),
  hasHash: (hash) => one.hasHash(hash) || other.hasHash(hash),
});

/** DEDUP-3. @param set what makes a batch a suspect: to be in it */
export function suspectsIn(block: Block, set: 'all' | SuspectSet): Suspect[] {
  const suspects = new Map<string, Suspect>();
  block.messages.forEach((data, message) => {
    eachFrame(data, (frame, index) => {
      if (frame.idFrom === frame.idTo) return;
      if (set !== 'all' && !set.hasHash(batchIdHash(data, frame.idFrom, frame.idTo))) return;
      const tenant = tenantIn(data, frame);
      const batchId = batchIdIn(data, frame);
      const key = keyOf(tenant, batchId);
      if (set !== 'all' && !set.has(key)) return;
      let suspect = suspects.get(key);
      if (suspect === undefined) {
        suspect = { tenant, batchId, copies: [] };
        suspects.set(key, suspect);
      }
      suspect.copies.push({ message, index, frame: { ...frame } });
    });
  });
  return [...suspects.values()];
}

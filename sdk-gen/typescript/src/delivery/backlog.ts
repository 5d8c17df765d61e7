/** The batches that wait to be sent: those that go out again, by the time when they may, and those that were never sent. */
import { splitBatch } from '../batcher.js';
import type { Account } from './account.js';
import { type Batch, unsent } from './batch.js';
import type { LinkLimits } from './link.js';

export interface Backlog {
  readonly retries: number;
  readonly fresh: number;
  add(batch: Batch): void;
  /** The batch goes out again, no earlier than `dueAt`. */
  retryAt(batch: Batch, dueAt: number): void;
  /** The retry that is due first. */
  readonly nextRetry: Batch | undefined;
  takeRetry(): void;
  /** The oldest batch that was never sent, split so that the gateway takes it. */
  nextFresh(limits: LinkLimits): Batch | undefined;
  takeFresh(): void;
  takeAll(): Batch[];
}

export function createBacklog(account: Account, makeId: () => string): Backlog {
  const fresh: Batch[] = [];
  /** Sorted by dueAt. */
  const retries: Batch[] = [];
  return {
    get retries() {
      return retries.length;
    },
    get fresh() {
      return fresh.length;
    },
    add: (batch) => fresh.push(batch),
    retryAt(batch, dueAt) {
      batch.dueAt = dueAt;
      let at = retries.length;
      while (at > 0 && (retries[at - 1] as Batch).dueAt > dueAt) at--;
      retries.splice(at, 0, batch);
    },
    get nextRetry() {
      return retries[0];
    },
    takeRetry: () => retries.shift(),
    /** Cuts batches that were closed before the limits were known (DELIVER-1: only such as were never sent). */
    nextFresh({ maxBatchBytes, maxBatchEvents }) {
      const first = fresh[0];
      if (first === undefined) return undefined;
      if (first.bytes.length <= maxBatchBytes && first.events <= maxBatchEvents) return first;
      const parts = splitBatch(first, maxBatchBytes, maxBatchEvents);
      const batches = parts.map((part) => ({ ...part, batchId: makeId(), order: first.order, ...unsent }));
      fresh.splice(0, 1, ...batches);
      account.split(first, batches.length);
      return fresh[0];
    },
    takeFresh: () => fresh.shift(),
    takeAll: () => [...retries.splice(0), ...fresh.splice(0)],
  };
}

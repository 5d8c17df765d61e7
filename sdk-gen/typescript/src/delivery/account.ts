/** How much is not settled, and who waits until it is. */
import type { SealedBatch } from '../batcher.js';
import type { Batch, Outcome } from './batch.js';
import type { Acceptance } from './link.js';

export interface Account {
  /** Of all batches that are not settled. */
  readonly held: { readonly batches: number; readonly events: number; readonly bytes: number };
  /** Of those that are not settled, what the log was heard to have. */
  readonly accepted: { readonly batches: number; readonly events: number };
  /** @returns the batch's place in the order of arrival */
  add(batch: SealedBatch): number;
  /** A batch was split into so many. */
  split(batch: Batch, parts: number): void;
  /** The log has the batch. False when that was known. */
  accept(batch: Batch, acceptance: Acceptance): boolean;
  settle(batch: Batch, outcome: Outcome): void;
  /** Resolves when all that was added so far is settled, or the account is closed. */
  settled(): Promise<void>;
  close(): void;
}

export function createAccount(onSettled: (batch: Batch, outcome: Outcome) => void): Account {
  let held = { batches: 0, events: 0, bytes: 0 };
  const accepted = { batches: 0, events: 0 };
  let waiters: { order: number; left: number; resolve: () => void }[] = [];
  let order = 0;
  return {
    get held() {
      return held;
    },
    accepted,
    add({ events, bytes }) {
      held = { batches: held.batches + 1, events: held.events + events, bytes: held.bytes + bytes.length };
      return ++order;
    },
    split(batch, parts) {
      held = { ...held, batches: held.batches + parts - 1 };
      for (const waiter of waiters) if (batch.order <= waiter.order) waiter.left += parts - 1;
    },
    accept(batch, acceptance) {
      if (batch.acceptance !== undefined) return false;
      batch.acceptance = acceptance;
      accepted.batches++;
      accepted.events += acceptance.accepted;
      return true;
    },
    settle(batch, outcome) {
      held = { batches: held.batches - 1, events: held.events - batch.events, bytes: held.bytes - batch.bytes.length };
      if (batch.acceptance !== undefined) {
        accepted.batches--;
        accepted.events -= batch.acceptance.accepted;
      }
      onSettled(batch, outcome);
      for (const waiter of waiters) if (batch.order <= waiter.order) waiter.left--;
      const done = waiters.filter((waiter) => waiter.left <= 0);
      if (done.length === 0) return;
      waiters = waiters.filter((waiter) => waiter.left > 0);
      for (const waiter of done) waiter.resolve();
    },
    settled() {
      if (held.batches === 0) return Promise.resolve();
      return new Promise((resolve) => waiters.push({ order, left: held.batches, resolve }));
    },
    close() {
      for (const waiter of waiters.splice(0)) waiter.resolve();
    },
  };
}

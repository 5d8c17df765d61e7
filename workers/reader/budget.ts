/**
 * One bound for the bytes of messages that a worker holds, over all of its shards: at hand, being cut and in flight.
 *
 * A reader that holds nothing may always fetch one pull, so that no shard starves behind another; the bound can be
 * passed by that much per shard, and by no more.
 */
import { MiB } from '../../lib/units.js';
export interface ByteBudget {
  readonly used: number;
  fits(bytes: number): boolean;
  charge(bytes: number): void;
  release(bytes: number): void;
  /** Called after each release. Returns the un-subscriber. */
  onRoom(listener: () => void): () => void;
}

export function createByteBudget(limit: number): ByteBudget {
  let used = 0;
  const listeners = new Set<() => void>();
  return {
    get used() {
      return used;
    },
    fits: (bytes) => used + bytes <= limit,
    charge(bytes) {
      used += bytes;
    },
    release(bytes) {
      if (bytes === 0) return;
      const wasFull = used >= limit;
      used -= bytes;
      if (wasFull || bytes >= MiB) for (const listener of listeners) listener();
    },
    onRoom(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
  };
}

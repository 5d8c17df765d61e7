/**
 * Reads long JSON texts in slices: one in each turn of the event loop, tenants in turn. Reading 4 MiB takes up to 90 ms of CPU; between
 * two slices the gateway does its other work.
 */
import { allAtOnce } from '../../lib/contract/json/index.js';
import { KiB } from '../../lib/units.js';
import { createTurns } from './turns.js';

/** Shorter texts are read at once: 1 to 2 ms. Bytes. */
const longText = 128 * KiB;

export interface JsonTurns {
  /**
   * Runs what pauses (yields) between slices, now or in the owner's turns. Rejects with the signal's reason when the caller has gone
   * away by a turn.
   * @param size of the text, bytes
   */
  take<T>(owner: string, size: number, slices: Generator<void, T>, signal?: AbortSignal): T | Promise<T>;
  /** Texts that wait for their turn now. */
  readonly waiting: number;
}

/** @param later runs the callback in the next turn of the event loop; @default setImmediate */
export function createJsonTurns(later: (callback: () => void) => void = setImmediate): JsonTurns {
  const turns = createTurns({ max: 1, maxOfOwner: 1 });
  const inTurns = async <T>(owner: string, slices: Generator<void, T>, signal: AbortSignal | undefined): Promise<T> => {
    for (;;) {
      await turns.enter(owner);
      try {
        signal?.throwIfAborted();
        const { done, value } = slices.next();
        if (done === true) return value;
      } finally {
        later(() => turns.leave(owner));
      }
    }
  };
  return {
    take: (owner, size, slices, signal) => (size < longText ? allAtOnce(slices) : inTurns(owner, slices, signal)),
    get waiting() {
      return turns.waiting;
    },
  };
}

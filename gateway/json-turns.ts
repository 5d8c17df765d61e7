/**
 * Long JSON texts are read one in each turn of the event loop, tenants in turn: reading one of 4 MiB takes up to 60 ms, and between two
 * of them everything else of the gateway goes on.
 */
import { createTurns } from './turns.js';

/** Shorter texts are read at once: 1 to 2 ms. Bytes. */
const longText = 128 * 1024;

export interface JsonTurns {
  /** Runs `read`, now or when it is the owner's turn. Rejects with the signal's reason when the caller has gone away by then. */
  take<T>(owner: string, text: Uint8Array, read: (text: Uint8Array) => T, signal?: AbortSignal): T | Promise<T>;
  /** Texts that wait now. */
  readonly waiting: number;
}

/** @param later runs the callback in the next turn of the event loop; @default setImmediate */
export function createJsonTurns(later: (callback: () => void) => void = setImmediate): JsonTurns {
  const turns = createTurns({ most: 1, mostOfOwner: 1 });
  return {
    take(owner, text, read, signal) {
      if (text.length < longText) return read(text);
      return turns.enter(owner).then(() => {
        try {
          signal?.throwIfAborted();
          return read(text);
        } finally {
          later(() => turns.leave(owner));
        }
      });
    },
    get waiting() {
      return turns.waiting;
    },
  };
}

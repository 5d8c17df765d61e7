/**
 * What a handler may know of the connection that its request came on: who is at the other end, and that it will end.
 */
import { createContextKey } from '@connectrpc/connect';

/** The connection is about to end: answer what is open, take nothing new after `graceMs`. */
export interface Ending {
  readonly reason: string;
  /** ms from the moment it was told. */
  readonly graceMs: number;
}

export interface Connection {
  readonly remoteAddress: string | undefined;
  /** On the monotonic clock (performance.now), ms. */
  readonly openedAt: number;
  /** Set once, and then for good. */
  readonly ending: Ending | undefined;
  /** Calls back once, at once when it is ending already. Returns the un-subscriber. */
  onEnding(listener: (ending: Ending) => void): () => void;
}

export interface ConnectionControl extends Connection {
  end(ending: Ending): void;
}

export function createConnection(remoteAddress: string | undefined): ConnectionControl {
  const listeners = new Set<(ending: Ending) => void>();
  let ending: Ending | undefined;
  return {
    remoteAddress,
    openedAt: performance.now(),
    get ending() {
      return ending;
    },
    onEnding(listener) {
      if (ending !== undefined) {
        listener(ending);
        return () => {};
      }
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
    end(why) {
      if (ending !== undefined) return;
      ending = why;
      for (const listener of listeners) listener(why);
      listeners.clear();
    },
  };
}

/** Where handlers of the RPC library find the connection. */
export const connectionKey = createContextKey<Connection>(createConnection(undefined), {
  description: 'connection of the request',
});

/**
 * What a handler may know of its connection: who is at the other end, and when it ends.
 */
import { createContextKey } from '@connectrpc/connect';

/** The connection is about to end: answer what is open, take nothing new after `graceMs`. */
export interface Ending {
  readonly reason: string;
  /** ms from the moment it was called. */
  readonly graceMs: number;
}

export interface Connection {
  readonly remoteAddress: string | undefined;
  /** The address or network whose limits it has (address-limits.ts); undefined: it has none, as a trusted proxy. */
  readonly network: string | undefined;
  /** On the monotonic clock (performance.now), ms. */
  readonly openedAt: number;
  /** Set once, and never unset. */
  readonly ending: Ending | undefined;
  /** Calls back once, at once when it is ending already. Returns the un-subscriber. */
  onEnding(listener: (ending: Ending) => void): () => void;
  /** A call shows a valid key. */
  known(): void;
  /**
   * A call is about to be refused: it shows no valid key, there is no place for it, or nothing at its path.
   * @returns false when there were too many, and the connection ends (connection-table.ts, CONN-4)
   */
  refused(): boolean;
}

/** Counts the calls of a connection by whether they are refused. */
export type RefusalCount = Pick<Connection, 'known' | 'refused' | 'network'>;

export interface ConnectionControl extends Connection {
  end(ending: Ending): void;
}

const uncounted: RefusalCount = { known() {}, refused: () => true, network: undefined };

/** @param count @default refusals are not counted */
export function createConnection(remoteAddress: string | undefined, count = uncounted): ConnectionControl {
  const listeners = new Set<(ending: Ending) => void>();
  let ending: Ending | undefined;
  return {
    remoteAddress,
    get network() {
      return count.network;
    },
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
    known: () => count.known(),
    refused: () => count.refused(),
  };
}

/** The HTTP request and its answer, under a call of the RPC library. */
export interface Exchange {
  /** Aborts when both are over, whatever the end. The signal of the call itself aborts earlier, for example at the deadline. */
  readonly closed: AbortSignal;
  /** Resets it at once, also when the client does not read its answer. */
  cancel(): void;
}

/** Calls back when the exchange is over; at once when it is. */
export function whenClosed({ closed }: Exchange, callback: () => void): void {
  if (closed.aborted) callback();
  else closed.addEventListener('abort', callback, { once: true });
}

/** Where handlers of the RPC library find the connection and the exchange. */
export const connectionKey = createContextKey<Connection>(createConnection(undefined), {
  description: 'connection of the request',
});

export const exchangeKey = createContextKey<Exchange>(
  { closed: new AbortController().signal, cancel: () => {} },
  { description: 'exchange of the request' },
);

/**
 * Group commit: small batches of one key (shard and tenant) share one message of the log.
 *
 *   COALESCE-1  Every item leaves in exactly one message, in the order in which it was added within its key.
 *   COALESCE-2  A message is at most `maxBytes`, unless it is a single item.
 *   COALESCE-3  An item is emitted at once when nothing of its key is in flight or when it is large, and after `maxDelay` at the
 *       latest otherwise.
 *   COALESCE-4  One timer for all keys: the delay is the same for all, so groups come due in the order in which they opened.
 *
 * A message that was emitted but still waits for the publish window stays open for more items of its key, so that a full
 * window makes messages bigger instead of more numerous. Pure: clock and timer are injected.
 */

import type { FlushReason } from '../metrics.js';

/** Items that travel together. The code that puts it on the wire sets `sealed`; from then on nothing joins. */
export interface Group<T> {
  readonly key: string;
  readonly items: T[];
  bytes: number;
  sealed: boolean;
}

export interface CoalesceOptions<T> {
  /** Most bytes of a message of several items. */
  readonly maxBytes: number;
  /** An item of this size travels at once. */
  readonly largeBytes: number;
  /** Most ms that an item is held back. */
  readonly maxDelay: number;
  readonly now: () => number;
  /** Calls back once, after `ms`. Returns the canceller. */
  readonly after: (ms: number, callback: () => void) => () => void;
  readonly emit: (group: Group<T>, reason: FlushReason) => void;
}

export interface Coalescer<T> {
  add(key: string, item: T, bytes: number): void;
  /** To be called once for every emitted group: its outcome is known. */
  settled(group: Group<T>): void;
  /** Emits all that is gathered. */
  flush(): void;
  /** Keys with something gathered or in flight. */
  readonly keys: number;
}

interface KeyState<T> {
  inFlight: number;
  /** Gathering, not emitted. */
  open: Group<T> | undefined;
  openedAt: number;
  /** The last one emitted. */
  last: Group<T> | undefined;
}

export function createCoalescer<T>(options: CoalesceOptions<T>): Coalescer<T> {
  const { maxBytes, largeBytes, maxDelay, now, after, emit } = options;
  const states = new Map<string, KeyState<T>>();
  // Insertion order is the order of coming due (COALESCE-4).
  const gathering = new Set<KeyState<T>>();
  let cancelTimer: (() => void) | undefined;

  const send = (state: KeyState<T>, group: Group<T>, reason: FlushReason): void => {
    state.inFlight++;
    state.last = group;
    emit(group, reason);
  };

  const emitOpen = (state: KeyState<T>, reason: FlushReason): void => {
    const group = state.open;
    if (group === undefined) return;
    state.open = undefined;
    gathering.delete(state);
    if (gathering.size === 0) {
      cancelTimer?.();
      cancelTimer = undefined;
    }
    send(state, group, reason);
  };

  const arm = (): void => {
    const oldest = gathering.values().next();
    if (cancelTimer !== undefined || oldest.done === true) return;
    cancelTimer = after(Math.max(0, oldest.value.openedAt + maxDelay - now()), onTimer);
  };

  const onTimer = (): void => {
    cancelTimer = undefined;
    const at = now();
    for (const state of gathering) {
      if (state.openedAt + maxDelay > at) break;
      emitOpen(state, 'delay');
    }
    arm();
  };

  const stateOf = (key: string): KeyState<T> => {
    let state = states.get(key);
    if (state === undefined) {
      state = { inFlight: 0, open: undefined, openedAt: 0, last: undefined };
      states.set(key, state);
    }
    return state;
  };

  /** Adds the item to a group that is there. False: none has room for it, and none gathers. */
  const join = (key: string, state: KeyState<T>, item: T, bytes: number): boolean => {
    const { open, last } = state;
    if (open === undefined) {
      if (last === undefined || last.sealed || last.bytes + bytes > maxBytes) return false;
      last.items.push(item);
      last.bytes += bytes;
      return true;
    }
    if (open.bytes + bytes > maxBytes) {
      // COALESCE-1: what came before leaves before.
      emitOpen(state, 'size');
      // A message that failed at once has been settled by now, and its key forgotten.
      states.set(key, state);
      return false;
    }
    open.items.push(item);
    open.bytes += bytes;
    if (bytes >= largeBytes) emitOpen(state, 'large');
    else if (open.bytes >= maxBytes) emitOpen(state, 'size');
    return true;
  };

  return {
    add(key, item, bytes) {
      const state = stateOf(key);
      if (join(key, state, item, bytes)) return;
      const group: Group<T> = { key, items: [item], bytes, sealed: false };
      if (bytes >= largeBytes) send(state, group, 'large');
      else if (bytes >= maxBytes) send(state, group, 'size');
      else if (state.inFlight === 0) send(state, group, 'idle');
      else {
        state.open = group;
        state.openedAt = now();
        gathering.add(state);
        arm();
      }
    },
    settled(group) {
      const state = states.get(group.key);
      if (state === undefined) return;
      state.inFlight--;
      if (state.last === group) state.last = undefined;
      if (state.open !== undefined) emitOpen(state, 'idle');
      else if (state.inFlight === 0) states.delete(group.key);
    },
    flush() {
      for (const state of gathering) emitOpen(state, 'drain');
    },
    get keys() {
      return states.size;
    },
  };
}

/** Time and random numbers of the ingest core. They are injected, so that the simulator and the tests control them. */
import { randomUUID } from 'node:crypto';

export interface GatewayClock {
  /** Monotonic ms; only differences matter. */
  now(): number;
  /** ms since 1970; may be set back or forth. */
  wall(): number;
  /** Calls back once, after `ms`. Returns the canceller. */
  after(ms: number, callback: () => void): () => void;
  /** Runs the callback in a later macrotask. */
  later(callback: () => void): void;
  /** In [0, 1). */
  random(): number;
  /** For a batch that came without an id. */
  makeId(): string;
}

export const systemClock: GatewayClock = {
  now: () => performance.now(),
  wall: Date.now,
  after(ms, callback) {
    // Node 22 and later warn of a time below 0.
    const timer = setTimeout(callback, Math.max(0, ms));
    return () => clearTimeout(timer);
  },
  later: setImmediate,
  random: Math.random,
  makeId: randomUUID,
};

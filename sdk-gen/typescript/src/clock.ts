/** Time as the client sees it: injected, so that tests control it. */
export interface Clock {
  /** Milliseconds; only differences matter. */
  now(): number;
  /** Milliseconds since 1970. */
  wall(): number;
  /** Calls back once after `ms`, which may have passed already. Returns the canceller. */
  after(ms: number, run: () => void): () => void;
}

export const systemClock: Clock = {
  now: () => performance.now(),
  wall: () => Date.now(),
  after(ms, run) {
    // Node 22 and later warn in the host's log of a time below 0.
    const timer = setTimeout(run, Math.max(0, ms));
    return () => clearTimeout(timer);
  },
};

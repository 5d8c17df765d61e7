/** Time as the client sees it: injected, so that tests turn the hands themselves. */
export interface Clock {
  /** Milliseconds; only differences matter. */
  now(): number;
  /** Milliseconds since 1970. */
  wall(): number;
  /** Calls back once after `ms`. Returns the canceller. */
  after(ms: number, run: () => void): () => void;
}

export const systemClock: Clock = {
  now: () => performance.now(),
  wall: () => Date.now(),
  after(ms, run) {
    const timer = setTimeout(run, ms);
    return () => clearTimeout(timer);
  },
};

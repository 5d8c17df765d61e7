/**
 * When to send: a schedule that does not care how the server does (open loop), or one batch for each answer (closed
 * loop). Pure: the clock is the caller's.
 */

export interface Pace {
  /** How many batches should have been sent by `now` and have not been taken yet; Infinity in a closed loop. */
  due(now: number): number;
  /** Takes the next batch of the schedule; gives its intended send time, in ms. */
  take(now: number): number;
  /** Ms from `now` until the next batch is due: 0 when one is. */
  wait(now: number): number;
}

/**
 * An open loop: batch k belongs at `startMs + k / perSecond`. A server that stalls does not delay the schedule, and
 * batches that have to wait are measured from when they should have left: no coordinated omission.
 */
export function createOpenLoop(perSecond: number, startMs: number): Pace {
  const interval = 1000 / perSecond;
  let taken = 0;
  const reached = (now: number) => (now < startMs ? 0 : Math.floor((now - startMs) / interval) + 1);
  return {
    due: (now) => Math.max(0, reached(now) - taken),
    take: () => startMs + taken++ * interval,
    wait: (now) => Math.max(0, startMs + taken * interval - now),
  };
}

/** A closed loop: always one more, as long as there is room in flight. Measures throughput, not what users feel. */
export function createClosedLoop(): Pace {
  return { due: () => Number.POSITIVE_INFINITY, take: (now) => now, wait: () => 0 };
}

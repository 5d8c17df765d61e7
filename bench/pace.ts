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

export interface PacePhase {
  readonly seconds: number;
  readonly perSecond: number;
}

/**
 * An open loop whose rate changes from phase to phase; nothing is due after the last one.
 * @param startMs when the first phase begins
 * @param offset 0 to 1: schedules with different offsets do not send in step
 */
export function createPhasedLoop(phases: readonly PacePhase[], startMs: number, offset: number): Pace {
  let startCount = offset;
  let start = startMs;
  // Of each phase: when it begins, and how many batches belong before that.
  const spans = phases.map(({ seconds, perSecond }) => {
    const span = { start, end: start + seconds * 1000, startCount, perMs: perSecond / 1000 };
    start = span.end;
    startCount += seconds * perSecond;
    return span;
  });
  let taken = 0;
  const reached = (now: number): number => {
    const span = spans.findLast((one) => now >= one.start);
    if (span === undefined) return 0;
    return Math.floor(span.startCount + (Math.min(now, span.end) - span.start) * span.perMs);
  };
  const timeOf = (count: number): number => {
    const span = spans.findLast((one) => count > one.startCount && one.perMs > 0);
    const at = span === undefined ? startMs : span.start + (count - span.startCount) / span.perMs;
    return span !== undefined && at > span.end ? Number.POSITIVE_INFINITY : at;
  };
  return {
    due: (now) => reached(now) - taken,
    take: () => timeOf(++taken),
    wait: (now) => Math.max(0, timeOf(taken + 1) - now),
  };
}

/** A closed loop: always one more, as long as there is room in flight. Measures throughput, not what users feel. */
export function createClosedLoop(): Pace {
  return { due: () => Number.POSITIVE_INFINITY, take: (now) => now, wait: () => 0 };
}

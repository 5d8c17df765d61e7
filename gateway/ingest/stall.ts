/**
 * A gateway that stood still: stopped by a debugger, paused with its machine, starved of CPU time.
 *
 * Its sockets hold what clients sent before. When it goes on it reads batches that say attempt 1, whose clients have long since
 * sent them again to another gateway. Workers remember which batches were sent again for one hour of the log's time (rule LOAD-5);
 * a first copy that comes later than that would be stored a second time. So a gateway doubts what may have lain for long:
 *
 *   STALL-1  It has stood still when its clock has moved on by more than `stallMs` between two looks, by the monotonic clock (which
 *       does not run while a machine is suspended) or by the wall clock (which may be set).
 *   STALL-2  It looks each second, and before each batch: what waited in the sockets may be read before any timer fires.
 *   STALL-3  Connections that were opened before the end of a stall, or within a minute after it (the kernel takes connections for
 *       a process that stands still), are doubted for as long as they live: attempt 1 on them is written as 0, "unknown", which
 *       the loader checks. Doubting costs a look-up and never an event.
 *
 * Besides, a batch that its client says to have sent long ago is doubted (ingest.ts, INGEST-5), whatever it lay in.
 */
export interface StallWatch {
  /**
   * Whether bytes that are read now may be older than the last stall.
   * @param openedAt when their connection was opened, on the monotonic clock
   * @param now monotonic ms
   * @param wall ms since 1970
   */
  doubts(openedAt: number, now: number, wall: number): boolean;
  /** Looks at the clocks; to be called each second. */
  look(now: number, wall: number): void;
  /** The process that deals out connections has stood still. */
  stalled(now: number, ms: number): void;
}

/** Connections that are opened within this time after a stall may have waited through it. */
const afterMs = 60_000;

/** @param onStall gets how long it took, ms */
export function createStallWatch(stallMs: number, onStall: (ms: number) => void): StallWatch {
  let lastNow = Number.POSITIVE_INFINITY;
  let lastWall = Number.POSITIVE_INFINITY;
  let doubtedUntil = Number.NEGATIVE_INFINITY;
  const stalled = (now: number, ms: number): void => {
    doubtedUntil = now + afterMs;
    onStall(ms);
  };
  const look = (now: number, wall: number): void => {
    const gap = Math.max(now - lastNow, wall - lastWall);
    lastNow = now;
    lastWall = wall;
    if (gap > stallMs) stalled(now, gap);
  };
  return {
    doubts(openedAt, now, wall) {
      look(now, wall);
      return openedAt < doubtedUntil;
    },
    look,
    stalled,
  };
}

const lookMs = 1_000;

/** Looks each second. Returns the end of it. */
export function watchStalls(watch: StallWatch): () => void {
  const timer = setInterval(() => watch.look(performance.now(), Date.now()), lookMs);
  timer.unref();
  return () => clearInterval(timer);
}

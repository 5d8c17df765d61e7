/**
 * Detects that the gateway was paused: stopped by a debugger, paused with its machine, or starved of CPU time.
 *
 * Its sockets hold what clients sent before the pause. When it continues, it reads batches that say attempt 1, although their clients
 * have sent them again to another gateway. Workers remember for one hour of the log's time which batches were sent again (LOAD-5). A
 * first copy that comes later would be stored a second time. So a gateway doubts batches that may have waited long:
 *
 *   STALL-1  It was paused when more than `stallMs` have passed between two looks, by the monotonic clock (which does not run while a
 *       machine is suspended) or by the wall clock (which may be set).
 *   STALL-2  It looks each second, and before each batch: what waited in the sockets may be read before any timer fires.
 *   STALL-3  It doubts connections that were opened before the end of a pause, or within a minute after it, for as long as they live
 *       (the kernel takes connections for a paused process). It writes attempt 1 on them as 0, "unknown", and the loader checks for a
 *       copy. A doubt costs a look-up and never an event.
 *
 * It also doubts a batch that its client states to have sent long ago (ingest.ts, INGEST-5).
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

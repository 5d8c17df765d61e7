/** Waits in tests, for what no event announces. */

/** Between two looks, in ms: short at first, since most things hold soon, and longer while they do not. */
const firstPauseMs = 5;
const maxPauseMs = 50;

/**
 * Waits until it holds, looking every few milliseconds.
 * @param what for the error: "not within 60 s: the shard is loaded"
 * @param holds when it throws, so does this
 * @returns how long it took, in ms
 * @throws Error when the time is over
 */
export async function until(what: string, holds: () => unknown | Promise<unknown>, withinMs = 60_000): Promise<number> {
  const since = performance.now();
  for (let pauseMs = firstPauseMs; !(await holds()); pauseMs = Math.min(maxPauseMs, pauseMs * 1.3)) {
    if (performance.now() - since > withinMs) throw new Error(`not within ${withinMs / 1000} s: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, pauseMs));
  }
  return performance.now() - since;
}

/** Like {@link until}, for asking what may be down at the moment: a look that fails counts as no. */
export const untilAnswered = (what: string, holds: () => Promise<boolean>, withinMs?: number): Promise<number> =>
  until(what, () => holds().catch(() => false), withinMs);

/**
 * Collects figures for all callers together: a collection costs milliseconds, and /metrics asks for no key. Callers that wait for the
 * same collection share it, and never get figures from before their request.
 */
export interface SharedFiguresOptions {
  /** Between the beginnings of two collections, ms. */
  readonly apartMs: number;
  readonly collect: () => Promise<string>;
}

/** @returns what `collect` gives, of a collection that begins after the call */
export function shareFigures({ apartMs, collect }: SharedFiguresOptions): () => Promise<string> {
  let due: Promise<string> | undefined;
  let beganAt = Number.NEGATIVE_INFINITY;

  const collectNow = (): Promise<string> => {
    due = undefined;
    beganAt = performance.now();
    return collect();
  };
  return () => {
    const wait = beganAt + apartMs - performance.now();
    if (wait <= 0 && due === undefined) return collectNow();
    due ??= new Promise((resolve) => setTimeout(resolve, wait)).then(collectNow);
    return due;
  };
}

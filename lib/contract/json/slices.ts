/** Reading in slices: a generator that pauses (yields) between two of them, so that others can work meanwhile. */

/** Runs it to its end without a pause. */
export function allAtOnce<T>(slices: Generator<void, T>): T {
  for (;;) {
    const { done, value } = slices.next();
    if (done === true) return value;
  }
}

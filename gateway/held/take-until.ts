/**
 * The messages of a source until something else ends them.
 *
 * Not by Promise.race with a promise that lives as long as the call: each race leaves a reaction on that promise, so a body in a
 * million pieces would hold a million of them until the call ends.
 */

/** No more messages: the iteration ends, or throws the reason when there is one. */
export type Stop = (reason?: Error) => void;

/**
 * @param begin is given the stop, and returns what to call when the iteration is over
 */
export async function* takeUntil<T>(source: AsyncIterable<T>, begin: (stop: Stop) => () => void): AsyncGenerator<T> {
  const iterator = source[Symbol.asyncIterator]();
  let stopped = false;
  let reason: Error | undefined;
  let wake: (() => void) | undefined;
  const leave = begin((why) => {
    stopped = true;
    reason ??= why;
    wake?.();
  });
  try {
    while (!stopped) {
      const next = await new Promise<IteratorResult<T> | undefined>((resolve, reject) => {
        wake = () => resolve(undefined);
        iterator.next().then(resolve, reject);
      });
      if (next === undefined) break;
      if (next.done === true) return;
      yield next.value;
    }
    if (reason !== undefined) throw reason;
  } finally {
    leave();
    // Not awaited: it settles when the source does, for example when the request's stream ends.
    iterator.return?.()?.catch(() => {});
  }
}

/** One instance of something slow to start, for all tests of a file. */

export interface Shared<T> {
  /** Starts it at the first call. */
  readonly use: () => Promise<T>;
  /** Ends it, if it was started. For `test.after`. */
  readonly end: () => Promise<void>;
}

/** @param withThing starts the thing, and ends it when the promise of the function that it calls resolves */
export function createShared<T>(withThing: (use: (thing: T) => Promise<void>) => Promise<void>): Shared<T> {
  let release: () => void = () => undefined;
  let thing: Promise<T> | undefined;
  let running: Promise<void> = Promise.resolve();
  return {
    use() {
      thing ??= new Promise((resolve, reject) => {
        running = withThing(async (started) => {
          resolve(started);
          await new Promise<void>((done) => {
            release = done;
          });
        });
        running.catch(reject);
      });
      return thing;
    },
    async end() {
      release();
      await running;
    },
  };
}

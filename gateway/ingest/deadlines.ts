/**
 * Deadlines of many waiting items with one timer. Items are kept in buckets of a tick; when its tick is over, a bucket is examined. So
 * a deadline is noticed up to one tick late, and an item that settles in time costs two set operations and no timer.
 */

export interface DeadlineOptions<T> {
  /** Width of a bucket, ms. */
  readonly tickMs: number;
  readonly now: () => number;
  readonly after: (ms: number, callback: () => void) => () => void;
  readonly expired: (thing: T) => void;
}

export interface Deadlines<T> {
  /** `at` is on the clock of `now`. Returns the bucket, for `remove`. */
  add(thing: T, at: number): number;
  remove(thing: T, bucket: number): void;
  readonly size: number;
}

export function createDeadlines<T>(options: DeadlineOptions<T>): Deadlines<T> {
  const { tickMs, now, after, expired } = options;
  const buckets = new Map<number, Set<T>>();
  let timerSet = false;

  const arm = (): void => {
    if (timerSet || buckets.size === 0) return;
    timerSet = true;
    after(tickMs, onTick);
  };

  const onTick = (): void => {
    timerSet = false;
    const current = now() / tickMs;
    for (const [bucket, things] of buckets) {
      if (bucket > current) continue;
      buckets.delete(bucket);
      for (const thing of things) expired(thing);
    }
    arm();
  };

  return {
    add(thing, at) {
      const bucket = Math.ceil(at / tickMs);
      let things = buckets.get(bucket);
      if (things === undefined) {
        things = new Set();
        buckets.set(bucket, things);
      }
      things.add(thing);
      arm();
      return bucket;
    },
    remove(thing, bucket) {
      const things = buckets.get(bucket);
      if (things === undefined) return;
      things.delete(thing);
      if (things.size === 0) buckets.delete(bucket);
    },
    get size() {
      let size = 0;
      for (const things of buckets.values()) size += things.size;
      return size;
    },
  };
}

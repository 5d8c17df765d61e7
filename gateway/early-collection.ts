/**
 * Collects garbage earlier than V8 does, while memory is short. V8 starts when 64 MiB of buffers wait for it, or about as much heap as is
 * in use. A gateway that holds all that its limits allow has no room for so much beside it.
 *
 *   COLLECT-1  V8 alone decides below `shortBytes` of resident memory, or below `crampedBytes` while the gateway holds few unfinished
 *       bytes. So ordinary traffic pays nothing, also at the highest rate, where V8 settles at 170 to 230 MiB.
 *   COLLECT-2  A collection is due when `wasteBytes` more are in use than at the lowest point since the last one.
 *   COLLECT-3  After a collection of n ms, none is due for 2 n ms: at most a third of the time goes into it. While the gateway holds
 *       few unfinished bytes it is 50 n ms: ten thousand connections take as much memory, and no collection gives that back.
 *   COLLECT-4  Resident memory is read last, when all else speaks for a collection: it takes a system call of up to 1 ms. While the gateway
 *       holds few unfinished bytes, one look in eight is enough.
 *
 * Pure, but for `startEarlyCollection`.
 */
import { performance } from 'node:perf_hooks';
import { getHeapStatistics } from 'node:v8';
import { MiB } from '../lib/units.js';

export interface EarlyCollectionOptions {
  /** Bytes of the heap and of buffers, with their garbage. */
  readonly used: () => number;
  /** Resident memory, bytes. */
  readonly rss: () => number;
  /** The gateway holds so much that what comes next may need the room of the garbage. */
  readonly holdsMuch: () => boolean;
  /** Collects all garbage, and returns when that is done. */
  readonly collect: () => void;
  /** Monotonic, ms. */
  readonly now: () => number;
}

/** The figures of COLLECT-1 and COLLECT-2. A full collection takes 20 to 50 ms of a heap of 25 to 50 MiB. */
export const shortBytes = 144 * MiB;
export const crampedBytes = 240 * MiB;
export const wasteBytes = 12 * MiB;
const restFactor = 2;
const longRestFactor = 50;
/** New buffers of an attack are 60 MiB in 100 ms. */
const lookEveryMs = 25;
const calmLooks = 8;

/** @returns to be called often; tells whether it has collected */
export function createEarlyCollection({ used, rss, holdsMuch, collect, now }: EarlyCollectionOptions): () => boolean {
  let min = Number.POSITIVE_INFINITY;
  let collectedAt = Number.NEGATIVE_INFINITY;
  let tookMs = 0;
  let looks = 0;
  return () => {
    const much = holdsMuch();
    if (!much && looks++ % calmLooks > 0) return false;
    const bytes = used();
    min = Math.min(min, bytes);
    const from = now();
    const restsUntil = collectedAt + (much ? restFactor : longRestFactor) * tookMs;
    if (bytes < min + wasteBytes || from < restsUntil) return false;
    if (rss() < (much ? shortBytes : crampedBytes)) return false;
    collect();
    collectedAt = now();
    tookMs = collectedAt - from;
    min = used();
    return true;
  };
}

/**
 * Looks at this process's memory from now on, where node has been started with `--expose-gc`.
 * @param onCollected after each collection
 * @returns what ends that
 */
export function startEarlyCollection(
  holdsMuch: EarlyCollectionOptions['holdsMuch'],
  onCollected: () => void,
): () => void {
  const { gc } = globalThis;
  if (gc === undefined) return () => {};
  const look = createEarlyCollection({
    used: () => {
      const { used_heap_size, external_memory } = getHeapStatistics();
      return used_heap_size + external_memory;
    },
    rss: process.memoryUsage.rss,
    holdsMuch,
    collect: () => void gc(),
    now: () => performance.now(),
  });
  const timer = setInterval(() => {
    if (look()) onCollected();
  }, lookEveryMs).unref();
  return () => clearInterval(timer);
}

/**
 * How fast held bytes settle, and so when a refused caller may come back.
 */
import { retryAfter } from '../../lib/back-off.js';

const minRetryMs = 50;
const maxRetryMs = 5_000;
const windowMs = 500;

export class SettleRate {
  readonly #now: () => number;
  readonly #random: () => number;
  /** Bytes per ms, averaged over about a window. */
  #rate = 0;
  #windowStart: number;
  #windowBytes = 0;

  /**
   * @param now monotonic ms
   * @param random in [0, 1)
   */
  constructor(now: () => number, random: () => number) {
    this.#now = now;
    this.#random = random;
    this.#windowStart = now();
  }

  settled(bytes: number): void {
    this.#windowBytes += bytes;
    const at = this.#now();
    const elapsed = at - this.#windowStart;
    if (elapsed < windowMs) return;
    const latest = this.#windowBytes / elapsed;
    this.#rate = this.#rate === 0 ? latest : this.#rate * 0.5 + latest * 0.5;
    this.#windowStart = at;
    this.#windowBytes = 0;
  }

  /**
   * ms until about half of the bound has settled at the recent rate, or long when nothing settles; ±50 %.
   * @param bound bytes
   */
  retryAfterMs(bound: number): number {
    const elapsed = this.#now() - this.#windowStart;
    // A window that is long overdue tells that the log has stalled since.
    const recent = elapsed > 2 * windowMs ? this.#windowBytes / elapsed : this.#rate;
    const wait = recent === 0 ? maxRetryMs / 5 : bound / 2 / recent;
    return retryAfter(Math.min(maxRetryMs, Math.max(minRetryMs, wait)), this.#random);
  }
}

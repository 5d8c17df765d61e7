/**
 * How often a peer may take calls back before it has their answer ("rapid reset"). Pure: the clock is the caller's.
 *
 * A call that lives for `youngMs` was given up, at its deadline or by its user, and costs nothing here. One that is taken back sooner
 * costs one of `most`. `backPerSecond` of them come back with time, and one with each call that is answered: a proxy that hedges, or whose
 * users close pages, answers far more calls than it takes back. An attack does not wait for answers.
 */
const most = 100;
const backPerSecond = 10;
/** Less than a call lives that we cancel ourselves, because its refusal is not read (answered-early.ts, E3). */
const youngMs = 400;

export class ResetBudget {
  #left = most;
  #at: number;

  /** @param now monotonic, ms */
  constructor(now: number) {
    this.#at = now;
  }

  answered(): void {
    if (this.#left < most) this.#left++;
  }

  /**
   * A call was reset before its answer.
   * @param livedMs since its headers
   * @returns false when that was too often
   */
  reset(livedMs: number, now: number): boolean {
    if (livedMs >= youngMs) return true;
    this.#left = Math.min(most, this.#left + ((now - this.#at) / 1_000) * backPerSecond);
    this.#at = now;
    return --this.#left >= 0;
  }
}

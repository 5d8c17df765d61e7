/**
 * How many calls of a kind a connection may make that bring nothing: `most` at once. `backPerSecond` of them come back with time, and
 * one with each useful call. Pure: the clock is the caller's.
 */
const backPerSecond = 10;

export class CallBudget {
  readonly #most: number;
  #left: number;
  #at: number;

  /** @param now monotonic, ms */
  constructor(most: number, now: number) {
    this.#most = most;
    this.#left = most;
    this.#at = now;
  }

  /** A useful call gives one back. */
  giveBack(): void {
    if (this.#left < this.#most) this.#left++;
  }

  /** @returns false when none is left */
  take(now: number): boolean {
    this.#left = Math.min(this.#most, this.#left + ((now - this.#at) / 1_000) * backPerSecond);
    this.#at = now;
    return --this.#left >= 0;
  }
}

/**
 * Budget of useless calls of a connection or an address: `most` at once. It regains `backPerSecond` a second, and one with each useful
 * call. Pure: the clock is the caller's.
 */
export interface CallBudgetOptions {
  readonly most: number;
  readonly backPerSecond: number;
}

export class CallBudget {
  readonly #most: number;
  readonly #backPerSecond: number;
  #left: number;
  #at: number;

  /** @param now monotonic, ms */
  constructor({ most, backPerSecond }: CallBudgetOptions, now: number) {
    this.#most = most;
    this.#backPerSecond = backPerSecond;
    this.#left = most;
    this.#at = now;
  }

  /** A useful call gives one back. */
  giveBack(): void {
    if (this.#left < this.#most) this.#left++;
  }

  /**
   * Takes `cost` of the budget, or nothing.
   * @returns false when so many are not left
   */
  take(now: number, cost = 1): boolean {
    this.#left = Math.min(this.#most, this.#left + ((now - this.#at) / 1_000) * this.#backPerSecond);
    this.#at = now;
    if (this.#left < cost) return false;
    this.#left -= cost;
    return true;
  }
}

/**
 * Budget of useless calls of a connection or an address: `max` at once. It regains `backPerSecond` a second, and one with each useful
 * call. Pure: the clock is the caller's.
 */
export interface CallBudgetOptions {
  readonly max: number;
  readonly backPerSecond: number;
}

export class CallBudget {
  readonly #max: number;
  readonly #backPerSecond: number;
  #left: number;
  #at: number;

  /** @param now monotonic, ms */
  constructor({ max, backPerSecond }: CallBudgetOptions, now: number) {
    this.#max = max;
    this.#backPerSecond = backPerSecond;
    this.#left = max;
    this.#at = now;
  }

  /** A useful call gives one back. */
  giveBack(): void {
    if (this.#left < this.#max) this.#left++;
  }

  /**
   * Takes `cost` of the budget, or nothing.
   * @returns false when so many are not left
   */
  take(now: number, cost = 1): boolean {
    this.#left = Math.min(this.#max, this.#left + ((now - this.#at) / 1_000) * this.#backPerSecond);
    this.#at = now;
    if (this.#left < cost) return false;
    this.#left -= cost;
    return true;
  }
}

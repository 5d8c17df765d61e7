/**
 * How often a peer may take calls back before it has their answer ("rapid reset"). Pure: the clock is the caller's.
 *
 * A call that lives for `youngMs` was given up, at its deadline or by its user, and costs nothing here. One that is taken back sooner
 * costs one of the budget (call-budget.ts), and each call that is answered gives one back: a proxy that hedges, or whose users close
 * pages, answers far more calls than it takes back. An attack does not wait for answers.
 *
 * A call that waits for the log counts as answered (`takeOver` in held-connection.ts). Its batch costs what an answered one does, and is
 * counted by admission. While the log stands still, clients with short deadlines take back all of their calls, and have done no wrong.
 */
import { CallBudget } from './call-budget.js';

const allowed = { most: 100, backPerSecond: 10 };
/** Less than a call lives that we cancel ourselves, because its refusal is not read (answered-early.ts, EARLY-3). */
const youngMs = 400;

export class ResetBudget {
  readonly #budget: CallBudget;

  /** @param now monotonic, ms */
  constructor(now: number) {
    this.#budget = new CallBudget(allowed, now);
  }

  answered(): void {
    this.#budget.giveBack();
  }

  /**
   * A call was reset before its answer.
   * @param livedMs since its headers
   * @returns false when that was too often
   */
  reset(livedMs: number, now: number): boolean {
    return livedMs >= youngMs || this.#budget.take(now);
  }
}

/**
 * Bounds how often a peer may reset calls before it has their answer ("rapid reset"). Pure: the clock is the caller's.
 *
 * A call that was reset after `youngMs` was given up, at its deadline or by its user, and costs nothing here. An earlier reset costs
 * one of the budget (call-budget.ts), and each answered call gives one back. A proxy that hedges, or whose users close pages, has far
 * more answered calls than resets. An attack does not wait for answers.
 *
 * A call that waits for the log counts as answered (`takeOver` in connection-entry.ts). Its batch costs as much as an answered one, and
 * admission counts it. While the log stalls, clients with short deadlines reset all of their calls, which is no abuse.
 */
import { CallBudget } from './call-budget.js';

const allowed = { max: 100, backPerSecond: 10 };
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

/**
 * What a scenario is: a plan, and what it is held to beyond the verdicts that all share.
 */
import type { Plan } from './plan.js';
import type { RunFacts } from './run-facts.js';
import type { Verdict } from './verdicts.js';

export interface Scenario {
  readonly name: string;
  readonly plan: Plan;
  /** What it comes to, for people: told before it runs. */
  readonly intent: readonly string[];
  /** Verdicts of this scenario alone. */
  judge?(facts: RunFacts): Verdict[];
  /** Further lines of the result. */
  describe?(facts: RunFacts): string[];
  /** Further fields of the JSON. */
  figures?(facts: RunFacts): Record<string, unknown>;
}

/**
 * What a scenario is: a plan, and what it is held to beyond the verdicts that all share; and what a run of it shows.
 */
import type { Sample } from '../slope.js';
import type { Plan } from './plan.js';
import type { TallyResult, TimeSlot } from './tally.js';
import type { StoredBatches, Verdict } from './verdicts.js';

export interface Scenario {
  readonly name: string;
  readonly plan: Plan;
  /** What it amounts to, for people: printed before it runs. */
  readonly intent: readonly string[];
  /** Verdicts of this scenario alone. */
  judge?(facts: RunFacts): Verdict[];
  /** Further fields of the JSON. */
  figures?(facts: RunFacts): Record<string, unknown>;
}

/** Everything that was seen; times are seconds since the start of the plan. */
export interface RunFacts {
  readonly plan: Plan;
  readonly slots: readonly TimeSlot[];
  /** Age of the oldest acknowledged event that ClickHouse did not have, seconds. */
  readonly lag: readonly Sample[];
  /** MiB by role. */
  readonly rss: Readonly<Record<string, readonly Sample[]>>;
  /** CPU seconds of the whole run, by role. */
  readonly cpu: Readonly<Record<string, number>>;
  readonly tally: TallyResult;
  readonly stored: readonly StoredBatches[];
  /** From the last acknowledgement until ClickHouse had everything, seconds. */
  readonly drain: number;
}

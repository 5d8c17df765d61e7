import type { Plan } from './plan.js';
import type { Sample } from './slope.js';
import type { Slot, TallyResult } from './tally.js';
import type { StoredBatches } from './verdicts.js';

/** Everything that was seen; times are seconds since the start of the plan. */
export interface RunFacts {
  readonly plan: Plan;
  readonly slots: readonly Slot[];
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

/**
 * What a scenario and its load process say to each other, over Node's IPC.
 */
import type { End } from '../load-child.js';
import type { CallTarget } from './calls.js';
import type { Plan } from './plan.js';
import type { Slot, TallyResult } from './tally.js';

export interface CrowdSettings {
  readonly plan: Plan;
  readonly target: CallTarget;
  readonly seed: number;
  /** Length of a slot, ms. */
  readonly slotMs: number;
  /** How long the last calls may take after the end of the plan, ms. */
  readonly patienceMs: number;
}

export type ToCrowd = { readonly type: 'begin'; readonly settings: CrowdSettings } | End;

export type FromCrowd =
  /** `at`: ms since 1970 of the plan's start, fractional. */
  | { readonly type: 'began'; readonly at: number }
  | { readonly type: 'slot'; readonly slot: Slot }
  | { readonly type: 'result'; readonly result: TallyResult };

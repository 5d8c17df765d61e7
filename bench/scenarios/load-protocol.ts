/**
 * What a scenario and its load process say to each other, over Node's IPC.
 */
import type { End } from '../load-child.js';
import type { Plan } from './plan.js';
import type { TallyResult, TimeSlot } from './tally.js';

export interface ScenarioTarget {
  /** `http://127.0.0.1:7070` */
  readonly url: string;
  /** By customer. */
  readonly keys: readonly string[];
  /** HTTP/2 connections of all clients together; each group has one at least. */
  readonly connections: number;
}

export interface LoadSettings {
  readonly plan: Plan;
  readonly target: ScenarioTarget;
  readonly seed: number;
  /** Length of a slot, ms. */
  readonly slotMs: number;
  /** How long the last calls may take after the end of the plan, ms. */
  readonly patienceMs: number;
}

export type ToLoad = { readonly type: 'begin'; readonly settings: LoadSettings } | End;

export type FromLoad =
  /** `at`: ms since 1970 of the plan's start, fractional. */
  | { readonly type: 'began'; readonly at: number }
  | { readonly type: 'slot'; readonly slot: TimeSlot }
  | { readonly type: 'result'; readonly result: TallyResult };

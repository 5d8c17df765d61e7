/**
 * A plan: which virtual clients send how often, phase by phase. Pure.
 *
 * A virtual client is one independent sender. It thinks between its calls, and its schedule is an open loop: a call belongs at its
 * intended time, also when earlier calls are late or fail, and is measured from then.
 */
import type { Random } from '../../lib/testing/batches.js';
import type { Mix } from './mix.js';

export interface Phase {
  readonly name: string;
  readonly seconds: number;
  /** Load that no verdict judges: compilers warm up, connections open. */
  readonly warmUp?: boolean;
}

/** How a client speaks: its own PublishStream, or a unary call for each batch over Connect or gRPC. */
export type CallKind = 'stream' | 'connect' | 'grpc';

/** Clients that do the same. */
export interface Group {
  /** Number of the customer whose key they use. */
  readonly customer: number;
  readonly clients: number;
  readonly calls: CallKind;
  /** Events of a batch. */
  readonly batch: number;
  /** Undefined: the benchmarks' own mix of all types. */
  readonly mix: Mix | undefined;
  /** By phase: calls per second of each client that is at work. */
  readonly rates: readonly number[];
  /** By phase: how many of the clients are at work, the first ones. Undefined: all. */
  readonly active?: readonly number[];
}

export interface Plan {
  readonly phases: readonly Phase[];
  /** Tenant ids; a group's `customer` is a place in this list. */
  readonly customers: readonly string[];
  readonly groups: readonly Group[];
}

/** Length of all phases, seconds. */
export const planSeconds = (plan: Plan): number => plan.phases.reduce((sum, phase) => sum + phase.seconds, 0);

/** In which phase a moment lies: the last one for everything after it. */
export function phaseAt(phases: readonly Phase[], ms: number): number {
  let end = 0;
  for (const [i, phase] of phases.entries()) {
    end += phase.seconds * 1000;
    if (ms < end) return i;
  }
  return phases.length - 1;
}

/** Events per second that the plan asks for in a phase. */
export function plannedRate(plan: Plan, phase: number): number {
  return plan.groups.reduce((sum, group) => sum + group.batch * callsPerSecond(group, phase), 0);
}

/** Calls per second of all clients of a group in a phase. */
export function callsPerSecond(group: Group, phase: number): number {
  return (group.active?.[phase] ?? group.clients) * (group.rates[phase] ?? 0);
}

/** Gives the rest of a client's intended times, one a call, ms since the start; Infinity when there is none left. */
export type Arrivals = () => number;

/**
 * Client number `index` of the group. Think times are the mean ± 50 %, and the first call comes anywhere within the mean, so that
 * clients of one kind spread out instead of calling in step.
 */
export function arrivals(plan: Plan, group: Group, index: number, random: Random): Arrivals {
  const rates = plan.phases.map((_, i) => (index < (group.active?.[i] ?? group.clients) ? (group.rates[i] ?? 0) : 0));
  let phase = 0;
  let at = 0; // ms
  let end = (plan.phases[0]?.seconds ?? 0) * 1000;
  let first = true;
  return () => {
    // How many calls further, in units in which every call is 1 apart: a rate that changes meanwhile counts by its share.
    let left = first ? random() : 0.5 + random();
    first = false;
    for (;;) {
      if (phase >= rates.length) return Number.POSITIVE_INFINITY;
      const perMs = rates[phase]! / 1000;
      const room = (end - at) * perMs;
      if (left < room) {
        at += left / perMs;
        return at;
      }
      left -= room;
      at = end;
      phase++;
      end += (plan.phases[phase]?.seconds ?? 0) * 1000;
    }
  };
}

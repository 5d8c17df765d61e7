/**
 * A plan: which groups of virtual clients send how often, phase by phase. Pure.
 *
 * The schedule of a group is an open loop: a call belongs at its intended time, also when earlier calls are late or fail, and is
 * measured from then. A group has as many calls in flight as it has clients, at most.
 */
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
  /** By phase: calls per second of all clients together. */
  readonly rates: readonly number[];
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
export const plannedRate = (plan: Plan, phase: number): number =>
  plan.groups.reduce((sum, group) => sum + group.batch * (group.rates[phase] ?? 0), 0);

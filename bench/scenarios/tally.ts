/**
 * What became of the calls: by phase, by customer, and by short slots of time. Pure; the clock is the caller's.
 */
import {
  type LatencyHistogram,
  newHistogram,
  packHistogram,
  type Quantiles,
  quantiles,
  record,
} from '../../lib/testing/latency.js';
import type { Prepared } from '../payload.js';
import { type Plan, phaseAt } from './plan.js';

/** A short stretch of time, as a load process tells it while it runs. */
export interface TimeSlot {
  /** End of the slot, ms since the start of the plan. */
  readonly at: number;
  /** Calls answered "accepted", and calls that were not: refused, failed, or cut off. */
  readonly ok: number;
  readonly failed: number;
  /** Calls whose time has come and which have no answer yet, at the end of the slot. */
  readonly waiting: number;
  /** Events acknowledged since the start. */
  readonly acked: number;
  /** Of the calls that ended well in the slot, ms; NaN without any (null over JSON). */
  readonly ack: Quantiles;
}

/** Calls of one customer in one phase; a call belongs to the phase of its intended time. */
export interface Part {
  /** Calls that became due. */
  readonly due: number;
  /** Accepted, sooner or later. */
  readonly ok: number;
  /** Accepted within `onTimeMs`. */
  readonly onTime: number;
  /** Answers that were not "accepted"; a call may have several. */
  readonly failed: number;
  /** Events accepted. */
  readonly events: number;
  /** Packed histogram of the accepted calls. */
  readonly ack: string;
}

/** What one customer heard to be durable: to be found in ClickHouse exactly once. */
export interface Acked {
  readonly events: number;
  /** Sum of the first 32 bits of all acknowledged event_ids, modulo 2^32: which events, not only how many. */
  readonly idSum: number;
  /** Batches by their number of events. */
  readonly batches: Readonly<Record<number, number>>;
}

export interface TallyResult {
  /** By phase, then by customer. */
  readonly parts: readonly (readonly Part[])[];
  /** By customer, of the whole run. */
  readonly acked: readonly Acked[];
  /** Batches whose outcome is unknown: never acknowledged, and not refused either. */
  readonly unresolved: number;
  readonly lastReason: string | undefined;
}

/** Verdicts ask P99 to be below this. */
export const onTimeMs = 250;

export interface Tally {
  /** A call is sent for the first time. */
  due(customer: number, intended: number): void;
  accepted(customer: number, intended: number, now: number, message: Prepared, accepted: number): void;
  failed(customer: number, intended: number, reason: string): void;
  /** A batch was finally refused: it is not durable, and is sent no more. */
  givenUp(): void;
  /** Ends a slot and begins the next. @param overdue calls whose time has come and which could not leave yet */
  slot(now: number, overdue: number): TimeSlot;
  result(): TallyResult;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };
type Growing = Omit<Mutable<Part>, 'ack'> & { histogram: LatencyHistogram | undefined };

export function createTally(plan: Plan): Tally {
  const parts = plan.phases.map(() =>
    plan.customers.map((): Growing => ({ due: 0, ok: 0, onTime: 0, failed: 0, events: 0, histogram: undefined })),
  );
  const acked = plan.customers.map(() => ({ events: 0, idSum: 0, batches: {} as Record<number, number> }));
  const slotHistogram = newHistogram();
  let [ok, failed, ackedEvents, waiting] = [0, 0, 0, 0];
  let lastReason: string | undefined;
  const partOf = (customer: number, intended: number) => parts[phaseAt(plan.phases, intended)]![customer]!;

  return {
    due(customer, intended) {
      waiting++;
      partOf(customer, intended).due++;
    },
    accepted(customer, intended, now, message, accepted) {
      const ms = now - intended;
      const part = partOf(customer, intended);
      part.ok++;
      if (ms < onTimeMs) part.onTime++;
      part.events += accepted;
      part.histogram ??= newHistogram();
      record(part.histogram, ms);
      const sums = acked[customer]!;
      sums.events += accepted;
      sums.idSum = (sums.idSum + idSum(message)) >>> 0;
      sums.batches[accepted] = (sums.batches[accepted] ?? 0) + 1;
      record(slotHistogram, ms);
      ok++;
      waiting--;
      ackedEvents += accepted;
    },
    failed(customer, intended, reason) {
      partOf(customer, intended).failed++;
      failed++;
      lastReason = reason;
    },
    givenUp() {
      waiting--;
    },
    slot(now, overdue) {
      const slot = {
        at: now,
        ok,
        failed,
        waiting: waiting + overdue,
        acked: ackedEvents,
        ack: quantiles(slotHistogram),
      };
      slotHistogram.reset();
      ok = 0;
      failed = 0;
      return slot;
    },
    result: () => ({
      parts: parts.map((phase) =>
        phase.map(({ histogram, ...counts }) => ({ ...counts, ack: packHistogram(histogram ?? newHistogram()) })),
      ),
      acked,
      unresolved: waiting,
      lastReason,
    }),
  };
}

/** Sum of the first eight hex digits of each event_id of a message, as ClickHouse can compute it from what it stored. */
function idSum(message: Prepared): number {
  const { bytes, idOffsets } = message;
  let sum = 0;
  for (let i = 0; i < idOffsets.length; i++) {
    const offset = idOffsets[i]!;
    let value = 0;
    for (let j = 0; j < 8; j++) {
      const c = bytes[offset + j]!;
      value = (value << 4) | (c < 0x3a ? c - 0x30 : c - 0x57);
    }
    sum = (sum + value) >>> 0;
  }
  return sum;
}

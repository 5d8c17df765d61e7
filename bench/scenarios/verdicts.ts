/**
 * What a run is held to. Pure: each verdict says its bound, what was found, and whether that is good enough.
 */
import type { Quantiles } from '../../lib/testing/latency.js';
import type { Slope } from '../slope.js';
import type { Acked, TimeSlot } from './tally.js';

export interface Verdict {
  readonly name: string;
  readonly passed: boolean;
  /** What was found, and the bound, for people. */
  readonly found: string;
  readonly bound: string;
  /** What was found, for machines; null where there is no number. */
  readonly value: number | null;
}

/** Rows of ClickHouse: how many batches of this customer are stored with so many rows, and the sum of their ids (see `Acked`). */
export interface StoredBatches {
  readonly tenant: string;
  readonly rows: number;
  readonly batches: number;
  readonly idSum: number;
}

/** Share of calls that may fail in a second that still counts as up. */
const upShare = 0.95;

/**
 * Uptime: of all whole seconds of the judged time, the share in which calls succeed. A second is down when no call was answered well
 * in it although some were waiting or failed, or when more than 5 % of the answers in it were failures. Seconds in which no client
 * called are not counted.
 * @param slots in order, of the judged time only
 */
export function uptime(slots: readonly TimeSlot[]): { readonly up: number; readonly seconds: number } {
  const seconds = new Map<number, { ok: number; failed: number; waiting: number }>();
  for (const slot of slots) {
    // A slot's end lies at `at`; the epsilon puts a slot that ends on the second into the one that it was in.
    const second = Math.floor((slot.at - 1) / 1000);
    const sum = seconds.get(second) ?? { ok: 0, failed: 0, waiting: 0 };
    sum.ok += slot.ok;
    sum.failed += slot.failed;
    sum.waiting = slot.waiting;
    seconds.set(second, sum);
  }
  let up = 0;
  let counted = 0;
  for (const { ok, failed, waiting } of seconds.values()) {
    if (ok + failed + waiting === 0) continue;
    counted++;
    if (ok > 0 && ok >= upShare * (ok + failed)) up++;
  }
  return { up, seconds: counted };
}

export function judgeUptime({ up, seconds }: { up: number; seconds: number }): Verdict {
  const share = seconds === 0 ? 0 : up / seconds;
  return {
    name: 'uptime',
    passed: share >= 0.999,
    found: `${(share * 100).toFixed(2)} % (${up} of ${seconds} seconds had calls succeed)`,
    bound: '≥ 99.9 %',
    value: share,
  };
}

export function judgeLatency(ack: Quantiles): Verdict[] {
  const verdict = (name: string, value: number, most: number): Verdict => ({
    name,
    passed: value < most,
    found: `${value.toFixed(1)} ms`,
    bound: `< ${most} ms`,
    value,
  });
  return [verdict('P95', ack.p95, 100), verdict('P99', ack.p99, 250)];
}

/** @param failed answers that were not "accepted", of `answers` in all */
export function judgeErrors(failed: number, answers: number): Verdict {
  const share = answers === 0 ? 1 : failed / answers;
  return {
    name: 'errors',
    passed: share < 0.001,
    found: `${(share * 100).toFixed(3)} % (${failed} of ${answers} answers)`,
    bound: '< 0.1 %',
    value: share,
  };
}

/**
 * Nothing lost, nothing doubled: every customer's acknowledged batches are stored, each once and with exactly its events. A batch
 * that was never acknowledged may be stored or not (`unresolved`), but not twice.
 */
export function judgeStored(
  customers: readonly string[],
  acked: readonly Acked[],
  stored: readonly StoredBatches[],
  unresolved: number,
): Verdict {
  /** Batches that may be there beyond the acknowledged ones: calls whose answer was lost. */
  const spare = { batches: unresolved };
  const problems = customers.flatMap((tenant, i) => {
    const rows = stored.filter((row) => row.tenant === tenant);
    const faults = [...surplus(acked[i]!, rows, spare), ...missing(acked[i]!, rows)];
    if (unresolved === 0 && idSumOf(rows) !== acked[i]!.idSum) {
      faults.push('other event_ids are stored than were acknowledged');
    }
    return faults.map((fault) => `${tenant}: ${fault}`);
  });
  for (const tenant of new Set(stored.map((row) => row.tenant))) {
    if (!customers.includes(tenant)) problems.push(`${tenant}: rows of a customer that there is not`);
  }
  const events = acked.reduce((sum, one) => sum + one.events, 0);
  const found =
    problems.length === 0
      ? `${events} events of ${customers.length} ${customers.length === 1 ? 'customer' : 'customers'} stored as acknowledged`
      : `${problems.slice(0, 5).join('; ')}${problems.length > 5 ? `; and ${problems.length - 5} more` : ''}`;
  return {
    name: 'nothing lost',
    passed: problems.length === 0 && events > 0,
    found: unresolved === 0 ? found : `${found}; ${unresolved} batches without an answer`,
    bound: 'acked = stored, each batch once, by customer',
    value: problems.length,
  };
}

function surplus(want: Acked, rows: readonly StoredBatches[], spare: { batches: number }): string[] {
  return rows.flatMap(({ rows: size, batches }) => {
    const extra = batches - (want.batches[size] ?? 0);
    if (extra <= 0) return [];
    if (want.batches[size] === undefined || extra > spare.batches) {
      return [`${extra} batches of ${size} events beyond those acknowledged`];
    }
    spare.batches -= extra;
    return [];
  });
}

const missing = (want: Acked, rows: readonly StoredBatches[]): string[] =>
  Object.entries(want.batches).flatMap(([size, batches]) => {
    const have = rows.find((row) => row.rows === Number(size))?.batches ?? 0;
    return have < batches ? [`${batches - have} of ${batches} batches of ${size} events not stored`] : [];
  });

const idSumOf = (rows: readonly StoredBatches[]): number => rows.reduce((sum, row) => (sum + row.idSum) % 2 ** 32, 0);

/**
 * A process leaks when its memory clearly grows: when even the lower end of the slope's 95 % interval is above the bound. What is
 * within the noise is not held against it.
 * @param most MiB per minute
 */
export function judgeMemory(role: string, slope: Slope, most: number): Verdict {
  const known = Number.isFinite(slope.perMinute);
  const range = known ? ` (95 %: ${slope.low.toFixed(1)} to ${slope.high.toFixed(1)})` : '';
  return {
    name: `memory of ${role}`,
    passed: known && slope.low <= most,
    found: known ? `${slope.perMinute.toFixed(1)} MiB/min${range}` : 'too few samples',
    bound: `not clearly above ${most} MiB/min`,
    value: slope.perMinute,
  };
}

/** @param most seconds */
export function judgeRecovery(name: string, seconds: number, most: number, band: string): Verdict {
  return {
    name,
    passed: seconds <= most,
    found: Number.isFinite(seconds) ? `${seconds.toFixed(2)} s until within ${band}` : `never back within ${band}`,
    bound: `≤ ${most} s`,
    value: seconds,
  };
}

/**
 * Fair shares: Jain's index of what each got of what it asked for; 1 when all are served alike, 1/n when one gets everything.
 */
export function fairness(shares: readonly number[]): number {
  const sum = shares.reduce((total, share) => total + share, 0);
  const squares = shares.reduce((total, share) => total + share * share, 0);
  return squares === 0 ? 0 : (sum * sum) / (shares.length * squares);
}

/** @param shares by customer: calls answered in time, of those that were due */
export function judgeFairness(name: string, shares: readonly number[]): Verdict {
  const index = fairness(shares);
  const least = Math.min(...shares);
  return {
    name,
    passed: index >= 0.99 && least >= 0.95,
    found: `Jain's index ${index.toFixed(4)}, the least served customer had ${(least * 100).toFixed(1)} % of its calls answered in time`,
    bound: '≥ 0.99, and ≥ 95 %',
    value: index,
  };
}

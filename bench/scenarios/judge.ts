/**
 * From what was seen to verdicts, tables and figures. Pure.
 */
import { tableLines } from '../../lib/table.js';
import { type LatencyHistogram, type Quantiles, quantiles, unpackHistograms } from '../../lib/testing/latency.js';
import { type Sample, type Slope, slopeOf } from '../slope.js';
import { type Plan, plannedRate, planSeconds } from './plan.js';
import type { RunFacts, Scenario } from './scenario.js';
import type { Part } from './tally.js';
import { judgeErrors, judgeLatency, judgeMemory, judgeStored, judgeUptime, uptime, type Verdict } from './verdicts.js';

/** What a phase, or a customer over all judged phases, came to. */
export interface Row {
  readonly name: string;
  readonly seconds: number;
  readonly calls: number;
  readonly events: number;
  readonly failed: number;
  /** Share of due calls that were answered in time. */
  readonly onTime: number;
  readonly ack: Quantiles;
}

export interface Summary {
  readonly phases: readonly (Row & { readonly planned: number; readonly lag: { p95: number; most: number } })[];
  readonly customers: readonly Row[];
  readonly ack: Quantiles;
  /** Of all judged calls, for plots. */
  readonly histogram: LatencyHistogram;
  readonly slopes: Readonly<Record<string, Slope>>;
  readonly verdicts: readonly Verdict[];
}

/** Seconds of warm-up at the start: nothing before is judged. */
export function warmUpSeconds(plan: Plan): number {
  let seconds = 0;
  for (const phase of plan.phases) {
    if (phase.warmUp !== true) break;
    seconds += phase.seconds;
  }
  return seconds;
}

/** Start and end of a phase, seconds. */
export function spanOf(plan: Plan, phase: number): { from: number; to: number } {
  const from = plan.phases.slice(0, phase).reduce((sum, one) => sum + one.seconds, 0);
  return { from, to: from + plan.phases[phase]!.seconds };
}

export const within = (samples: readonly Sample[], from: number, to: number): Sample[] =>
  samples.filter((sample) => sample.at > from && sample.at <= to);

function rowOf(name: string, seconds: number, parts: readonly Part[]): Row {
  const sum = (pick: (part: Part) => number) => parts.reduce((total, part) => total + pick(part), 0);
  return {
    name,
    seconds,
    calls: sum((part) => part.ok),
    events: sum((part) => part.events),
    failed: sum((part) => part.failed),
    onTime: sum((part) => part.onTime) / sum((part) => part.due),
    ack: quantiles(unpackHistograms(parts.map((part) => part.ack))),
  };
}

/** @param maxGrowth MiB per minute that a process may grow in the second half */
export function judge(scenario: Scenario, facts: RunFacts, maxGrowth: number): Summary {
  const { plan, tally } = facts;
  const end = planSeconds(plan);
  const start = warmUpSeconds(plan);
  const judged = plan.phases.flatMap((phase, i) => (phase.warmUp === true ? [] : [i]));
  const phases = judged.map((i) => {
    const { from, to } = spanOf(plan, i);
    const lags = within(facts.lag, from, to)
      .map((sample) => sample.value)
      .sort((a, b) => a - b);
    const lag = {
      p95: lags[Math.floor(lags.length * 0.95)] ?? Number.NaN,
      most: lags.at(-1) ?? Number.NaN,
    };
    const { name, seconds } = plan.phases[i]!;
    return { ...rowOf(name, seconds, tally.parts[i]!), planned: plannedRate(plan, i), lag };
  });
  const customers = plan.customers.map((name, c) =>
    rowOf(
      name,
      end - start,
      judged.map((i) => tally.parts[i]![c]!),
    ),
  );
  const histogram = unpackHistograms(judged.flatMap((i) => tally.parts[i]!.map((part) => part.ack)));
  const ack = quantiles(histogram);
  const failed = customers.reduce((sum, row) => sum + row.failed, 0);
  const calls = customers.reduce((sum, row) => sum + row.calls, 0);
  const slots = facts.slots.filter((slot) => slot.at / 1000 > start && slot.at / 1000 <= end);
  const slopes = Object.fromEntries(
    Object.entries(facts.rss).map(([role, samples]) => [role, slopeOf(within(samples, end / 2, end))]),
  );
  const verdicts = [
    judgeUptime(uptime(slots)),
    ...judgeLatency(ack),
    judgeErrors(failed, calls + failed),
    judgeStored(plan.customers, tally.acked, facts.stored, tally.unresolved),
    ...Object.entries(slopes)
      .filter(([role]) => role !== 'load')
      .map(([role, slope]) => judgeMemory(role, slope, maxGrowth)),
    ...(scenario.judge?.(facts) ?? []),
  ];
  return { phases, customers, ack, histogram, slopes, verdicts };
}

const whole = (value: number) => (Number.isFinite(value) ? Math.round(value).toLocaleString('en-US') : '-');
const ms = (value: number) => (Number.isFinite(value) ? value.toFixed(1) : '-');

const table = (head: readonly string[], rows: readonly (readonly string[])[]): string[] =>
  tableLines([head, ...rows]).map((line) => `  ${line}`);

/** More customers than this are summed up by the least, the middle and the best served. */
const maxCustomers = 12;

/** Lines for a terminal. */
export function linesOf(scenario: Scenario, facts: RunFacts, summary: Summary): string[] {
  const lines = [`${scenario.name}: ${scenario.intent.join('; ')}`, ''];
  lines.push(
    ...table(
      ['phase', 'planned ev/s', 'acked ev/s', 'calls/s', 'P50 ms', 'P95', 'P99', 'failed', 'lag P95 s', 'most'],
      summary.phases.map((row) => [
        row.name,
        whole(row.planned),
        whole(row.events / row.seconds),
        whole(row.calls / row.seconds),
        ...[row.ack.p50, row.ack.p95, row.ack.p99].map(ms),
        whole(row.failed),
        row.lag.p95.toFixed(2),
        row.lag.most.toFixed(2),
      ]),
    ),
    '',
  );
  const cells = (row: Row) => [
    row.name,
    whole(row.events / row.seconds),
    `${(row.onTime * 100).toFixed(2)} %`,
    ...[row.ack.p50, row.ack.p95, row.ack.p99].map(ms),
  ];
  const bySlowest = [...summary.customers].sort((a, b) => b.ack.p95 - a.ack.p95);
  const shown =
    bySlowest.length <= maxCustomers
      ? summary.customers
      : [...bySlowest.slice(0, 3), bySlowest[bySlowest.length >> 1]!, ...bySlowest.slice(-3)];
  const title =
    shown.length < bySlowest.length ? `customer (of ${bySlowest.length}: slowest, middle, fastest)` : 'customer';
  lines.push(...table([title, 'acked ev/s', 'in time', 'P50 ms', 'P95', 'P99'], shown.map(cells)), '');
  const events = facts.tally.acked.reduce((sum, one) => sum + one.events, 0);
  lines.push(
    ...table(
      ['process', 'CPU-s/million', 'CPUs', 'RSS peak MiB', 'MiB/min in the second half (95 %)'],
      Object.entries(facts.cpu).map(([role, seconds]) => {
        const slope = summary.slopes[role];
        return [
          role,
          ((seconds / events) * 1e6).toFixed(2),
          (seconds / planSeconds(facts.plan)).toFixed(2),
          whole(Math.max(...(facts.rss[role] ?? []).map((sample) => sample.value))),
          slope === undefined || !Number.isFinite(slope.perMinute)
            ? '-'
            : `${slope.perMinute.toFixed(1)} (${slope.low.toFixed(1)} to ${slope.high.toFixed(1)})`,
        ];
      }),
    ),
    '',
  );
  if (facts.tally.lastReason !== undefined) lines.push(`  last failure: ${facts.tally.lastReason}`);
  lines.push(`  all stored ${facts.drain.toFixed(1)} s after the last call`, '');
  const passed = (verdict: Verdict) => (verdict.passed ? 'passed' : 'FAILED');
  const width = Math.max(...summary.verdicts.map((verdict) => verdict.name.length));
  for (const verdict of summary.verdicts) {
    lines.push(`  ${passed(verdict)}  ${verdict.name.padEnd(width)}  ${verdict.found}  [${verdict.bound}]`);
  }
  return lines;
}

/** One object for machines. */
export function figuresOf(
  scenario: Scenario,
  facts: RunFacts,
  summary: Summary,
): { case: string } & Record<string, unknown> {
  const events = facts.tally.acked.reduce((sum, one) => sum + one.events, 0);
  const seconds = planSeconds(facts.plan) - warmUpSeconds(facts.plan);
  const flat = (row: Row) => ({
    name: row.name,
    acked_events_per_s: row.events / row.seconds,
    calls_per_s: row.calls / row.seconds,
    failed: row.failed,
    in_time: row.onTime,
    ack_ms: row.ack,
  });
  return {
    case: scenario.name,
    passed: summary.verdicts.every((verdict) => verdict.passed),
    acked_events_per_s: summary.customers.reduce((sum, row) => sum + row.events, 0) / seconds,
    ack_ms: summary.ack,
    events,
    seconds,
    verdicts: summary.verdicts,
    phases: summary.phases.map((row) => ({ ...flat(row), planned_events_per_s: row.planned, lag_s: row.lag })),
    customers: summary.customers.map(flat),
    cpu_s_per_million: Object.fromEntries(
      Object.entries(facts.cpu).map(([role, used]) => [role, (used / events) * 1e6]),
    ),
    rss_mib: Object.fromEntries(
      Object.entries(facts.rss).map(([role, samples]) => [role, Math.max(...samples.map((sample) => sample.value))]),
    ),
    rss_slope_mib_per_min: Object.fromEntries(
      Object.entries(summary.slopes).map(([role, { perMinute, low, high }]) => [role, { value: perMinute, low, high }]),
    ),
    drain_s: facts.drain,
    ...scenario.figures?.(facts),
  };
}

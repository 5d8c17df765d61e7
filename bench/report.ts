/**
 * What a command ends with, for people (lines, and plots in report-page.ts) and for machines (one JSON object a case).
 */
import { cpus } from 'node:os';
import { tableLines } from '../lib/table.js';
import type { Phase } from './measure.js';
import { median, medianOf } from './medians.js';
import type { Chart } from './report-page.js';

/** A result of any command. */
export interface Result {
  /** Becomes the last lines of `--json`; `case` names it. */
  readonly json: { readonly case: string } & Readonly<Record<string, unknown>>;
  /** Lines for a terminal. */
  readonly lines: readonly string[];
  readonly charts: readonly Chart[];
}

export const machine = { cpus: cpus().length, model: cpus()[0]?.model ?? 'unknown', node: process.version };

/** The figures that every case of sending events has. */
export interface IngestReport {
  readonly case: string;
  readonly acked_events_per_s: number;
  readonly stored_events_per_s: number | null;
  /** Events/s and CPU against the raw publisher of the same run; null where it did not run. */
  readonly ratio_to_ceiling: number | null;
  readonly cpu_ratio_to_ceiling: number | null;
  readonly cpu_s_per_million: Readonly<Record<string, number>>;
  readonly ack_ms: Phase['ack_ms'];
  /** Peaks over all phases. */
  readonly rss_mib: Readonly<Record<string, number>>;
  /** Acknowledged in the run, warm-ups included. */
  readonly events: number;
  /** Events of a batch. */
  readonly batch: number;
  readonly bytes_per_event: number;
  /** Length of each phase's window, and how many rounds the throughput is the median of. */
  readonly seconds: number;
  readonly runs: number;
  /** Events per second at which ack_ms was measured. */
  readonly rate: number | 'max';
  readonly ceiling: {
    readonly acked_events_per_s: number;
    readonly cpu_s_per_million: Readonly<Record<string, number>>;
  } | null;
}

export interface IngestInput {
  readonly case: string;
  /** Phases that tell throughput and CPU, one a round. */
  readonly throughput: readonly Phase[];
  /** The phase that tells latency. */
  readonly latency: Phase;
  readonly batch: number;
  readonly bytesPerEvent: number;
  readonly seconds: number;
  readonly ceiling?: {
    readonly phases: readonly Phase[];
    readonly ratio: number;
    readonly cpuRatio: number;
  };
}

export function ingestReport(input: IngestInput): IngestReport {
  const { throughput, latency, ceiling } = input;
  const rss: Record<string, number> = {};
  for (const phase of [...throughput, latency]) {
    for (const [role, mib] of Object.entries(phase.rss_mib)) rss[role] = Math.max(rss[role] ?? 0, mib);
  }
  const rateOf = (phases: readonly Phase[]) => median(phases.map((phase) => phase.acked_events_per_s));
  const cpuOf = (phases: readonly Phase[]) => medianOf(phases.map((phase) => phase.cpu_s_per_million));
  const stored = throughput.map((phase) => phase.stored_events_per_s);
  return {
    case: input.case,
    acked_events_per_s: rateOf(throughput),
    stored_events_per_s: stored.includes(null) ? null : median(stored as number[]),
    ratio_to_ceiling: ceiling?.ratio ?? null,
    cpu_ratio_to_ceiling: ceiling?.cpuRatio ?? null,
    cpu_s_per_million: cpuOf(throughput),
    ack_ms: latency.ack_ms,
    rss_mib: rss,
    events: Math.max(latency.total_events, ...throughput.map((phase) => phase.total_events)),
    batch: input.batch,
    bytes_per_event: input.bytesPerEvent,
    seconds: input.seconds,
    runs: throughput.length,
    rate: latency.rate,
    ceiling:
      ceiling === undefined
        ? null
        : { acked_events_per_s: rateOf(ceiling.phases), cpu_s_per_million: cpuOf(ceiling.phases) },
  };
}

/** One line; numbers with at most four significant digits below 1000, whole above. */
export function toJsonLine(json: Result['json']): string {
  return JSON.stringify(json, (_, value: unknown) => (typeof value === 'number' ? rounded(value) : value));
}

function rounded(value: number): number | null {
  if (!Number.isFinite(value)) return null;
  return Math.abs(value) >= 1000 ? Math.round(value) : Number(value.toPrecision(4));
}

export const whole = (value: number): string =>
  Number.isFinite(value) ? Math.round(value).toLocaleString('en-US') : '-';
export const milliseconds = (value: number): string =>
  Number.isFinite(value) ? `${value.toFixed(value < 10 ? 2 : 1)} ms` : '-';
const quantileText = ({ p50, p95, p99 }: Phase['ack_ms']): string => [p50, p95, p99].map(milliseconds).join(', ');

/** A name and its value, in columns. */
export const row = (name: string, value: string): string => `    ${name.padEnd(24)}${value}`;

export const ingestTitle = (report: IngestReport): string =>
  `${report.case}: batches of ${report.batch} events of ${report.bytes_per_event.toFixed(0)} bytes,` +
  ` ${machine.cpus} × ${machine.model}, Node ${machine.node}`;

/** The lines of one phase. */
export function phaseLines(name: string, phase: Phase): string[] {
  const pace = phase.rate === 'max' ? 'as fast as acks allow' : `open loop at ${whole(phase.rate)} events/s`;
  const lines = [
    '',
    `  ${name}: ${pace}, ${phase.seconds.toFixed(1)} s`,
    row('acked', `${whole(phase.acked_events_per_s)} events/s`),
    row('ack p50, p95, p99', quantileText(phase.ack_ms)),
    row('late sends p50, p99', [phase.send_lag_ms.p50, phase.send_lag_ms.p99].map(milliseconds).join(', ')),
  ];
  if (phase.stored_events_per_s !== null) {
    const drained = phase.drain_s === null ? '' : `, the rest ${phase.drain_s.toFixed(1)} s after the end`;
    lines.push(row('stored', `${whole(phase.stored_events_per_s)} events/s${drained}`));
  }
  if (phase.resends > 0) lines.push(row('batches sent again', whole(phase.resends)));
  lines.push(...processLines(phase.cpu_s_per_million, phase.cpu_share, phase.rss_mib));
  return lines;
}

/** CPU and memory, a line for each process. */
export function processLines(
  cpu: Readonly<Record<string, number>>,
  share: Readonly<Record<string, number>>,
  rss: Readonly<Record<string, number>>,
): string[] {
  const rows = Object.entries(cpu).map(([role, perMillion]) => [
    role,
    perMillion.toFixed(3),
    (share[role] ?? Number.NaN).toFixed(2),
    `${whole(rss[role] ?? Number.NaN)} MiB`,
  ]);
  return tableLines([['process', 'CPU-s/million', 'CPUs', 'RSS peak'], ...rows]).map((line) => `    ${line}`);
}

/** Rounds of one side on a few lines: what each showed, and the median. */
export function roundLines(name: string, phases: readonly Phase[]): string[] {
  const cpu = medianOf(phases.map((phase) => phase.cpu_s_per_million));
  const rates = phases.map((phase) => phase.acked_events_per_s);
  return [
    '',
    `  ${name}: as fast as acks allow, median of ${phases.length} rounds`,
    row('acked', `${whole(median(rates))} events/s (${rates.map(whole).join('; ')})`),
    row('ack p50, p95, p99', quantileText(medianOf(phases.map((phase) => ({ ...phase.ack_ms }))) as never)),
    ...processLines(
      cpu,
      medianOf(phases.map((phase) => phase.cpu_share)),
      medianOf(phases.map((phase) => phase.rss_mib)),
    ),
  ];
}

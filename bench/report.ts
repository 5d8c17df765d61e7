/**
 * Results: one JSON object for machines, one table for people.
 */
import { cpus } from 'node:os';
import type { Phase } from './measure.js';

/** What a case ends with. The first phase with the highest rate tells throughput, the last one tells latency. */
export interface Report {
  readonly case: string;
  readonly acked_events_per_s: number;
  readonly stored_events_per_s: number | null;
  readonly cpu_s_per_million: Readonly<Record<string, number>>;
  readonly ack_ms: Phase['ack_ms'];
  /** Peaks over all phases. */
  readonly rss_mib: Readonly<Record<string, number>>;
  /** Acknowledged in the run, warm-ups included; with a worker also counted in ClickHouse. */
  readonly events: number;
  /** Events of a batch. */
  readonly batch: number;
  readonly bytes_per_event: number;
  /** Length of each phase's window. */
  readonly seconds: number;
  /** Events per second at which ack_ms was measured. */
  readonly rate: number | 'max';
  readonly phases: readonly Phase[];
  readonly machine: { readonly cpus: number; readonly model: string; readonly node: string };
}

export interface ReportInput {
  readonly case: string;
  readonly phases: readonly Phase[];
  readonly batch: number;
  readonly bytesPerEvent: number;
  readonly seconds: number;
}

export function makeReport(input: ReportInput): Report {
  const throughput = input.phases[0];
  const latency = input.phases.at(-1);
  if (throughput === undefined || latency === undefined) throw new Error('a report needs a phase');
  const rss: Record<string, number> = {};
  for (const phase of input.phases) {
    for (const [role, mib] of Object.entries(phase.rss_mib)) rss[role] = Math.max(rss[role] ?? 0, mib);
  }
  const machine = { cpus: cpus().length, model: cpus()[0]?.model ?? 'unknown', node: process.version };
  return {
    case: input.case,
    acked_events_per_s: throughput.acked_events_per_s,
    stored_events_per_s: throughput.stored_events_per_s,
    cpu_s_per_million: throughput.cpu_s_per_million,
    ack_ms: latency.ack_ms,
    rss_mib: rss,
    events: latency.total_events,
    batch: input.batch,
    bytes_per_event: input.bytesPerEvent,
    seconds: input.seconds,
    rate: latency.rate,
    phases: input.phases,
    machine,
  };
}

/** One line; numbers with at most four significant digits below 1000, whole above. */
export function toJsonLine(report: Report): string {
  return JSON.stringify(report, (_, value: unknown) => (typeof value === 'number' ? rounded(value) : value));
}

function rounded(value: number): number | null {
  if (!Number.isFinite(value)) return null;
  return Math.abs(value) >= 1000 ? Math.round(value) : Number(value.toPrecision(4));
}

const whole = (value: number) => Math.round(value).toLocaleString('en-US');
const milliseconds = (value: number) => (Number.isFinite(value) ? `${value.toFixed(value < 10 ? 2 : 1)} ms` : '-');

/** Lines for a terminal. */
export function toTable(report: Report): string {
  const lines: string[] = [];
  const { machine } = report;
  lines.push(
    `${report.case}: batches of ${report.batch} events of ${report.bytes_per_event.toFixed(0)} bytes,` +
      ` ${machine.cpus} × ${machine.model}, Node ${machine.node}`,
  );
  for (const phase of report.phases) {
    const title = phase.rate === 'max' ? 'as fast as acks allow' : `open loop at ${whole(phase.rate)} events/s`;
    const rows: [string, string][] = [
      ['acked', `${whole(phase.acked_events_per_s)} events/s`],
      ['ack p50, p95, p99', [phase.ack_ms.p50, phase.ack_ms.p95, phase.ack_ms.p99].map(milliseconds).join(', ')],
      ['late sends p50, p99', [phase.send_lag_ms.p50, phase.send_lag_ms.p99].map(milliseconds).join(', ')],
    ];
    if (phase.stored_events_per_s !== null) {
      rows.push(['stored', `${whole(phase.stored_events_per_s)} events/s, drained in ${phase.drain_s?.toFixed(1)} s`]);
    }
    if (phase.resends > 0) rows.push(['batches sent again', whole(phase.resends)]);
    lines.push('', `  ${title}, ${phase.seconds.toFixed(1)} s`);
    for (const [name, value] of rows) lines.push(`    ${name.padEnd(22)}${value}`);
    lines.push(
      `    ${'process'.padEnd(22)}${'CPU-s/million'.padStart(14)}${'CPUs'.padStart(8)}${'RSS peak'.padStart(12)}`,
    );
    for (const [role, perMillion] of Object.entries(phase.cpu_s_per_million)) {
      const figures = [
        perMillion.toFixed(3).padStart(14),
        (phase.cpu_share[role] ?? Number.NaN).toFixed(2).padStart(8),
        `${whole(phase.rss_mib[role] ?? Number.NaN)} MiB`.padStart(12),
      ];
      lines.push(`    ${role.padEnd(22)}${figures.join('')}`);
    }
  }
  return lines.join('\n');
}

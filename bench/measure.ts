/**
 * One measured phase: load by a rate, a warm-up that does not count, a window that does.
 */

import { distribution, type Quantiles, quantiles } from '../lib/testing/latency.js';
import { cpuByRole, diskUse, type Pids } from '../lib/testing/process-use.js';
import type { Fleet } from './fleet.js';
import { type Sample, type Sampling, startSampling } from './samples.js';
import { type Slope, slopeOf } from './slope.js';
import type { Stack } from './stack.js';

export interface PhaseOptions {
  /** Events per second (open loop), or as many as acks allow (closed loop). */
  readonly rate: number | 'max';
  readonly warmUpSeconds: number;
  readonly seconds: number;
  /** Who takes part; others run, idle, and are not counted. @default all processes of the stack */
  readonly roles?: readonly string[];
  /** What the progress lines call it. */
  readonly name?: string;
  /** Called about once a second. */
  readonly progress: (line: string) => void;
}

/** What a phase showed; the names are those of the JSON. */
export interface Phase {
  readonly rate: number | 'max';
  readonly seconds: number;
  readonly acked_events_per_s: number;
  /** Rows that reached ClickHouse in the window, per second; null without a worker. */
  readonly stored_events_per_s: number | null;
  /** From the end of the load until ClickHouse had everything, seconds; null without a worker. */
  readonly drain_s: number | null;
  /** gateway, nats and load per million acked; worker and clickhouse per million stored in the window. */
  readonly cpu_s_per_million: Readonly<Record<string, number>>;
  /** Processors kept busy in the window, by process name. */
  readonly cpu_share: Readonly<Record<string, number>>;
  readonly ack_ms: Quantiles;
  /** Points of the distribution: [percentile, ms]. */
  readonly ack_distribution: readonly (readonly [number, number])[];
  /** How late batches left; part of ack_ms. Without back-pressure it is the generator's timer: up to about 1 ms. */
  readonly send_lag_ms: Quantiles;
  readonly rss_mib: Readonly<Record<string, number>>;
  readonly rss_end_mib: Readonly<Record<string, number>>;
  /** Acknowledged in the window. */
  readonly events: number;
  /** Acknowledged since the start of the run. */
  readonly total_events: number;
  readonly resends: number;
  /** Batches acknowledged since the start of the run, and sends beyond the first of a batch. */
  readonly total_batches: number;
  readonly total_resends: number;
  /** How memory went over the last two thirds, MiB/min; empty for windows too short to tell. */
  readonly rss_slope: Readonly<Record<string, Slope>>;
  /** Written to disk in the window, MB/s, and the share of it in which the disk was busy. */
  readonly disk_write_mb_per_s: number;
  readonly disk_busy: number;
  readonly samples: readonly Sample[];
}

const ackPatienceMs = 60_000;
/** ClickHouse may be behind by a whole run. */
const drainPatienceMs = 180_000;

/** @throws Error when a process ends, an ack never comes, or ClickHouse does not have everything in time */
export async function measurePhase(stack: Stack, fleet: Fleet, options: PhaseOptions): Promise<Phase> {
  const { roles = Object.keys(stack.pids) } = options;
  const guarded = <T>(work: Promise<T>): Promise<T> => Promise.race([work, fleet.failure, stack.failure]);
  const pace = options.rate === 'max' ? 'as fast as acks allow' : `${Math.round(options.rate)} events/s`;
  const rate = options.name === undefined ? pace : `${options.name}, ${pace}`;
  const wait = async (seconds: number, what: string, sampling?: Sampling): Promise<void> => {
    const every = Math.min(10_000, Math.max(1_000, seconds * 10));
    const until = performance.now() + seconds * 1000;
    let before = { at: performance.now(), acked: fleet.progress.acked };
    for (;;) {
      const left = until - performance.now();
      if (left <= 0) return;
      await guarded(new Promise((resolve) => setTimeout(resolve, Math.min(left, every))));
      if (left < 500) continue; // too short for a rate
      const now = { at: performance.now(), acked: fleet.progress.acked };
      const perSecond = ((now.acked - before.acked) / (now.at - before.at)) * 1000;
      options.progress(`${rate}: ${what}, ${Math.round(perSecond)} acked/s${describe(sampling?.samples.at(-1))}`);
      before = now;
    }
  };
  const stored = () => (stack.clickhouse === undefined ? Promise.resolve(0) : guarded(stack.clickhouse.count()));

  const resendsBefore = fleet.progress.resends;
  fleet.begin(options.rate);
  const pids: Pids = {
    ...Object.fromEntries(Object.entries(stack.pids).filter(([role]) => roles.includes(role))),
    load: fleet.pids,
  };
  await wait(options.warmUpSeconds, 'warm-up');
  const sampling = startSampling(stack, pids, () => fleet.progress.acked);
  try {
    const diskStart = diskUse();
    const storedStart = await stored();
    const cpuStart = cpuByRole(pids);
    const started = performance.now();
    fleet.mark();
    await wait(options.seconds, 'measured', sampling);
    const cpuEnd = cpuByRole(pids);
    const diskEnd = diskUse();
    const windowSeconds = (performance.now() - started) / 1000;
    const finished = fleet.stop(ackPatienceMs);
    const storedEnd = await stored();
    const inWindow = sampling.samples.length;
    const result = await guarded(finished);

    let drain: number | null = null;
    if (stack.clickhouse !== undefined) {
      const from = performance.now();
      for (;;) {
        const count = await stored();
        drain = (performance.now() - from) / 1000;
        if (count >= result.total.acked) break;
        if (drain * 1000 > drainPatienceMs) {
          throw new Error(`ClickHouse has ${count} of ${result.total.acked} acknowledged events after ${drain} s`);
        }
        options.progress(`waiting for ClickHouse: ${result.total.acked - count} events to go`);
        await guarded(new Promise((resolve) => setTimeout(resolve, 200)));
      }
    }
    const memory = sampling.stop();
    const samples = memory.samples.slice(0, inWindow);
    const storedInWindow = storedEnd - storedStart;
    const cpu = Object.fromEntries(
      Object.keys(pids).map((role) => [role, (cpuEnd[role] ?? 0) - (cpuStart[role] ?? 0)]),
    );
    const basis = (role: string) => (role === 'worker' || role === 'clickhouse' ? storedInWindow : result.counts.acked);
    return {
      rate: options.rate,
      seconds: result.seconds,
      acked_events_per_s: result.counts.acked / result.seconds,
      stored_events_per_s: stack.clickhouse === undefined ? null : storedInWindow / windowSeconds,
      drain_s: drain,
      cpu_s_per_million: mapValues(cpu, (seconds, role) => (seconds / basis(role)) * 1e6),
      cpu_share: mapValues(cpu, (seconds) => seconds / windowSeconds),
      ack_ms: quantiles(result.ack),
      ack_distribution: distribution(result.ack),
      send_lag_ms: quantiles(result.lag),
      rss_mib: memory.peak,
      rss_end_mib: memory.end,
      events: result.counts.acked,
      total_events: result.total.acked,
      resends: result.total.resends - resendsBefore,
      total_batches: result.total.batches,
      total_resends: result.total.resends,
      rss_slope: slopes(samples.slice(Math.floor(samples.length / 3))),
      disk_write_mb_per_s: (diskEnd.writtenBytes - diskStart.writtenBytes) / 1e6 / windowSeconds,
      disk_busy: (diskEnd.busyMs - diskStart.busyMs) / 1000 / windowSeconds,
      samples: memory.samples,
    };
  } finally {
    sampling.stop();
  }
}

/** For progress: how far ClickHouse is behind. */
const describe = (sample: Sample | undefined): string => {
  if (sample?.lag === undefined) return '';
  const memory = Object.values(sample.rss).reduce((a, b) => a + b, 0);
  const log = sample.logMib === undefined ? '' : `, log ${Math.round(sample.logMib)} MiB`;
  return `, ${sample.lag} behind, ${sample.parts} parts${log}, all processes ${Math.round(memory)} MiB`;
};

/** Below this the saw of the garbage collectors is all that there is. */
const shortestTrendSeconds = 60;

function slopes(samples: readonly Sample[]): Record<string, Slope> {
  const [first, last] = [samples[0], samples.at(-1)];
  if (first === undefined || last === undefined || last.at - first.at < shortestTrendSeconds) return {};
  const found = Object.keys(first.rss).map((role) => {
    return [role, slopeOf(samples.map(({ at, rss }) => ({ at, value: rss[role] ?? Number.NaN })))] as const;
  });
  return Object.fromEntries(found);
}

const mapValues = (of: Readonly<Record<string, number>>, change: (value: number, key: string) => number) =>
  Object.fromEntries(Object.entries(of).map(([key, value]) => [key, change(value, key)]));

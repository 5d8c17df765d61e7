/**
 * One measured phase: load by a rate, a warm-up that does not count, a window that does.
 */
import { cpuByRole, type Pids, watchRss } from './cpu.js';
import type { Fleet } from './fleet.js';
import { type Quantiles, quantiles } from './latency.js';
import type { Stack } from './stack.js';

export interface PhaseOptions {
  /** Events per second (open loop), or as many as acks allow (closed loop). */
  readonly rate: number | 'max';
  readonly warmUpSeconds: number;
  readonly seconds: number;
  /** Called about twice a second. */
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
  /** How late batches left; part of ack_ms. Without back-pressure it is the generator's timer: up to about 1 ms. */
  readonly send_lag_ms: Quantiles;
  readonly rss_mib: Readonly<Record<string, number>>;
  readonly rss_end_mib: Readonly<Record<string, number>>;
  /** Acknowledged in the window. */
  readonly events: number;
  /** Acknowledged since the start of the run. */
  readonly total_events: number;
  readonly resends: number;
}

const ackPatienceMs = 60_000;
/** ClickHouse may be behind by a whole run. */
const drainPatienceMs = 180_000;

/** @throws Error when a process ends, an ack never comes, or ClickHouse does not have everything in time */
export async function measurePhase(stack: Stack, fleet: Fleet, options: PhaseOptions): Promise<Phase> {
  const pids: Pids = { ...stack.pids, load: fleet.pids };
  const guarded = <T>(work: Promise<T>): Promise<T> => Promise.race([work, fleet.failure, stack.failure]);
  const rate = options.rate === 'max' ? 'as fast as acks allow' : `${Math.round(options.rate)} events/s`;
  const wait = async (seconds: number, what: string): Promise<void> => {
    const until = performance.now() + seconds * 1000;
    let before = { at: performance.now(), acked: fleet.progress.acked };
    for (;;) {
      const left = until - performance.now();
      if (left <= 0) return;
      await guarded(new Promise((resolve) => setTimeout(resolve, Math.min(left, 1_000))));
      if (left < 500) continue; // too short for a rate
      const now = { at: performance.now(), acked: fleet.progress.acked };
      const perSecond = ((now.acked - before.acked) / (now.at - before.at)) * 1000;
      options.progress(`${rate}: ${what}, ${Math.round(perSecond)} acked/s`);
      before = now;
    }
  };
  const stored = () => (stack.warehouse === undefined ? Promise.resolve(0) : guarded(stack.warehouse.count()));

  const resendsBefore = fleet.progress.resends;
  fleet.begin(options.rate);
  await wait(options.warmUpSeconds, 'warm-up');
  const rss = watchRss(pids);
  const storedStart = await stored();
  const cpuStart = cpuByRole(pids);
  const started = performance.now();
  fleet.mark();
  await wait(options.seconds, 'measured');
  const cpuEnd = cpuByRole(pids);
  const windowSeconds = (performance.now() - started) / 1000;
  const finished = fleet.stop(ackPatienceMs);
  const storedEnd = await stored();
  const result = await guarded(finished);

  let drain: number | null = null;
  if (stack.warehouse !== undefined) {
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
  const memory = rss.stop();
  const storedInWindow = storedEnd - storedStart;
  const cpu = Object.fromEntries(Object.keys(pids).map((role) => [role, (cpuEnd[role] ?? 0) - (cpuStart[role] ?? 0)]));
  const basis = (role: string) => (role === 'worker' || role === 'clickhouse' ? storedInWindow : result.counts.acked);
  return {
    rate: options.rate,
    seconds: result.seconds,
    acked_events_per_s: result.counts.acked / result.seconds,
    stored_events_per_s: stack.warehouse === undefined ? null : storedInWindow / windowSeconds,
    drain_s: drain,
    cpu_s_per_million: mapValues(cpu, (seconds, role) => (seconds / basis(role)) * 1e6),
    cpu_share: mapValues(cpu, (seconds) => seconds / windowSeconds),
    ack_ms: quantiles(result.ack),
    send_lag_ms: quantiles(result.lag),
    rss_mib: memory.peak,
    rss_end_mib: memory.end,
    events: result.counts.acked,
    total_events: result.total.acked,
    resends: result.total.resends - resendsBefore,
  };
}

const mapValues = (of: Readonly<Record<string, number>>, change: (value: number, key: string) => number) =>
  Object.fromEntries(Object.entries(of).map(([key, value]) => [key, change(value, key)]));

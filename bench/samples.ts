/**
 * What is looked at again and again while a phase runs: memory and CPU of every process, how far ClickHouse is behind,
 * parts, the log on disk.
 */
import { type Pids, rssByRole } from '../lib/testing/process-use.js';
import type { Stack } from './stack.js';

export interface Sample {
  /** Seconds since sampling began. */
  readonly at: number;
  /** MiB by role. */
  readonly rss: Record<string, number>;
  /** Events/s since the sample before: acked, stored. */
  readonly speed: Record<string, number>;
  /** Acknowledged and not stored yet, events. */
  readonly lag?: number;
  /** Active parts of the events table. */
  readonly parts?: number;
  /** All shards, MiB. */
  readonly logMib?: number;
}

export interface Sampling {
  /** So far. */
  readonly samples: readonly Sample[];
  stop(): { samples: Sample[]; peak: Record<string, number>; end: Record<string, number> };
}

const peakEveryMs = 250;

/**
 * @param acked events acknowledged so far, in all
 * @param everyMs at the least: a look at ClickHouse is awaited before the next one
 */
export function startSampling(stack: Stack, pids: Pids, acked: () => number, everyMs = 1_000): Sampling {
  const began = performance.now();
  const samples: Sample[] = [];
  const peak: Record<string, number> = {};
  let before: { at: number; acked: number; stored: number } | undefined;
  let stopped = false;
  let end: Record<string, number> = {};

  const memory = (): Record<string, number> => {
    const now = rssByRole(pids);
    for (const [role, mib] of Object.entries(now)) {
      // A process that is gone has no memory, and takes nothing from the peak.
      if (mib > (peak[role] ?? 0)) peak[role] = mib;
    }
    return now;
  };

  const look = async (): Promise<void> => {
    const rss = memory();
    const nowAcked = acked();
    const [clickhouse, logMib] = await Promise.all([stack.clickhouse?.look(), stack.logMib()]);
    const at = (performance.now() - began) / 1000;
    const stored = clickhouse?.events ?? 0;
    const speed: Record<string, number> = {};
    if (before !== undefined && at > before.at) {
      speed.acked = (nowAcked - before.acked) / (at - before.at);
      if (clickhouse !== undefined) speed.stored = (stored - before.stored) / (at - before.at);
    }
    before = { at, acked: nowAcked, stored };
    samples.push({
      at,
      rss,
      speed,
      ...(clickhouse === undefined ? {} : { lag: Math.max(0, nowAcked - stored), parts: clickhouse.parts }),
      ...(logMib === undefined ? {} : { logMib }),
    });
  };

  memory();
  const timer = setInterval(memory, peakEveryMs);
  void (async () => {
    while (!stopped) {
      const next = performance.now() + everyMs;
      // A server that is busy or gone is the phase's business; here it only leaves a hole.
      await look().catch(() => undefined);
      await new Promise((resolve) => setTimeout(resolve, Math.max(10, next - performance.now())));
    }
  })();

  return {
    samples,
    stop: () => {
      if (!stopped) end = memory();
      stopped = true;
      clearInterval(timer);
      return { samples, peak, end };
    },
  };
}

/** Active parts of the events table: the most that were seen, and the last. */
export function partsOf(samples: readonly Sample[]): { most: number; end: number } {
  const parts = samples.map((sample) => sample.parts ?? 0);
  return { most: Math.max(0, ...parts), end: parts.at(-1) ?? 0 };
}

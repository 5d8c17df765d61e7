/**
 * What every process reports of itself: garbage collection, event-loop delay, memory, CPU.
 */
import { monitorEventLoopDelay, PerformanceObserver } from 'node:perf_hooks';
import type { Meter } from '@opentelemetry/api';

const nanosPerSecond = 1e9;
/** How often the loop's delay is sampled, ms. */
const resolutionMs = 20;

/** Names of `kind` in a gc entry: node's perf_hooks constants. */
const gcKinds: Readonly<Record<number, string>> = { 1: 'minor', 2: 'minor', 4: 'major', 8: 'incremental', 16: 'weak' };

/** Creates the instruments; call once, after the SDK has started. */
export function observeProcess(meter: Meter): void {
  const gcSeconds = meter.createCounter('sluice_process_gc_seconds', {
    description: 'Time in garbage collection.',
    unit: 's',
  });
  const gcRuns = meter.createCounter('sluice_process_gc_runs', { description: 'Garbage collections.' });
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      const { kind } = (entry as unknown as { detail?: { kind?: number } }).detail ?? {};
      const attributes = { kind: gcKinds[kind ?? 0] ?? 'other' };
      gcSeconds.add(entry.duration / 1000, attributes);
      gcRuns.add(1, attributes);
    }
  }).observe({ entryTypes: ['gc'] });

  const delay = monitorEventLoopDelay({ resolution: resolutionMs });
  delay.enable();
  meter
    .createObservableGauge('sluice_process_event_loop_delay_seconds', {
      description: 'How late the event loop ran since the last look, beyond the sampling interval.',
      unit: 's',
    })
    .addCallback((result) => {
      const late = (nanos: number): number =>
        Number.isFinite(nanos) ? Math.max(0, nanos / nanosPerSecond - resolutionMs / 1000) : 0;
      result.observe(late(delay.percentile(50)), { quantile: '0.5' });
      result.observe(late(delay.percentile(99)), { quantile: '0.99' });
      result.observe(late(delay.max), { quantile: '1' });
      delay.reset();
    });

  meter
    .createObservableGauge('sluice_process_memory_bytes', { description: 'Memory, by kind.', unit: 'By' })
    .addCallback((result) => {
      const { rss, heapUsed, external, arrayBuffers } = process.memoryUsage();
      for (const [kind, bytes] of Object.entries({ rss, heap_used: heapUsed, external, array_buffers: arrayBuffers })) {
        result.observe(bytes, { kind });
      }
    });
  meter
    .createObservableCounter('sluice_process_cpu_seconds', { description: 'CPU time, by mode.', unit: 's' })
    .addCallback((result) => {
      const { user, system } = process.cpuUsage();
      result.observe(user / 1e6, { mode: 'user' });
      result.observe(system / 1e6, { mode: 'system' });
    });
}

/**
 * Plots of what was measured: lines over time, and distributions of latency.
 */
import type { LatencyHistogram } from '../lib/testing/latency.js';
import { distribution } from '../lib/testing/latency.js';
import type { Chart } from './report-page.js';
import type { Sample } from './samples.js';

type Points = readonly (readonly [number, number])[];

/** @param lines by name: [seconds, value] */
export const overTime = (title: string, y: string, lines: Readonly<Record<string, Points>>): Chart => ({
  title,
  x: 'seconds',
  y,
  series: Object.entries(lines).map(([name, points]) => ({ name, points })),
});

export const latencyChart = (name: string, points: Points): Chart => ({
  title: 'Time to acknowledge, from when a batch should have been sent',
  percentiles: true,
  logarithmic: true,
  x: 'percentile',
  y: 'ms',
  series: [{ name, points }],
});

export const histogramChart = (name: string, of: LatencyHistogram): Chart => latencyChart(name, distribution(of));

/** Everything that was sampled while a phase ran; what has no samples has no plot. */
export function sampleCharts(name: string, samples: readonly Sample[]): Chart[] {
  const of = (
    title: string,
    y: string,
    pick: (sample: Sample) => Readonly<Record<string, number | undefined>>,
  ): Chart => {
    const lines: Record<string, [number, number][]> = {};
    for (const sample of samples) {
      for (const [key, value] of Object.entries(pick(sample))) {
        if (value === undefined) continue;
        lines[key] ??= [];
        lines[key].push([sample.at, value]);
      }
    }
    return overTime(`${title}: ${name}`, y, lines);
  };
  return [
    of('Memory', 'MiB', ({ rss }) => rss),
    of('Events per second over time', 'events/s', ({ speed }) => speed),
    of('Acknowledged, not yet stored', 'events', ({ lag }) => ({ lag })),
    of('Active parts', 'parts', ({ parts }) => ({ parts })),
    of('The log on disk', 'MiB', ({ logMib }) => ({ log: logMib })),
  ].filter(({ series }) => series.length > 0);
}

/**
 * Plots of what the cases of sending events show.
 */
import type { Phase } from './measure.js';
import { median, medianOf } from './medians.js';
import type { Chart } from './report-page.js';
import type { Sample } from './samples.js';

/** @param x the bars' name, e.g. `gateway, 500` */
export function throughputCharts(
  x: string,
  sides: readonly { name: string; x?: string; phases: readonly Phase[] }[],
): Chart[] {
  const rates = sides.map(({ name, phases }) => ({
    name,
    points: [[x, median(phases.map((phase) => phase.acked_events_per_s))] as const],
  }));
  const stored = sides
    .flatMap(({ phases }) => phases.map((phase) => phase.stored_events_per_s))
    .filter((rate) => rate !== null);
  if (stored.length > 0) rates.push({ name: 'stored', points: [[x, median(stored)] as const] });
  const cpu: Chart['series'] = sides.flatMap(({ x: label = x, phases }) =>
    Object.entries(medianOf(phases.map((phase) => phase.cpu_s_per_million))).map(([role, value]) => ({
      name: role,
      points: [[label, value] as const],
    })),
  );
  return [
    { title: 'Events per second', kind: 'bar', x: 'case, events of a batch', y: 'events/s', series: rates },
    {
      title: 'CPU-seconds per million events, by process',
      kind: 'bar',
      stacked: true,
      x: 'case, events of a batch',
      y: 'CPU-s per million',
      series: joined(cpu),
    },
  ];
}

const joined = (series: Chart['series']): Chart['series'] => {
  const byName = new Map<string, (readonly [number | string, number])[]>();
  for (const one of series) byName.set(one.name, [...(byName.get(one.name) ?? []), ...one.points]);
  return [...byName].map(([name, points]) => ({ name, points }));
};

export const latencyChart = (name: string, phase: Phase): Chart => ({
  title: 'Time to acknowledge, from when a batch should have been sent',
  kind: 'line',
  percentiles: true,
  logarithmic: true,
  x: 'percentile',
  y: 'ms',
  series: [{ name, points: phase.ack_distribution }],
});

/** Everything that was sampled while a phase ran. */
export const sampleCharts = (name: string, phase: Phase): Chart[] => samplesCharts(name, phase.samples);

export function samplesCharts(name: string, samples: readonly Sample[]): Chart[] {
  const over = (title: string, y: string, pick: (sample: Sample) => Record<string, number>): Chart => {
    const keys = [...new Set(samples.flatMap((sample) => Object.keys(pick(sample))))];
    return {
      title: `${title}: ${name}`,
      kind: 'line',
      x: 'seconds',
      y,
      series: keys.map((key) => ({
        name: key,
        points: samples.map((sample) => [sample.at, pick(sample)[key] ?? Number.NaN] as const),
      })),
    };
  };
  const charts = [over('Memory', 'MiB', (sample) => sample.rss)];
  const speeds = over('Events per second over time', 'events/s', (sample) => sample.speed);
  if (speeds.series.length > 0) charts.push(speeds);
  if (samples.some((sample) => sample.lag !== undefined)) {
    charts.push(over('Acknowledged, not yet stored', 'events', ({ lag }) => (lag === undefined ? {} : { lag })));
  }
  if (samples.some((sample) => sample.parts !== undefined)) {
    charts.push(over('Active parts', 'parts', ({ parts }) => (parts === undefined ? {} : { parts })));
  }
  if (samples.some((sample) => sample.logMib !== undefined)) {
    charts.push(over('The log on disk', 'MiB', ({ logMib }) => (logMib === undefined ? {} : { log: logMib })));
  }
  return charts;
}

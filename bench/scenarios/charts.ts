/**
 * Plots of a scenario.
 */
import { distribution } from '../latency.js';
import type { Chart, Series } from '../report-page.js';
import type { Summary } from './judge.js';
import type { RunFacts } from './run-facts.js';
import type { Scenario } from './scenario.js';

export function chartsOf(scenario: Scenario, facts: RunFacts, summary: Summary): Chart[] {
  const { slots } = facts;
  const overTime = (title: string, y: string, series: Series[]): Chart => ({
    title,
    kind: 'line',
    x: 'seconds',
    y,
    series,
  });
  const rates = slots.slice(1).map((slot, i) => {
    const before = slots[i]!;
    return [slot.at / 1000, ((slot.acked - before.acked) / (slot.at - before.at)) * 1000] as const;
  });
  const ack = (name: 'p50' | 'p95' | 'p99') => ({
    name: name.toUpperCase(),
    points: slots.filter((slot) => slot.ack[name] > 0).map((slot) => [slot.at / 1000, slot.ack[name]] as const),
  });
  const memory = Object.entries(facts.rss).map(([name, samples]) => ({
    name,
    points: samples.map((sample) => [sample.at, sample.value] as const),
  }));
  const events = facts.tally.acked.reduce((sum, one) => sum + one.events, 0);
  return [
    overTime('Events acknowledged per second', 'events/s', [{ name: scenario.name, points: rates }]),
    { ...overTime('Time to acknowledge, over time', 'ms', [ack('p50'), ack('p95'), ack('p99')]), logarithmic: true },
    {
      title: 'Time to acknowledge, from when a call should have left',
      kind: 'line',
      percentiles: true,
      logarithmic: true,
      x: 'percentile',
      y: 'ms',
      series: [{ name: scenario.name, points: distribution(summary.histogram) }],
    },
    overTime('Age of the oldest event that is not stored', 'seconds', [
      { name: 'lag', points: facts.lag.map((sample) => [sample.at, sample.value] as const) },
    ]),
    overTime('Memory', 'MiB', memory),
    {
      title: 'CPU-seconds per million events, by process',
      kind: 'bar',
      stacked: true,
      x: 'scenario',
      y: 'CPU-s per million',
      series: Object.entries(facts.cpu).map(([name, seconds]) => ({
        name,
        points: [[scenario.name, (seconds / events) * 1e6] as const],
      })),
    },
    ...(summary.customers.length > 1 ? [byCustomer(scenario, summary)] : []),
  ];
}

const byCustomer = (scenario: Scenario, { customers }: Summary): Chart => ({
  title: 'Events acknowledged per second, by customer',
  kind: 'bar',
  x: 'customer',
  y: 'events/s',
  series: [{ name: scenario.name, points: customers.map((row) => [row.name, row.events / row.seconds] as const) }],
});

/**
 * Plots of a scenario.
 */
import { histogramChart, overTime } from '../charts.js';
import type { Chart } from '../report-page.js';
import type { Sample } from '../slope.js';
import type { Summary } from './judge.js';
import type { RunFacts, Scenario } from './scenario.js';

const pointsOf = (samples: readonly Sample[]) => samples.map(({ at, value }) => [at, value] as const);

export function chartsOf(scenario: Scenario, { slots, lag, rss }: RunFacts, { histogram }: Summary): Chart[] {
  const rates = slots.slice(1).map((slot, i) => {
    const before = slots[i]!;
    return [slot.at / 1000, ((slot.acked - before.acked) / (slot.at - before.at)) * 1000] as const;
  });
  const ack = (name: 'p50' | 'p95' | 'p99') =>
    slots.filter((slot) => slot.ack[name] > 0).map((slot) => [slot.at / 1000, slot.ack[name]] as const);
  const memory = Object.fromEntries(Object.entries(rss).map(([role, samples]) => [role, pointsOf(samples)]));
  return [
    overTime('Events acknowledged per second', 'events/s', { [scenario.name]: rates }),
    {
      ...overTime('Time to acknowledge, over time', 'ms', { P50: ack('p50'), P95: ack('p95'), P99: ack('p99') }),
      logarithmic: true,
    },
    histogramChart(scenario.name, histogram),
    overTime('Age of the oldest event that is not stored', 'seconds', { lag: pointsOf(lag) }),
    overTime('Memory', 'MiB', memory),
  ];
}

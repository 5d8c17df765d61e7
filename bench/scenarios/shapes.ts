/**
 * The load shapes, as plans: `ramp`, `spike`, `endurance`, `customers`. Pure.
 */

import type { Sample } from '../slope.js';
import { spanOf, within } from './judge.js';
import { type CallKind, type Group, type Phase, type Plan, plannedRate, planSeconds } from './plan.js';
import { bandOf, recoverySeconds } from './recovery.js';
import type { RunFacts, Scenario } from './scenario.js';
import { judgeFairness, judgeRecovery, type Verdict } from './verdicts.js';

/** How clients call: all alike, or every second one on a stream of its own and the others by unary Connect calls. */
export type Calls = CallKind | 'mixed';

/** Clients that differ only in how they call. */
function groups(calls: Calls, group: Omit<Group, 'calls'>): Group[] {
  if (calls !== 'mixed') return [{ ...group, calls }];
  const half = Math.ceil(group.clients / 2);
  const part = (kind: CallKind, clients: number): Group => ({
    ...group,
    calls: kind,
    clients,
    rates: group.rates.map((rate) => (rate * clients) / group.clients),
  });
  return [part('stream', half), part('connect', group.clients - half)].filter(({ clients }) => clients > 0);
}

const warmUp = (seconds: number): Phase => ({ name: 'warm-up', seconds, warmUp: true });
const whole = (value: number) => Math.round(value).toLocaleString('en-US');
const perSecond = (value: number) => (value < 10 ? value.toFixed(1) : whole(value));

export interface RampOptions {
  readonly calls: Calls;
  readonly clients: number;
  readonly stepSeconds: number;
  readonly batch: number;
  /** Mean seconds between the calls of a client. */
  readonly think: number;
  readonly warmUp: number;
}

/** From ten clients to all of them, each step about twice as many as the one before. */
export function rampSteps(clients: number): number[] {
  const steps = [10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000].filter((n) => n < clients);
  return [...steps, clients];
}

export function ramp(options: RampOptions): Scenario {
  const { calls, clients, stepSeconds, batch, think } = options;
  const steps = rampSteps(clients);
  const phases = [warmUp(options.warmUp), ...steps.map((n) => ({ name: `${n} clients`, seconds: stepSeconds }))];
  const plan: Plan = {
    phases,
    customers: ['ramp'],
    groups: groups(calls, {
      customer: 0,
      clients,
      batch,
      rates: [steps[0]!, ...steps].map((active) => active / think),
    }),
  };
  return {
    name: 'ramp',
    plan,
    intent: [
      `${steps[0]} → ${clients} virtual clients, a batch of ${batch} events of each every ${think} s, ${calls} calls`,
      `up to ${whole(plannedRate(plan, phases.length - 1))} events/s`,
    ],
  };
}

export interface SpikeOptions {
  readonly calls: Calls;
  readonly clients: number;
  /** Events per second at 1×. */
  readonly rate: number;
  readonly batch: number;
  readonly stepSeconds: number;
  readonly baseSeconds: number;
  readonly warmUp: number;
}

/** Recovery of the old platform's campaign. */
const recoveryWithinSeconds = 3.1;
/** Latency and lag below these are as good as the base's. */
const minBand = { p95: 20, lag: 2 };

export function spike(options: SpikeOptions): Scenario {
  const { calls, clients, rate, batch, stepSeconds, baseSeconds } = options;
  const steps: [string, number, number][] = [
    ['1×', baseSeconds, 1],
    ['2×', stepSeconds, 2],
    ['3×', stepSeconds, 3],
    ['1× again', baseSeconds, 1],
  ];
  const phases = [warmUp(options.warmUp), ...steps.map(([name, seconds]) => ({ name, seconds }))];
  const base = rate / batch;
  const plan: Plan = {
    phases,
    customers: ['spike'],
    groups: groups(calls, {
      customer: 0,
      clients,
      batch,
      rates: [base, ...steps.map(([, , times]) => base * times)],
    }),
  };
  /** Recovery of P95 and of lag after the end of the 3× step. */
  const recoveries = (facts: RunFacts) => {
    const first = spanOf(plan, 1);
    const end = spanOf(plan, 3).to;
    const of = (samples: readonly Sample[], least: number) => {
      const band = bandOf(within(samples, first.from, first.to), least);
      return { band, seconds: recoverySeconds(samples, band, end) };
    };
    const p95 = facts.slots.map((slot) => ({ at: slot.at / 1000, value: slot.ack.p95 }));
    return { p95: of(p95, minBand.p95), lag: of(facts.lag, minBand.lag) };
  };
  return {
    name: 'spike',
    plan,
    intent: [
      `${whole(rate)} → ${whole(rate * 2)} → ${whole(rate * 3)} → ${whole(rate)} events/s`,
      `${clients} virtual clients, batches of ${batch} events, ${calls} calls`,
    ],
    judge(facts): Verdict[] {
      const { p95, lag } = recoveries(facts);
      return [
        judgeRecovery('recovery of P95', p95.seconds, recoveryWithinSeconds, `${p95.band.most.toFixed(1)} ms`),
        judgeRecovery('recovery of lag', lag.seconds, recoveryWithinSeconds, `${lag.band.most.toFixed(2)} s`),
      ];
    },
    figures(facts) {
      const { p95, lag } = recoveries(facts);
      return {
        recovery_s: { p95: p95.seconds, lag: lag.seconds },
        recovery_band: { p95_ms: p95.band.most, lag_s: lag.band.most },
      };
    },
  };
}

export interface EnduranceOptions {
  readonly calls: Calls;
  /** Of each customer. */
  readonly clients: number;
  /** Hours of the simulated day: they pass in hours / speed. */
  readonly hours: number;
  readonly speed: number;
  readonly batch: number;
  readonly warmUp: number;
}

const hourly = [0.3, 1.2, 1.0, 1.5, 0.7];
const enduring = [
  { tenant: 'mobile-game', perDay: 50_000 },
  { tenant: 'web-shop', perDay: 100_000 },
  { tenant: 'travel-app', perDay: 75_000 },
];
const daySeconds = 86_400;

/** A day in five parts of 4.8 hours, each with its multiplier; a second day is like the first. */
export function endurance(options: EnduranceOptions): Scenario {
  const { calls, clients, hours, speed, batch } = options;
  const partHours = 24 / hourly.length;
  const parts: { name: string; seconds: number; times: number }[] = [];
  for (let at = 0; at < hours - 1e-9; at += partHours) {
    const length = Math.min(partHours, hours - at);
    const times = hourly[parts.length % hourly.length]!;
    parts.push({
      name: `${at.toFixed(1)}–${(at + length).toFixed(1)} h, × ${times}`,
      seconds: (length * 3600) / speed,
      times,
    });
  }
  const phases = [warmUp(options.warmUp), ...parts.map(({ name, seconds }) => ({ name, seconds }))];
  const times = [parts[0]!.times, ...parts.map((part) => part.times)];
  const plan: Plan = {
    phases,
    customers: enduring.map(({ tenant }) => tenant),
    groups: enduring.flatMap(({ perDay }, customer) => {
      const rate = ((perDay / daySeconds) * speed) / batch;
      return groups(calls, { customer, clients, batch, rates: times.map((factor) => rate * factor) });
    }),
  };
  const seconds = planSeconds(plan) - options.warmUp;
  const events = phases.reduce((sum, phase, i) => sum + (i === 0 ? 0 : phase.seconds * plannedRate(plan, i)), 0);
  const rates = phases.slice(1).map((_, i) => plannedRate(plan, i + 1));
  return {
    name: 'endurance',
    plan,
    intent: [
      `${hours} hours of three customers' days (50k, 100k, 75k events a day) in ${perSecond(seconds)} s`,
      `${whole(events)} events: ${perSecond(events / seconds)}/s on average, ${perSecond(Math.min(...rates))} to ${perSecond(Math.max(...rates))}`,
      `${clients} virtual clients each, batches of ${batch}, ${calls} calls`,
    ],
  };
}

export interface CustomersOptions {
  readonly calls: Calls;
  readonly customers: number;
  /** Of each customer. */
  readonly clients: number;
  /** Events per second of all customers together, while they are equal. */
  readonly rate: number;
  readonly batch: number;
  readonly seconds: number;
  /** How many times as many clients as the others the first customer has in the second half. */
  readonly greedy: number;
  readonly warmUp: number;
}

export function customers(options: CustomersOptions): Scenario {
  const { calls, clients, rate, batch, seconds, greedy } = options;
  const phases = [
    warmUp(options.warmUp),
    { name: 'all alike', seconds },
    { name: `one sends ${greedy} times as much`, seconds },
  ];
  const each = rate / options.customers / batch / clients;
  const names = Array.from({ length: options.customers }, (_, i) => `customer-${String(i + 1).padStart(2, '0')}`);
  const plan: Plan = {
    phases,
    customers: names,
    groups: names.flatMap((_, customer) => {
      // Greed is many more senders, not the same ones in a hurry.
      const most = customer === 0 ? Math.max(clients, Math.round(clients * greedy)) : clients;
      return groups(calls, { customer, clients: most, batch, rates: [clients, clients, most].map((n) => n * each) });
    }),
  };
  /** By customer: calls answered in time, of those that were due. */
  const shares = (facts: RunFacts, phase: number) => facts.tally.parts[phase]!.map((part) => part.onTime / part.due);
  return {
    name: 'customers',
    plan,
    intent: [
      `${options.customers} customers at once, each with its own key and ${clients} virtual clients, batches of ${batch}, ${calls} calls`,
      `${whole(rate)} events/s together, then the first one sends ${greedy} times its part: ${whole(plannedRate(plan, 2))} events/s`,
    ],
    judge: (facts) => [
      judgeFairness('fair shares, all alike', shares(facts, 1)),
      judgeFairness('fair shares of the others beside a greedy one', shares(facts, 2).slice(1)),
    ],
    figures: (facts) => ({
      in_time_share: { alike: shares(facts, 1), beside_greedy: shares(facts, 2) },
    }),
  };
}

/**
 * Turns: short windows in which one contender is loaded while the others are idle, in rounds whose order rotates, so that
 * what changes on the machine meets all alike. Medians over the rounds.
 */

import { type LatencyHistogram, type Quantiles, quantiles } from '../../lib/testing/latency.js';
import { cpuByRole, rssMib } from '../../lib/testing/process-use.js';
import { median, ratioOfRounds, rotated } from '../medians.js';
import { type Contender, type Field, ours } from './contenders.js';

export interface TurnOptions {
  readonly rounds: number;
  readonly seconds: number;
  readonly warmUp: number;
  /** Length of the open loop's window. */
  readonly latencySeconds: number;
  readonly progress: (line: string) => void;
}

/** What one contender showed; names are those of the JSON. */
export interface Standing {
  readonly name: string;
  readonly summary: string;
  readonly acked_events_per_s: number;
  readonly cpu_s_per_million: { readonly server: number; readonly nats: number; readonly load: number };
  readonly rss_mib: number;
  /** In the open loop at `open_rate`. */
  readonly ack_ms: Quantiles;
  /** The common rate; half of its own for one that is too slow for it. */
  readonly open_rate: number;
  readonly wire_bytes_per_event: number;
  readonly log_bytes_per_event: number;
  /** Of each round, in order. */
  readonly rounds: readonly { readonly acked_events_per_s: number; readonly server_cpu_s_per_million: number }[];
}

interface Turn {
  readonly eventsPerSecond: number;
  readonly server: number;
  readonly nats: number;
  readonly load: number;
  readonly rss: number;
  readonly logBytesPerEvent: number;
  readonly ack: LatencyHistogram;
}

const ackPatienceMs = 60_000;
/** Between turns: nats-server deletes the files of what was purged. */
const settleMs = 400;

/** Events that a contender had acknowledged when its last turn ended. */
const ackedBefore = new WeakMap<Contender, number>();

async function takeTurn(
  contender: Contender,
  natsPid: number,
  rate: number | 'max',
  warmUp: number,
  seconds: number,
): Promise<Turn> {
  const { fleet, pid } = contender;
  const guarded = <T>(work: Promise<T>): Promise<T> => Promise.race([work, contender.failure]);
  const wait = (ms: number) => guarded(new Promise((resolve) => setTimeout(resolve, ms)));
  const before = await contender.logBytes();
  fleet.begin(rate);
  await wait(warmUp * 1000);
  const pids = { server: [pid], nats: [natsPid], load: fleet.pids };
  const cpuStart = cpuByRole(pids);
  fleet.mark();
  let rss = 0;
  for (let left = seconds * 1000; left > 0; left -= 500) {
    await wait(Math.min(500, left));
    rss = Math.max(rss, rssMib(pid));
  }
  const cpuEnd = cpuByRole(pids);
  const { counts, total, seconds: length, ack } = await guarded(fleet.stop(ackPatienceMs));
  const logBytes = (await contender.logBytes()) - before;
  const events = total.acked - (ackedBefore.get(contender) ?? 0);
  ackedBefore.set(contender, total.acked);
  await contender.purge();
  await wait(settleMs);
  const perMillion = (role: 'server' | 'nats' | 'load') =>
    (((cpuEnd[role] ?? 0) - (cpuStart[role] ?? 0)) / counts.acked) * 1e6;
  return {
    eventsPerSecond: counts.acked / length,
    server: perMillion('server'),
    nats: perMillion('nats'),
    load: perMillion('load'),
    rss,
    logBytesPerEvent: logBytes / events,
    ack,
  };
}

export interface Comparison {
  readonly standings: readonly Standing[];
  /** Events per second of the open loop. */
  readonly common_rate: number;
}

/** Who reaches less than this share of the fastest is too slow for a rate that says anything about the others. */
const minShare = 1 / 20;

/** Half of what the slowest reached, of those that are not too slow. */
export function commonRateOf(rates: readonly number[]): number {
  const fastest = Math.max(...rates);
  return Math.min(...rates.filter((rate) => rate >= fastest * minShare)) / 2;
}

export async function takeTurns(field: Field, options: TurnOptions): Promise<Comparison> {
  const { rounds, seconds, warmUp, latencySeconds, progress } = options;
  const turns = new Map<Contender, Turn[]>(field.contenders.map((one) => [one, []]));
  // Not counted: compilers and pools warm up, files and connections come into being.
  for (const one of field.contenders) {
    progress(`warming ${one.name}`);
    await takeTurn(one, field.natsPid, 'max', warmUp, Math.min(2, seconds));
  }
  for (let round = 0; round < rounds; round++) {
    for (const one of rotated(field.contenders, round)) {
      const turn = await takeTurn(one, field.natsPid, 'max', warmUp, seconds);
      turns.get(one)?.push(turn);
      const rate = Math.round(turn.eventsPerSecond).toLocaleString('en-US');
      progress(
        `round ${round + 1} of ${rounds}, ${one.name}: ${rate} events/s, ${turn.server.toFixed(2)} CPU-s/million`,
      );
    }
  }
  const rateOf = (one: Contender) => median((turns.get(one) ?? []).map((turn) => turn.eventsPerSecond));
  const commonRate = commonRateOf(field.contenders.map(rateOf));
  const standings: Standing[] = [];
  for (const one of field.contenders) {
    const rate = Math.min(commonRate, rateOf(one) / 2);
    progress(`latency of ${one.name} at ${Math.round(rate).toLocaleString('en-US')} events/s`);
    const open = await takeTurn(one, field.natsPid, rate, warmUp, latencySeconds);
    const closed = turns.get(one) ?? [];
    const of = (pick: (turn: Turn) => number) => median(closed.map(pick));
    standings.push({
      name: one.name,
      summary: one.summary,
      acked_events_per_s: rateOf(one),
      cpu_s_per_million: { server: of((t) => t.server), nats: of((t) => t.nats), load: of((t) => t.load) },
      rss_mib: Math.max(...closed.map((turn) => turn.rss)),
      ack_ms: quantiles(open.ack),
      open_rate: rate,
      wire_bytes_per_event: one.wireBytes,
      log_bytes_per_event: of((turn) => turn.logBytesPerEvent),
      rounds: closed.map((turn) => ({
        acked_events_per_s: turn.eventsPerSecond,
        server_cpu_s_per_million: turn.server,
      })),
    });
  }
  return { standings, common_rate: commonRate };
}

/** How often the CPU of ours fits into another's, round by round: the median of ratios inside a round. */
export function cpuRatio(standings: readonly Standing[], name: string): number {
  const roundsOf = (which: string) =>
    standings.find((one) => one.name === which)?.rounds.map((round) => round.server_cpu_s_per_million) ?? [];
  return ratioOfRounds(roundsOf(name), roundsOf(ours));
}

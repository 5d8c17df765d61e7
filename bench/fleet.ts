/**
 * The load processes, spoken to as one: starts them, gives orders, adds up what they report.
 */

import { type LatencyHistogram, unpackHistograms } from '../lib/testing/latency.js';
import type { Counts } from './generator.js';
import { startLoadChild } from './load-child.js';
import type { FromLoad, LoadResult, LoadSettings, ToLoad } from './protocol.js';

export interface FleetOptions extends Omit<LoadSettings, 'seed' | 'inFlight'> {
  readonly processes: number;
  /** Most batches in flight, all processes together. */
  readonly inFlight: number;
  readonly seed: number;
  /** Extra arguments of Node, e.g. for a CPU profile. */
  readonly nodeArguments?: readonly string[];
}

export interface FleetResult {
  readonly seconds: number;
  readonly counts: Counts;
  readonly total: Counts;
  readonly ack: LatencyHistogram;
  readonly lag: LatencyHistogram;
}

export interface Fleet {
  readonly pids: readonly number[];
  readonly bytesPerEvent: number;
  /** Events acknowledged since the start, as last heard. */
  readonly progress: { readonly acked: number; readonly resends: number };
  begin(rate: number | 'max'): void;
  mark(): void;
  /** @throws Error when batches stay without ack, were refused, or held events that the gateway found invalid */
  stop(patienceMs: number): Promise<FleetResult>;
  /** Rejects as soon as a load process fails; never resolves. */
  readonly failure: Promise<never>;
  close(): Promise<void>;
}

const entry = new URL('./load.ts', import.meta.url);

export async function startFleet(options: FleetOptions): Promise<Fleet> {
  const { processes, inFlight, seed, target, tenant, batch, spreadDays } = options;
  const children = Array.from({ length: processes }, () =>
    startLoadChild<ToLoad, FromLoad>(entry, options.nodeArguments ?? []),
  );
  const progress = children.map(() => ({ acked: 0, resends: 0 }));
  const failure = Promise.race(children.map((child) => child.failure));
  failure.catch(() => undefined);

  /** The next message of a type from each process. */
  const each = <T extends FromLoad['type']>(type: T): Promise<Extract<FromLoad, { type: T }>[]> => {
    const next = (child: (typeof children)[number]) =>
      new Promise<Extract<FromLoad, { type: T }>>((resolve) => {
        child.listen((message) => {
          if (message.type === type) resolve(message as Extract<FromLoad, { type: T }>);
        });
      });
    return Promise.race([failure, Promise.all(children.map(next))]);
  };
  const tell = (message: ToLoad) => {
    for (const child of children) child.tell(message);
  };

  const ready = each('ready');
  for (const [i, child] of children.entries()) {
    child.listen((message) => {
      if (message.type === 'progress') progress[i] = message;
    });
    const shape = { target, tenant, batch, ...(spreadDays === undefined ? {} : { spreadDays }) };
    const share = { inFlight: Math.max(1, Math.round(inFlight / processes)), seed: seed * processes + i };
    child.tell({ type: 'configure', settings: { ...shape, ...share } });
  }
  const [first] = await ready;

  return {
    pids: children.map((child) => child.pid),
    bytesPerEvent: first?.bytesPerEvent ?? 0,
    get progress() {
      const sum = (pick: (one: { acked: number; resends: number }) => number) =>
        progress.reduce((total, one) => total + pick(one), 0);
      return { acked: sum((one) => one.acked), resends: sum((one) => one.resends) };
    },
    begin: (rate) => tell({ type: 'begin', rate: rate === 'max' ? 'max' : rate / processes }),
    mark: () => tell({ type: 'mark' }),
    stop: async (patienceMs) => {
      const results = each('result');
      tell({ type: 'stop', patienceMs });
      return addUp(await results);
    },
    failure,
    close: async () => {
      await Promise.all(children.map((child) => child.close()));
    },
  };
}

function addUp(results: readonly LoadResult[]): FleetResult {
  const sum = (pick: (result: LoadResult) => Counts): Counts =>
    results.map(pick).reduce((a, b) => ({
      acked: a.acked + b.acked,
      batches: a.batches + b.batches,
      rejected: a.rejected + b.rejected,
      resends: a.resends + b.resends,
      refused: a.refused + b.refused,
    }));
  const total = sum((result) => result.total);
  const inFlight = results.reduce((n, result) => n + result.inFlight, 0);
  const reason = results.find((result) => result.lastReason !== undefined)?.lastReason ?? 'none was given';
  if (inFlight > 0) throw new Error(`${inFlight} batches were never acknowledged; last reason: ${reason}`);
  if (total.refused > 0) throw new Error(`${total.refused} batches were refused; last reason: ${reason}`);
  if (total.rejected > 0) throw new Error(`the gateway found ${total.rejected} of the generator's events invalid`);
  return {
    // The processes' windows start and end within the time of an IPC message.
    seconds: results.reduce((ms, result) => ms + result.ms, 0) / results.length / 1000,
    counts: sum((result) => result.counts),
    total,
    ack: unpackHistograms(results.map((result) => result.ack)),
    lag: unpackHistograms(results.map((result) => result.lag)),
  };
}

/**
 * The load processes, spoken to as one: starts them, gives orders, adds up what they report.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Counts } from './generator.js';
import { type LatencyHistogram, unpackHistograms } from './latency.js';
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

const loadEntry = fileURLToPath(new URL('./load.ts', import.meta.url));

export async function startFleet(options: FleetOptions): Promise<Fleet> {
  const children: ChildProcess[] = [];
  const progress = new Map<ChildProcess, { acked: number; resends: number }>();
  let closing = false;
  let fail: (error: Error) => void = () => undefined;
  const failure = new Promise<never>((_, reject) => {
    fail = reject;
  });
  failure.catch(() => undefined); // it may come when no code waits; every wait below races with it

  /** The first message of a type from each process. */
  const each = <T extends FromLoad['type']>(type: T): Promise<Extract<FromLoad, { type: T }>[]> =>
    Promise.race([
      failure,
      Promise.all(
        children.map(
          (child) =>
            new Promise<Extract<FromLoad, { type: T }>>((resolve) => {
              const listen = (message: FromLoad) => {
                if (message.type !== type) return;
                child.off('message', listen);
                resolve(message as Extract<FromLoad, { type: T }>);
              };
              child.on('message', listen);
            }),
        ),
      ),
    ]);
  const tell = (message: ToLoad) => {
    for (const child of children) child.send(message);
  };

  for (let i = 0; i < options.processes; i++) {
    const child = fork(loadEntry, [], {
      execArgv: ['--import', 'tsx', ...(options.nodeArguments ?? [])],
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    children.push(child);
    child.on('message', (message: FromLoad) => {
      if (message.type === 'failed') fail(new Error(`load: ${message.message}`));
      if (message.type === 'progress') progress.set(child, message);
    });
    child.on('exit', (code, signal) => {
      if (!closing) fail(new Error(`a load process ended with ${signal ?? code}`));
    });
  }
  const ready = each('ready');
  const { processes, inFlight, seed, target, tenant, batch, spreadDays } = options;
  children.forEach((child, i) => {
    const message: ToLoad = {
      type: 'configure',
      settings: {
        target,
        tenant,
        batch,
        ...(spreadDays === undefined ? {} : { spreadDays }),
        inFlight: Math.max(1, Math.round(inFlight / processes)),
        seed: seed * processes + i,
      },
    };
    child.send(message);
  });
  const [first] = await ready;

  return {
    pids: children.map((child) => child.pid ?? 0),
    bytesPerEvent: first?.bytesPerEvent ?? 0,
    get progress() {
      let acked = 0;
      let resends = 0;
      for (const one of progress.values()) {
        acked += one.acked;
        resends += one.resends;
      }
      return { acked, resends };
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
      closing = true;
      await Promise.all(
        children.map(
          (child) =>
            new Promise<void>((resolve) => {
              if (child.exitCode !== null || child.signalCode !== null) return resolve();
              child.once('exit', () => resolve());
              if (child.connected) child.send({ type: 'end' } satisfies ToLoad);
              const killer = setTimeout(() => child.kill('SIGKILL'), 3_000);
              killer.unref();
            }),
        ),
      );
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

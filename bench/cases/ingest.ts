/**
 * The cases without a clickhouse: batches through a gateway over streams (`gateway`) or as unary calls (`unary`), and the
 * same payloads straight into JetStream (`ceiling`). Gateway and raw publisher take turns in a run, so that the ratios
 * compare what the machine did at the same time.
 */
import { type Command, Option } from 'commander';
import { profileArguments } from '../../lib/testing/role-process.js';
import { MiB } from '../../lib/units.js';
import { ceilingRoot, emptyStreams, ensureCeilingStreams } from '../ceiling-streams.js';
import { latencyChart, sampleCharts } from '../charts.js';
import { type Fleet, startFleet } from '../fleet.js';
import type { CallProtocol } from '../h2-link.js';
import { startH2load } from '../h2load.js';
import { measurePhase, type Phase } from '../measure.js';
import { cpuTogether, median, ratioOfRounds } from '../medians.js';
import { positive, positiveList } from '../options.js';
import type { LoadTarget } from '../protocol.js';
import { ingestReport, ingestTitle, phaseLines, type Result, roundLines, row } from '../report.js';
import { type Stack, withStack } from '../stack.js';
import {
  addRounds,
  addStreamOptions,
  type CaseOptions,
  caseCommand,
  type Progress,
  type RoundOptions,
  type StreamOptions,
} from './case.js';

interface GatewayOptions extends CaseOptions, StreamOptions, RoundOptions {
  /** Several sizes of a batch, one case each. */
  readonly batches: readonly number[] | undefined;
  readonly ceiling: boolean;
}

interface UnaryOptions extends Omit<GatewayOptions, 'streams'> {
  readonly clients: number;
  readonly connectionPerClient: boolean;
  readonly protocol: CallProtocol;
}

/** What is measured, and how the load gets there. */
interface Side {
  readonly name: 'ceiling' | 'gateway' | 'unary';
  /** Makes its load; undefined: the raw publisher alone. */
  readonly start: ((stack: Stack, batch: number) => Promise<Fleet> | Fleet) | undefined;
  /** For the JSON. */
  readonly facts?: (acked: number, batch: number) => Readonly<Record<string, unknown>>;
}

type IngestOptions = Omit<GatewayOptions, 'streams'>;

const fleetTo = (stack: Stack, target: LoadTarget, batch: number, options: IngestOptions): Promise<Fleet> =>
  startFleet({
    target,
    tenant: stack.tenant,
    batch,
    inFlight: options.inFlight,
    seed: options.seed,
    processes: options.loadProcesses,
    nodeArguments: profileArguments(options.profile, target.kind === 'log' ? 'ceiling' : 'load'),
  });

/** Ends what was started, also after an error. */
async function withFleet<T>(started: Promise<Fleet> | Fleet, use: (fleet: Fleet) => Promise<T>): Promise<T> {
  const fleet = await started;
  try {
    return await use(fleet);
  } finally {
    await fleet.close();
  }
}

async function* ingest(options: IngestOptions, side: Side, progress: Progress): AsyncGenerator<Result> {
  const { shards, flags, telemetry, profile } = options;
  for (const batch of options.batches ?? [options.batch]) {
    progress(`batches of ${batch}: starting the servers`);
    yield await withStack(
      { gateways: side.start === undefined ? 0 : 1, workers: 0, shards, flags, telemetry, profile },
      async (stack): Promise<Result> => {
        const known = await ensureCeilingStreams(stack.nc, shards);
        const log: LoadTarget = { kind: 'log', natsUrl: stack.natsUrl, shards: known, subjectRoot: ceilingRoot };
        const measure = async (name: string, fleet: Fleet, rate: number | 'max'): Promise<Phase> => {
          const roles = name === 'ceiling' ? ['nats'] : ['nats', 'gateway'];
          const { seconds, warmUp: warmUpSeconds } = options;
          try {
            return await measurePhase(stack, fleet, { rate, seconds, warmUpSeconds, roles, name, progress });
          } finally {
            await emptyStreams(stack.nc, known);
          }
        };
        const publish = (): Promise<Fleet> => fleetTo(stack, log, batch, options);
        return withFleet(side.start?.(stack, batch) ?? publish(), async (fleet) => {
          if (side.start === undefined || !options.ceiling || typeof options.rate === 'number')
            return alone(fleet, measure);
          return withFleet(publish(), (publisher) => beside(fleet, publisher, measure));
        });
      },
    );

    type Measure = (name: string, fleet: Fleet, rate: number | 'max') => Promise<Phase>;

    /** Rounds of one side only. */
    async function alone(fleet: Fleet, measure: Measure): Promise<Result> {
      const rounds: Phase[] = [];
      if (typeof options.rate !== 'number') {
        for (let i = 0; i < options.runs; i++) rounds.push(await measure(side.name, fleet, 'max'));
      }
      return resultOf(fleet, rounds, undefined, await last(fleet, rounds, measure));
    }

    /** Gateway and raw publisher in turn; who begins changes from round to round. */
    async function beside(fleet: Fleet, publisher: Fleet, measure: Measure): Promise<Result> {
      const rounds: Phase[] = [];
      const raw: Phase[] = [];
      for (let i = 0; i < options.runs; i++) {
        progress(`round ${i + 1} of ${options.runs}`);
        if (i % 2 === 0) raw.push(await measure('ceiling', publisher, 'max'));
        rounds.push(await measure(side.name, fleet, 'max'));
        if (i % 2 === 1) raw.push(await measure('ceiling', publisher, 'max'));
      }
      return resultOf(fleet, rounds, raw, await last(fleet, rounds, measure));
    }

    /** The phase that tells latency: at half of what the rounds reached, or at the rate that was asked for. */
    async function last(fleet: Fleet, rounds: readonly Phase[], measure: Measure): Promise<Phase> {
      if (typeof options.rate === 'number') return measure(side.name, fleet, options.rate);
      const newest = rounds.at(-1);
      if (options.rate === 'max' && newest !== undefined) return newest;
      return measure(side.name, fleet, median(rounds.map((phase) => phase.acked_events_per_s)) / 2);
    }

    function resultOf(
      fleet: Fleet,
      rounds: readonly Phase[],
      raw: readonly Phase[] | undefined,
      latency: Phase,
    ): Result {
      const { name } = side;
      const throughput = rounds.length === 0 ? [latency] : rounds;
      const ceiling = raw && {
        phases: raw,
        ratio: ratioOfRounds(
          rounds.map((phase) => phase.acked_events_per_s),
          raw.map((phase) => phase.acked_events_per_s),
        ),
        cpuRatio: ratioOfRounds(
          rounds.map((phase) => cpuTogether(phase, ['gateway', 'nats'])),
          raw.map((phase) => cpuTogether(phase, ['load', 'nats'])),
        ),
      };
      const { bytesPerEvent } = fleet;
      const input = { case: name, throughput, latency, batch, bytesPerEvent, seconds: options.seconds };
      const report = ingestReport({ ...input, ...(ceiling === undefined ? {} : { ceiling }) });
      const x = `${name}, ${batch}`;
      const lines = [ingestTitle(report)];
      if (rounds.length > 0) lines.push(...roundLines(name, rounds));
      if (raw !== undefined && ceiling !== undefined) {
        lines.push(
          ...roundLines('ceiling', raw),
          '',
          row(`${name} to ceiling`, `${ceiling.ratio.toFixed(2)} × its events/s`),
          row('gateway + nats to', `publisher + nats: ${ceiling.cpuRatio.toFixed(2)} × its CPU an event`),
        );
      }
      if (latency !== rounds.at(-1)) lines.push(...phaseLines(name, latency));
      return {
        json: { ...report, ...side.facts?.(report.acked_events_per_s, batch) },
        lines,
        charts: [
          latencyChart(`${x} at ${Math.round(latency.acked_events_per_s)}/s`, latency.ack_distribution),
          ...sampleCharts(x, latency.samples),
        ],
      };
    }
  }
}

const sizes = (command: Command): Command =>
  addRounds(addStreamOptions(command)).option(
    '--batches <sizes>',
    'several sizes, one case and one line of JSON each, e.g. 1,20,200,500,1000',
    positiveList(10_000),
  );

export const gatewayCommand = (): Command =>
  caseCommand<GatewayOptions>({
    name: 'gateway',
    summary: 'gRPC streams → gateway → JetStream, in turn with the raw publisher of the same payloads',
    seconds: 5,
    warmUp: 2,
    add: (command) => sizes(command).option('--no-ceiling', 'leave the raw publisher out'),
    help: `
Figures:
  Rounds of two closed-loop phases (as fast as acks allow), the gateway and the raw publisher in turn on the same
  nats-server, each with streams of its own, which are emptied after each phase. Medians count.
  ratio_to_ceiling: events/s of the gateway / of the publisher, within each round. Small batches may be above 1: the
  gateway puts many into one message, the publisher sends each as its own.
  cpu_ratio_to_ceiling: CPU of gateway + nats-server an event / of publisher + nats-server, within each round.
  Then one open-loop phase at half of the rate gives ack_ms.
Examples:
  npm run bench -- gateway --json
  npm run bench -- gateway --batches 1,20,200,500,1000 --report gateway.html
  npm run bench -- gateway --rate 500000 --seconds 30 --set gateway.publish-window=64
  npm run bench -- gateway --no-ceiling --rate max --runs 1 --profile bench-results/profile
`,
    run: (options, progress) => {
      const { connections, streams } = options;
      const start = (stack: Stack, batch: number): Promise<Fleet> => {
        const { gatewayUrl: url, key } = stack;
        return fleetTo(stack, { kind: 'gateway', url, key, connections, streams }, batch, options);
      };
      return ingest(options, { name: 'gateway', start }, progress);
    },
  });

export const ceilingCommand = (): Command =>
  caseCommand<GatewayOptions>({
    name: 'ceiling',
    summary: 'the same payloads published to JetStream directly: what a Node process can reach here',
    seconds: 5,
    warmUp: 2,
    add: sizes,
    help: `
Figures:
  Closed-loop rounds, then an open-loop phase at half of their rate. Each batch is a message of its own.
Examples:
  npm run bench -- ceiling --batches 1,20,500 --json
`,
    run: (options, progress) => ingest(options, { name: 'ceiling', start: undefined }, progress),
  });

export const unaryCommand = (): Command =>
  caseCommand<UnaryOptions>({
    name: 'unary',
    summary: 'small batches from many clients, each with one unary call in flight, gRPC or Connect',
    seconds: 5,
    warmUp: 3,
    add: (command) =>
      addRounds(command)
        .option('--clients <n>', 'clients, each with one call in flight', positive(65_536), 200)
        .option('--batch <events>', 'events of a batch', positive(2_000), 20)
        .option('--batches <sizes>', 'several sizes, one case each, e.g. 1,5,20', positiveList(2_000))
        .addOption(new Option('--protocol <name>', 'of the calls').choices(['connect', 'grpc']).default('connect'))
        .option('--connections <n>', 'connections, which the clients share', positive(10_000), 8)
        .option('--connection-per-client', 'each client has a connection of its own', false)
        .option('--no-ceiling', 'leave the raw publisher out'),
    help: `
Figures:
  Closed-loop rounds: each client sends its next call when the one before is answered; calls_per_s is what they reach.
  The raw publisher takes its turn with the same payloads, each batch a message of its own, as many in flight.
  Then a phase at half of the rate gives ack_ms, from when each call left.
  h2load (apt-get install nghttp2-client) makes the calls, in up to four processes. Each process sends one batch over and over;
  no two send the same batch. --load-processes is for the raw publisher.
Examples:
  npm run bench -- unary --json
  npm run bench -- unary --protocol grpc --connection-per-client
  npm run bench -- unary --batches 1,5,20 --clients 1000 --connections 32
`,
    run: (given, progress) => {
      const { protocol, clients, seed } = given;
      const connections = given.connectionPerClient ? clients : given.connections;
      const start = ({ gatewayUrl: url, key, logMib }: Stack, batch: number): Fleet => {
        const loggedBytes = async (): Promise<number> => ((await logMib()) ?? 0) * MiB;
        return startH2load({ url, key, protocol, connections, clients, batch, seed, loggedBytes });
      };
      const facts = (acked: number, batch: number) => ({ protocol, clients, connections, calls_per_s: acked / batch });
      return ingest({ ...given, connections, inFlight: clients }, { name: 'unary', start, facts }, progress);
    },
  });

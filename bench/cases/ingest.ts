/**
 * The cases without a warehouse: batches over streams through a gateway (`gateway`), and the same payloads straight into
 * JetStream (`ceiling`). In a run of `gateway` the two take turns, so that its ratios compare what the machine did at the
 * same time.
 */
import type { Command } from 'commander';
import { ceilingRoot, emptyStreams, ensureCeilingStreams } from '../ceiling-streams.js';
import { latencyChart, sampleCharts, throughputCharts } from '../charts.js';
import { type Fleet, startFleet } from '../fleet.js';
import { measurePhase, type Phase } from '../measure.js';
import { cpuTogether, median, ratioOfRounds } from '../medians.js';
import { positiveList } from '../options.js';
import type { LoadTarget } from '../protocol.js';
import { ingestReport, ingestTitle, phaseLines, type Result, roundLines, row } from '../report.js';
import { profileArguments } from '../roles.js';
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

/** Ends what was started whatever happens. */
async function withFleet<T>(
  stack: Stack,
  target: LoadTarget,
  batch: number,
  options: GatewayOptions,
  use: (fleet: Fleet) => Promise<T>,
): Promise<T> {
  const fleet = await startFleet({
    target,
    tenant: stack.tenant,
    batch,
    inFlight: options.inFlight,
    seed: options.seed,
    processes: options.loadProcesses,
    nodeArguments: profileArguments(options.profile, target.kind === 'log' ? 'ceiling' : 'load'),
  });
  try {
    return await use(fleet);
  } finally {
    await fleet.close();
  }
}

/** @param viaGateway false: only the raw publisher runs */
async function* ingest(options: GatewayOptions, viaGateway: boolean, progress: Progress): AsyncGenerator<Result> {
  const { shards, flags, telemetry, profile } = options;
  for (const batch of options.batches ?? [options.batch]) {
    progress(`batches of ${batch}: starting the servers`);
    yield await withStack(
      { gateways: viaGateway ? 1 : 0, workers: 0, shards, flags, telemetry, profile },
      async (stack): Promise<Result> => {
        const known = await ensureCeilingStreams(stack.nc, shards);
        const log: LoadTarget = { kind: 'log', natsUrl: stack.natsUrl, shards: known, subjectRoot: ceilingRoot };
        const { connections, streams } = options;
        const gateway: LoadTarget = { kind: 'gateway', url: stack.gatewayUrl, key: stack.key, connections, streams };
        const measure = async (name: string, fleet: Fleet, rate: number | 'max'): Promise<Phase> => {
          const roles = name === 'ceiling' ? ['nats'] : ['nats', 'gateway'];
          const { seconds, warmUp: warmUpSeconds } = options;
          try {
            return await measurePhase(stack, fleet, { rate, seconds, warmUpSeconds, roles, name, progress });
          } finally {
            await emptyStreams(stack.nc, known);
          }
        };
        if (!viaGateway) return withFleet(stack, log, batch, options, (fleet) => alone('ceiling', fleet, measure));
        return withFleet(stack, gateway, batch, options, async (fleet) => {
          if (!options.ceiling || typeof options.rate === 'number') return alone('gateway', fleet, measure);
          return withFleet(stack, log, batch, options, (publisher) => beside(fleet, publisher, measure));
        });
      },
    );

    type Measure = (name: string, fleet: Fleet, rate: number | 'max') => Promise<Phase>;

    /** Rounds of one side only. */
    async function alone(name: 'ceiling' | 'gateway', fleet: Fleet, measure: Measure): Promise<Result> {
      const rounds: Phase[] = [];
      if (typeof options.rate !== 'number') {
        for (let i = 0; i < options.runs; i++) rounds.push(await measure(name, fleet, 'max'));
      }
      return resultOf(name, fleet, rounds, undefined, await last(name, fleet, rounds, measure));
    }

    /** Gateway and raw publisher in turn; who begins changes from round to round. */
    async function beside(fleet: Fleet, publisher: Fleet, measure: Measure): Promise<Result> {
      const rounds: Phase[] = [];
      const raw: Phase[] = [];
      for (let i = 0; i < options.runs; i++) {
        progress(`round ${i + 1} of ${options.runs}`);
        if (i % 2 === 0) raw.push(await measure('ceiling', publisher, 'max'));
        rounds.push(await measure('gateway', fleet, 'max'));
        if (i % 2 === 1) raw.push(await measure('ceiling', publisher, 'max'));
      }
      return resultOf('gateway', fleet, rounds, raw, await last('gateway', fleet, rounds, measure));
    }

    /** The phase that tells latency: at half of what the rounds reached, or at the rate that was asked for. */
    async function last(name: string, fleet: Fleet, rounds: readonly Phase[], measure: Measure): Promise<Phase> {
      if (typeof options.rate === 'number') return measure(name, fleet, options.rate);
      const newest = rounds.at(-1);
      if (options.rate === 'max' && newest !== undefined) return newest;
      return measure(name, fleet, median(rounds.map((phase) => phase.acked_events_per_s)) / 2);
    }

    function resultOf(
      name: string,
      fleet: Fleet,
      rounds: readonly Phase[],
      raw: readonly Phase[] | undefined,
      latency: Phase,
    ): Result {
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
      const sides = [
        { name, phases: throughput },
        ...(raw ? [{ name: 'ceiling', x: `ceiling, ${batch}`, phases: raw }] : []),
      ];
      const lines = [ingestTitle(report)];
      if (rounds.length > 0) lines.push(...roundLines(name, rounds));
      if (raw !== undefined && ceiling !== undefined) {
        lines.push(
          ...roundLines('ceiling', raw),
          '',
          row('gateway to ceiling', `${ceiling.ratio.toFixed(2)} × its events/s`),
          row('gateway + nats to', `publisher + nats: ${ceiling.cpuRatio.toFixed(2)} × its CPU an event`),
        );
      }
      if (latency !== rounds.at(-1)) lines.push(...phaseLines(name, latency));
      return {
        json: { ...report },
        lines,
        charts: [
          ...throughputCharts(x, sides),
          latencyChart(`${x} at ${Math.round(latency.acked_events_per_s)}/s`, latency),
          ...sampleCharts(x, latency),
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
    run: (options, progress) => ingest(options, true, progress),
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
    run: (options, progress) => ingest(options, false, progress),
  });

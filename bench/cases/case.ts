/**
 * What a case is, the options that the cases share, and the command that runs one.
 */
import { resolve } from 'node:path';
import { Command, Option } from 'commander';
import type { PhaseOptions } from '../measure.js';
import { parseRate, parseSet, positive } from '../options.js';
import { type Report, toJsonLine, toTable } from '../report.js';
import type { RoleName } from '../roles.js';

export interface CaseOptions {
  /** Length of each measured window. */
  readonly seconds: number;
  readonly warmUp: number;
  /** Undefined: a closed-loop phase, then an open-loop one at half of what that showed. */
  readonly rate: number | 'max' | undefined;
  /** Events of a batch. */
  readonly batch: number;
  readonly inFlight: number;
  readonly connections: number;
  readonly streams: number;
  readonly loadProcesses: number;
  readonly gateways: number;
  readonly workers: number;
  readonly shards: number;
  readonly seed: number;
  readonly telemetry: boolean;
  /** Folder for CPU profiles. */
  readonly profile: string | undefined;
  /** Extra flags of roles. */
  readonly flags: Readonly<Partial<Record<RoleName, readonly string[]>>>;
}

export interface BenchCase {
  readonly name: string;
  /** One line for --help. */
  readonly summary: string;
  run(options: CaseOptions, progress: PhaseOptions['progress']): Promise<Report>;
}

/** What commander parses; the names follow the flags. */
interface CommandLine extends Omit<CaseOptions, 'flags'> {
  readonly json: boolean;
  readonly set: readonly [RoleName, string][];
}

const help = `
Figures:
  Default: a closed-loop phase (as fast as acks allow) gives throughput and CPU; then an open-loop phase at half of the
  rate that every part kept up with gives ack_ms, measured from when a batch should have been sent, so that a stall
  counts for every batch that it delays. --rate makes it one phase: a number is an open loop, max a closed one.
  cpu_s_per_million: gateway, nats and load per million acknowledged events, worker and clickhouse per million stored.
  All servers and the load share this machine: more CPUs, or fewer processes, give other figures.

Examples:
  npm run bench -- e2e --json
  npm run bench -- gateway --rate 200000 --seconds 30
  npm run bench -- gateway --set gateway.publish-window=64 --profile bench-results/profile`;

export function caseCommand(one: BenchCase): Command {
  return new Command(one.name)
    .description(one.summary)
    .option('--json', 'end standard output with one line of JSON', false)
    .option('--seconds <s>', 'length of each measured window', positive(3600, false), 10)
    .option('--warm-up <s>', 'load before each window', positive(600, false), 3)
    .option('--rate <events/s>', 'a number, or max', parseRate)
    .option('--batch <events>', 'events of a batch', positive(10_000), 500)
    .option('--in-flight <batches>', 'most batches without an ack, all load processes together', positive(65_536), 64)
    .option('--connections <n>', 'connections of each load process', positive(1_000), 2)
    .option('--streams <n>', 'streams on each connection', positive(100), 2)
    .option('--load-processes <n>', 'load processes', positive(64), 1)
    .option('--workers <n>', 'workers (e2e)', positive(64), 1)
    .option('--shards <n>', 'shards of the log', positive(1024), 2)
    .option('--seed <n>', 'seed of the events', positive(1_000_000), 1)
    .option('--no-telemetry', 'run the roles without OpenTelemetry')
    .option(
      '--profile <folder>',
      "write CPU profiles of the roles' and load's processes there (slows them a little)",
      (folder) => resolve(folder),
    )
    .addOption(
      new Option('--set <role.flag=value>', 'pass a flag to gateway, worker or clickhouse; may be repeated')
        .argParser<[RoleName, string][]>(parseSet)
        .default([], 'none'),
    )
    .addHelpText('after', help)
    .action(async (given: CommandLine) => {
      const { json, set, ...rest } = given;
      const flags: Partial<Record<RoleName, string[]>> = {};
      for (const [role, flag] of set) flags[role] = [...(flags[role] ?? []), flag];
      const options: CaseOptions = { ...rest, rate: rest.rate, flags };
      const report = await one.run(options, (line) => process.stderr.write(`${one.name}: ${line}\n`));
      process.stdout.write(`${toTable(report)}\n`);
      if (json) process.stdout.write(`${toJsonLine(report)}\n`);
    });
}

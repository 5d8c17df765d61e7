/**
 * What a case of sending events is, the options that such cases share, and the command that runs one.
 */
import { resolve } from 'node:path';
import { Command, Option } from 'commander';
import { maxShards } from '../../lib/shard-setting.js';
import type { RoleName } from '../../lib/testing/role-process.js';
import type { PhaseOptions } from '../measure.js';
import { parseRate, parseSet, positive } from '../options.js';
import type { Result } from '../report.js';
import { addOutputOptions, type OutputOptions, showResults } from '../results.js';

export type Progress = PhaseOptions['progress'];

export interface CaseOptions extends OutputOptions {
  /** Length of each measured window. */
  readonly seconds: number;
  readonly warmUp: number;
  /** Undefined: as the case does by itself. A number: one open-loop phase; max: closed-loop phases only. */
  readonly rate: number | 'max' | undefined;
  readonly loadProcesses: number;
  readonly shards: number;
  readonly seed: number;
  readonly telemetry: boolean;
  /** Folder for CPU profiles. */
  readonly profile: string | undefined;
  /** Extra flags of roles. */
  readonly flags: Readonly<Partial<Record<RoleName, readonly string[]>>>;
}

/** Batches over streams: how many events each has, and over what they go. */
export interface StreamOptions {
  /** Events of a batch. */
  readonly batch: number;
  readonly inFlight: number;
  readonly connections: number;
  readonly streams: number;
}

/** Several rounds, of which the medians count. */
export interface RoundOptions {
  readonly runs: number;
}

export interface CaseDefinition<Extra> {
  readonly name: string;
  /** One line for the list of commands. */
  readonly summary: string;
  /** Default of --seconds and --warm-up. */
  readonly seconds: number;
  readonly warmUp: number;
  /** Adds the case's own options. */
  add(command: Command): Command;
  /** What the figures mean, and examples. */
  readonly help: string;
  run(options: CaseOptions & Extra, progress: Progress): AsyncIterable<Result>;
}

const shared = `
  All servers and the load share this machine, so more CPUs, or fewer processes, give other figures. Trust ratios inside
  one run. cpu_s_per_million: gateway, nats and load per million acknowledged events, worker and clickhouse per million
  stored. rss_mib: peaks. ack_ms is measured from when a batch should have been sent, so that a stall counts for every
  batch that it delays.`;

export function caseCommand<Extra>(one: CaseDefinition<Extra>): Command {
  const command = new Command(one.name)
    .description(one.summary)
    .option('--seconds <s>', 'length of each measured window', positive(100_000, false), one.seconds)
    .option('--warm-up <s>', 'load before each window', positive(600, false), one.warmUp)
    .option('--rate <events/s>', 'a number: one open-loop phase; max: closed loop only', parseRate);
  one.add(command);
  addOutputOptions(command)
    .option('--load-processes <n>', 'load processes', positive(64), 1)
    .option('--shards <n>', 'shards of the log', positive(maxShards), 2)
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
    .addHelpText('after', `${one.help}${shared}`)
    .action(async (given: CaseOptions & Extra & { readonly set: readonly [RoleName, string][] }) => {
      const { set, ...rest } = given;
      const flags: Partial<Record<RoleName, string[]>> = {};
      for (const [role, flag] of set) flags[role] = [...(flags[role] ?? []), flag];
      const options = { ...rest, flags } as unknown as CaseOptions & Extra;
      const progress = (line: string) => process.stderr.write(`${one.name}: ${line}\n`);
      await showResults(one.name, one.run(options, progress), options);
    });
  return command;
}

export const addStreamOptions = (command: Command): Command =>
  command
    .option('--batch <events>', 'events of a batch', positive(10_000), 500)
    .option('--in-flight <batches>', 'most batches without an ack, all load processes together', positive(65_536), 64)
    .option('--connections <n>', 'connections of each load process', positive(1_000), 2)
    .option('--streams <n>', 'streams on each connection', positive(100), 2);

export const addRounds = (command: Command): Command =>
  command.option('--runs <n>', 'interleaved rounds; medians count', positive(100), 3);

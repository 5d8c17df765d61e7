/**
 * `npm run bench -- <case> [options]`: the benchmarks.
 *
 *   main.ts          the command line (this file)
 *   cases/           what can be measured: case.ts (the shape of a case), ingest.ts (e2e, gateway, ceiling)
 *   stack.ts         the servers of a case, each its own process; roles.ts starts one
 *   fleet.ts         the load processes; protocol.ts is how they are spoken to, load.ts is their entry
 *   measure.ts       one measured phase
 *   cpu.ts           CPU time and memory by process; latency.ts: histograms
 *   report.ts        JSON and the table
 *   parse.ts, ingest-core.ts   measure one part inside one process, without servers
 */
import { resolve } from 'node:path';
import { Command, InvalidArgumentError, Option } from 'commander';
import { UsageError } from '../lib/errors.js';
import type { BenchCase, CaseOptions } from './cases/case.js';
import { ingestCases } from './cases/ingest.js';
import { toJsonLine, toTable } from './report.js';
import type { RoleName } from './roles.js';

const cases: readonly BenchCase[] = [...ingestCases];

/** What commander parses; the names follow the flags. */
interface CommandLine extends Omit<CaseOptions, 'flags'> {
  readonly json: boolean;
  readonly set: readonly [RoleName, string][];
}

const positive = (most: number, wholeOnly = true) => {
  return (text: string): number => {
    const value = Number(text);
    if (!(value > 0) || value > most || (wholeOnly && !Number.isInteger(value))) {
      throw new InvalidArgumentError(`Give a ${wholeOnly ? 'whole ' : ''}number above 0, at most ${most}.`);
    }
    return value;
  };
};

function parseRate(text: string): number | 'max' {
  return text === 'max' ? 'max' : positive(100_000_000, false)(text);
}

function parseSet(text: string, before: readonly [RoleName, string][]): [RoleName, string][] {
  const match = /^(gateway|worker|clickhouse)\.([a-z-]+)=(.*)$/.exec(text);
  if (match === null) throw new InvalidArgumentError('Give it as gateway.publish-window=64: role, flag, value.');
  return [...before, [match[1] as RoleName, `--${match[2]}=${match[3]}`]];
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

function commandFor(one: BenchCase): Command {
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

const program = new Command('npm run bench --')
  .description('Measures Sluice on this machine, with real servers in a temporary folder.')
  .addHelpText('after', help)
  .showHelpAfterError('(add --help for the options)');
for (const one of cases) program.addCommand(commandFor(one));

try {
  await program.parseAsync();
} catch (error) {
  const message =
    error instanceof UsageError || !(error instanceof Error) ? String(error) : (error.stack ?? error.message);
  process.stderr.write(`bench: ${message}\n`);
  process.exitCode = 1;
}

/**
 * Load shapes through the whole stack, each with verdicts: `npm run bench -- ramp | spike | endurance | customers`.
 *
 *   index.ts          the commands (this file)
 *   shapes.ts         the four scenarios, as plans; scenario.ts says what one is, and what a run of it shows
 *   plan.ts           which clients call when
 *   run.ts            runs a scenario: servers, load process, lag and memory, what is stored at the end
 *   load-process.ts   the load process; load-protocol.ts is how it is spoken to
 *   senders.ts        a generator (../generator.ts) and a way of sending for each group of clients; tally.ts: what became of their calls
 *   judge.ts          tables, figures and verdicts of a run; verdicts.ts: what it is held to; charts.ts: plots
 *   recovery.ts, lag.ts   recovery, age of what is not stored
 */
import { resolve } from 'node:path';
import { Command, Option } from 'commander';
import { maxShards } from '../../lib/shard-setting.js';
import type { RoleName } from '../../lib/testing/role-process.js';
import { parseSet, positive } from '../options.js';
import type { Result } from '../report.js';
import { addOutputOptions, type OutputOptions, showResults } from '../results.js';
import { chartsOf } from './charts.js';
import { figuresOf, judge, linesOf } from './judge.js';
import { planSeconds } from './plan.js';
import { runScenario } from './run.js';
import type { Scenario } from './scenario.js';
import { type Calls, customers, endurance, ramp, spike } from './shapes.js';

/** Every scenario's own options are added to these. */
interface CommonOptions extends OutputOptions {
  readonly calls: Calls;
  readonly connections: number;
  readonly memoryBound: number | undefined;
  readonly workers: number;
  readonly shards: number;
  readonly seed: number;
  readonly telemetry: boolean;
  readonly profile: string | undefined;
  readonly set: readonly [RoleName, string][];
  readonly warmUp: number;
}

const help = `
Virtual clients:
  A group of clients has a schedule (an open loop), and as many calls in flight as clients, at most. A call is measured from
  when it should have left until its ack, retries included, so that a stall counts for every call that it delays. --calls:
  with "stream" each client opens one PublishStream; with "connect" and "grpc" it makes a unary call for each batch; "mixed" is
  half streams, half Connect.

Verdicts (exit code 1 when one fails; the warm-up is not judged):
  uptime        ≥ 99.9 % of the seconds in which calls are due or waiting. A second is up when calls succeed in it and no
                more than 5 % of its answers are failures.
  P95, P99      < 100 ms, < 250 ms over all calls.
  errors        < 0.1 % of all answers; a retried failure counts.
  nothing lost  by customer: every acknowledged batch is in ClickHouse once, with exactly its events (counts by batch, and
                a sum over the event_ids); nothing else is.
  memory        of gateway, nats-server, worker and ClickHouse: the slope over the second half, with its 95 % interval, fails
                when even the lower end is above --memory-bound. Default: 5 MiB/min, and in short runs as much as makes
                64 MiB in that half: caches and pools still fill then.`;

const endOf: Readonly<Record<string, string>> = {
  ramp: `
Examples:
  npm run bench -- ramp
  npm run bench -- ramp --clients 5000 --think 5 --connections 50`,
  spike: `
  recovery      after the 3× step, P95 of each quarter of a second and the lag of ClickHouse are back within the band of
                the first 1× step within 3.1 s, and stay there for 2 s. The band: what 95 % of that step's samples were
                below, and half as much again; at least 20 ms and 2 s (a block waits up to 1 s for more rows).

Examples:
  npm run bench -- spike
  npm run bench -- spike --rate 50000 --calls stream`,
  endurance: `
  Three customers send 50,000, 100,000 and 75,000 events a day; the day has five parts of 4.8 h with 0.3, 1.2, 1.0, 1.5 and
  0.7 times that rate. --speed 1440 passes a day in a minute; --speed 1 is real time: a day takes a day.

Examples:
  npm run bench -- endurance
  npm run bench -- endurance --speed 96 --hours 24      15 minutes
  npm run bench -- endurance --speed 1 --hours 24       a day`,
  customers: `
  fair shares   of each customer's calls, the share that was answered within 250 ms: Jain's index ≥ 0.99 and no customer below
                95 %; once while all send alike, once for the others while one sends --greedy times as much.

Examples:
  npm run bench -- customers
  npm run bench -- customers --customers 200 --clients 2 --greedy 50`,
};

const count = (most: number) => positive(most);
const amount = (most: number) => positive(most, false);

/** A command for a scenario: `make` turns its options into the plan. */
function scenarioCommand<T extends object>(
  name: string,
  summary: string,
  options: (command: Command) => Command,
  make: (options: T & CommonOptions) => Scenario,
): Command {
  const command = addOutputOptions(new Command(name).description(summary));
  return options(command)
    .addOption(
      new Option('--calls <kind>', 'how clients call').choices(['mixed', 'stream', 'connect', 'grpc']).default('mixed'),
    )
    .option('--warm-up <s>', 'load before anything is judged', amount(600), 4)
    .option('--connections <n>', 'HTTP/2 connections that the clients share', count(1_000), 20)
    .option('--memory-bound <MiB/min>', 'growth of a process that is too much (see below)', amount(1_000_000))
    .option('--workers <n>', 'workers', count(64), 1)
    .option('--shards <n>', 'shards of the log', count(maxShards), 2)
    .option('--seed <n>', 'seed of events and schedules', count(1_000_000), 1)
    .option('--no-telemetry', 'run the roles without OpenTelemetry')
    .option('--profile <folder>', 'write CPU profiles of all processes there', (folder) => resolve(folder))
    .addOption(
      new Option('--set <role.flag=value>', 'pass a flag to gateway, worker or clickhouse; may be repeated')
        .argParser<[RoleName, string][]>(parseSet)
        .default([], 'none'),
    )
    .addHelpText('after', help + (endOf[name] ?? ''))
    .action(async (given: T & CommonOptions) => {
      const scenario = make(given);
      const progress = (line: string) => process.stderr.write(`${name}: ${line}\n`);
      for (const line of scenario.intent) progress(line);
      const flags: Partial<Record<RoleName, string[]>> = {};
      for (const [role, flag] of given.set) flags[role] = [...(flags[role] ?? []), flag];
      async function* run(): AsyncGenerator<Result> {
        const facts = await runScenario(scenario, { ...given, flags }, progress);
        const bound = given.memoryBound ?? defaultMemoryBound(planSeconds(scenario.plan));
        const summary = judge(scenario, facts, bound);
        if (summary.verdicts.some((verdict) => !verdict.passed)) process.exitCode = 1;
        yield {
          json: figuresOf(scenario, facts, summary),
          lines: linesOf(scenario, facts, summary),
          charts: chartsOf(scenario, facts, summary),
        };
      }
      await showResults(name, run(), given);
    });
}

/** MiB a minute: 5, and in a short run as much as makes 64 MiB in its second half. */
export const defaultMemoryBound = (seconds: number): number => Math.max(5, Math.ceil(64 / (seconds / 2 / 60)));

export function scenarioCommands(): Command[] {
  return [
    scenarioCommand(
      'ramp',
      '10 → 1000 virtual clients through the whole stack, with verdicts',
      (command) =>
        command
          .option('--clients <n>', 'clients of the last step', count(65_536), 1_000)
          .option('--step-seconds <s>', 'length of each step', amount(36_000), 6)
          .option('--batch <events>', 'events of a batch', count(1_000), 10)
          .option('--think <s>', 'mean time between calls of a client', amount(3_600), 1),
      ramp,
    ),
    scenarioCommand(
      'spike',
      '1× → 2× → 3× → 1× of a base rate through the whole stack; verdict on the recovery',
      (command) =>
        command
          .option('--rate <events/s>', 'the base rate', amount(100_000_000), 10_000)
          .option('--clients <n>', 'virtual clients', count(65_536), 300)
          .option('--batch <events>', 'events of a batch', count(1_000), 20)
          .option('--base-seconds <s>', 'length of the 1× steps', amount(36_000), 15)
          .option('--step-seconds <s>', 'length of the 2× and 3× steps', amount(36_000), 10),
      spike,
    ),
    scenarioCommand(
      'endurance',
      "three customers' days, sped up or in real time, through the whole stack",
      (command) =>
        command
          .option('--hours <h>', 'hours of the day that pass', amount(720), 24)
          .option('--speed <n>', 'how many times faster than real time', amount(1_000_000), 1_440)
          .option('--clients <n>', 'virtual clients of each customer', count(10_000), 20)
          .option('--batch <events>', 'events of a batch', count(1_000), 5),
      endurance,
    ),
    scenarioCommand(
      'customers',
      '50 customers at once, each with its own key; then one of them is greedy: fair shares',
      (command) =>
        command
          .option('--customers <n>', 'customers', count(1_000), 50)
          .option('--clients <n>', 'virtual clients of each customer', count(1_000), 4)
          .option('--rate <events/s>', 'of all customers together while they are alike', amount(100_000_000), 10_000)
          .option('--batch <events>', 'events of a batch', count(1_000), 10)
          .option('--seconds <s>', 'length of each of the two phases', amount(36_000), 20)
          .option(
            '--greedy <n>',
            'times the clients, and so the load, of the others that one customer has in the second phase',
            amount(1_000),
            20,
          ),
      customers,
    ),
  ];
}

/**
 * `npm run bench -- <command> [options]`: the benchmarks.
 *
 *   main.ts          the list of commands (this file); options.ts reads their values
 *   cases/           what can be measured: case.ts (a case of sending events and its command), ingest.ts (gateway, unary,
 *                    ceiling), e2e.ts, loader.ts, query.ts; storage.ts: bytes on disk; fill.ts: fills the log;
 *                    insert.ts: ClickHouse alone
 *   scenarios/       load shapes through the whole stack, with verdicts
 *   gate/            ratios that the tests hold performance to
 *   compare/         command.ts: our gateway beside the same door built in other ways, which are in peers/
 *   stack.ts         the servers of a case, each its own process (lib/testing/role-process.ts); ceiling-streams.ts
 *   fleet.ts         the load processes (load-child.ts); protocol.ts is how they are spoken to
 *   h2load.ts        unary calls by h2load, spoken to as a fleet
 *   measure.ts       one measured phase; samples.ts: what is looked at while it runs
 *   load.ts          its ways of sending: send-streams.ts (publish-stream.ts is one stream), send-unary.ts (unary-call.ts, unary-methods.ts),
 *                    send-log.ts; h2-link.ts: a connection; grpc-answers.ts reads answers
 *   generator.ts     when batches leave and how long they take, over any sender.ts; pace.ts: the schedule; payload.ts: the batches
 *   readers-in-turn.ts  ways of reading batches, measured inside one process
 *   medians.ts       rounds made one; slope.ts: growth (CPU, memory, disk: lib/testing/process-use.ts; histograms: lib/testing/latency.ts)
 *   exactly-once.ts  is what was acknowledged stored once?
 *   results.ts       how every command ends: report.ts (lines, JSON), report-page.ts (HTML), charts.ts
 *   ingest-core.ts   measures the gateway's core alone
 *   testing/         for the tests: drive.ts runs the load against a way of sending
 */
import { Command } from 'commander';
import { UsageError } from '../lib/errors.js';
import { e2eCommand } from './cases/e2e.js';
import { ceilingCommand, gatewayCommand, unaryCommand } from './cases/ingest.js';
import { insertCommand } from './cases/insert.js';
import { loaderCommand } from './cases/loader.js';
import { queryCommand } from './cases/query.js';
import { compareCommand } from './compare/command.js';
import { parseCommand } from './compare/parse.js';
import { gateCommand } from './gate/index.js';
import { scenarioCommands } from './scenarios/index.js';

/** Each command has a module that makes it; a new one is a line here. */
const commands: readonly Command[] = [
  e2eCommand(),
  gatewayCommand(),
  unaryCommand(),
  ceilingCommand(),
  loaderCommand(),
  queryCommand(),
  insertCommand(),
  gateCommand(),
  compareCommand(),
  parseCommand(),
  ...scenarioCommands(),
];

const program = new Command('npm run bench --')
  .description('Measures Sluice on this machine, with real servers in a temporary folder.')
  .showHelpAfterError('(add --help for the options)');
for (const command of commands) program.addCommand(command.copyInheritedSettings(program));

try {
  await program.parseAsync();
} catch (error) {
  const message =
    error instanceof UsageError || !(error instanceof Error) ? String(error) : (error.stack ?? error.message);
  process.stderr.write(`bench: ${message}\n`);
  process.exitCode = 1;
}

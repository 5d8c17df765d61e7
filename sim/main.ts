/**
 * `node --import tsx sim/main.ts`: the simulator. It runs the real cores of client, gateway and loader in worlds of virtual time,
 * where everything goes wrong that can, and then looks at what the clients heard. A world follows from its seed alone.
 *
 *   main.ts        this file: the command line
 *   run.ts         one world, from its seed to its verdict; fleet.ts: processes that are started again
 *   plan.ts        what a world is like; faults.ts: what goes wrong in it
 *   judge.ts       the verdict; history.ts: what the clients heard; stored.ts reads batches by hand
 *   weakness.ts    what can be left out of the protocol, to see that it is noticed
 *   client.ts      batcher and delivery of sdk-gen/typescript, on a simulated network
 *   gateway.ts     ingest core and stream rules of gateway/, on a simulated log; gateway-stream.ts: one stream; hedger.ts: its second line
 *   worker.ts      the loader's protocol of workers/, on a simulated log and sink; reader.ts: how it reads; block-plan.ts: what it stores
 *   log.ts         JetStream: log-store.ts, what it has; log-lines.ts, its connections; dead-letters.ts
 *   sink.ts        ClickHouse; sink-request.ts: what becomes of a request to it
 *   network.ts     TCP
 *   world.ts       time (timeline.ts), dice and trace; process.ts: what can die, freeze, and have a clock that is wrong
 */
import { Command, InvalidArgumentError, Option } from 'commander';
import { parseWhole } from '../lib/number-text.js';
import { createProgressLine } from '../lib/progress-line.js';
import { type Run, runWorld } from './run.js';
import { type Weakness, type WeaknessName, weaknesses } from './weakness.js';

interface Flags {
  readonly seed?: number;
  readonly seeds?: readonly [number, number];
  readonly trace?: boolean;
  readonly mutate?: WeaknessName;
  readonly breakLog?: boolean;
  readonly json?: boolean;
}

const maxSeeds = 10_000_000;

function seed(text: string): number {
  const value = parseWhole(text);
  if (value === undefined || value < 0 || value > 2 ** 32 - 1) {
    throw new InvalidArgumentError('Give a whole number from 0 to 4294967295.');
  }
  return value;
}

function seedRange(text: string): [number, number] {
  const [from = '', to = '', ...more] = text.split('..');
  const range: [number, number] = [seed(from), seed(to)];
  if (more.length > 0 || range[1] < range[0] || range[1] - range[0] >= maxSeeds) {
    throw new InvalidArgumentError('Give it as 1..10000: first and last seed.');
  }
  return range;
}

const program = new Command('node --import tsx sim/main.ts')
  .description(
    'Runs the cores of client, gateway and loader in simulated worlds, and checks that every acknowledged event is\n' +
      'stored once. Exit code 1 when a world says otherwise; with --mutate, when no world does.',
  )
  .option('--seed <number>', 'one world', seed)
  .option('--seeds <range>', 'worlds from..to (default: 1..1000)', seedRange)
  .option('--trace', 'print what happens, line by line')
  .addOption(
    new Option('--mutate <name>', 'leave something out of the protocol, and see whether it is noticed').choices(
      Object.keys(weaknesses),
    ),
  )
  .option('--break-log', 'the log loses what it acknowledged (power loss), or an operator removes a stream')
  .option('--json', 'end with one line of JSON')
  .addHelpText(
    'after',
    `\nMutations:\n${Object.entries(weaknesses)
      .map(([name, { what }]) => `  ${name.padEnd(24)} ${what}`)
      .join('\n')}\n`,
  )
  .showHelpAfterError('(add --help for the options)')
  .parse();

const flags = program.opts<Flags>();
const [from, to] = flags.seed === undefined ? (flags.seeds ?? [1, 1_000]) : [flags.seed, flags.seed];
// Errors are made by the thousand here and thrown on purpose: their stacks cost more than the rest.
Error.stackTraceLimit = 0;

const say = (line: string): void => void process.stdout.write(`${line}\n`);
const replay = (of: number): string =>
  `node --import tsx sim/main.ts --seed ${of} --trace${flags.breakLog === true ? ' --break-log' : ''}` +
  `${flags.mutate === undefined ? '' : ` --mutate ${flags.mutate}`}`;

const totals = { worlds: 0, steps: 0, acked: 0, stored: 0, duplicates: 0, dead: 0, forgotten: 0, faults: 0 };
const started = performance.now();
const progress = createProgressLine(process.stderr, Number.POSITIVE_INFINITY);

function count({ verdict, steps, plan }: Run): void {
  totals.worlds++;
  totals.steps += steps;
  totals.acked += verdict.acked;
  totals.stored += verdict.stored;
  totals.duplicates += verdict.duplicates;
  totals.dead += verdict.dead;
  totals.forgotten += verdict.forgotten;
  if (verdict.faults.length === 0) return;
  totals.faults++;
  say(`seed ${plan.seed}: ${verdict.faults.join('; ')}`);
  if (flags.trace !== true) say(`  ${replay(plan.seed)}`);
}

const clock = (ms: number): string => new Date(ms).toISOString().slice(11, 23);

for (let of = from; of <= to; of++) {
  const run = await runWorld(of, {
    breakLog: flags.breakLog ?? (flags.mutate !== undefined && (weaknesses[flags.mutate] as Weakness).breakLog),
    weakness: flags.mutate,
    trace: flags.trace === true ? (ms, who, what) => say(`${clock(ms)} ${who.padEnd(12)} ${what}`) : undefined,
  });
  if (flags.trace === true) say(`world: ${JSON.stringify(run.plan)}`);
  count(run);
  progress.show(`${of - from + 1} of ${to - from + 1} worlds, ${totals.faults} with faults`);
}

progress.clear();
const seconds = Math.round((performance.now() - started) / 100) / 10;
const noticed = totals.faults > 0;
say(
  `${totals.worlds} worlds in ${seconds} s: ${totals.acked} events acknowledged, ${totals.stored} stored, ` +
    `${totals.duplicates} duplicates left out; ${totals.faults} worlds with faults`,
);
if (flags.mutate !== undefined) say(noticed ? `${flags.mutate} is noticed` : `${flags.mutate} is NOT noticed`);
if (flags.json === true) say(JSON.stringify({ seeds: [from, to], seconds, ...totals }));
process.exitCode = noticed === (flags.mutate === undefined) ? 1 : 0;

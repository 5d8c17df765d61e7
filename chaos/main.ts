/**
 * `npm run chaos`: faults under load, with a checked history.
 *
 *   main.ts            this file: the command line, what is printed, the exit code
 *   run.ts             one run: load, faults, peace, check
 *   nats-nodes.ts      the log's servers: one, or a cluster of three
 *   stack.ts           the processes and the proxies between them; slot.ts: one process, started again when it dies
 *   customers.ts       the clients that come and go; client-process.ts is one of them; client-trace.ts: what it did;
 *                      counted-ids.ts: one that uses its ids again
 *   journal.ts         what a client heard, written so that it survives its SIGKILL
 *   events.ts          the events: every value follows from the id, in JavaScript and in SQL
 *   schedule.ts        who is hit when, with killers.ts, disturbers.ts, arming.ts and campaign.ts; faults.ts: what there is
 *   poison.ts          messages that cannot be stored
 *   proxy.ts           a TCP proxy that misbehaves; disk.ts: a disk that can be full
 *   check.ts           the history against ClickHouse; late.ts: what was stored late
 *   recovery.ts        how long it took; prober.ts and watermark.ts are what it looks with
 *   controls.ts        protections that can be switched off, to see that their lack is found; build.ts: where that is done,
 *                      leave-out.ts: how a role starts without one
 *   report.ts          the table, and the line of JSON
 */
import { Command, InvalidArgumentError, Option } from 'commander';
import { UsageError } from '../lib/errors.js';
import { type Protection, protections } from '../lib/failpoint.js';
import { replicatesFrom } from '../lib/nats-version.js';
import { parseNumber, parseWhole } from '../lib/number-text.js';
import { createProgressLine } from '../lib/progress-line.js';
import { currentNats } from '../lib/testing/current-nats.js';
import { hourMs } from '../lib/units.js';
import type { Durability } from '../sdk-gen/typescript/src/delivery.js';
import { type Control, controls } from './controls.js';
import { faultNames, isChosen } from './faults.js';
import type { ClusterOptions } from './nats-nodes.js';
import { page, summary, verdict } from './report.js';
import { type RunResult, run } from './run.js';

interface Flags {
  readonly quick?: boolean;
  readonly kills?: number;
  readonly faults?: number;
  readonly hours?: number;
  readonly seed: number;
  readonly only: readonly string[];
  readonly rate: number;
  readonly clients: number;
  readonly durability: Durability;
  readonly cluster?: boolean;
  readonly syncAlways?: boolean;
  readonly control?: Protection;
  readonly oneByOne?: boolean;
  readonly keep?: boolean;
  readonly verbose?: boolean;
  readonly json?: boolean;
}

/** A quick run, and a control: faults for so long. */
const quickMs = 35_000;
const controlMs = 25_000;

const number =
  (max: number, whole: boolean) =>
  (text: string): number => {
    const value = whole ? parseWhole(text) : parseNumber(text);
    if (value === undefined || value <= 0 || value > max) {
      throw new InvalidArgumentError(`Give a ${whole ? 'whole ' : ''}number above 0, at most ${max}.`);
    }
    return value;
  };

function faultList(text: string): string[] {
  const parts = text.split(',').map((part) => part.trim());
  for (const part of parts) {
    if (!faultNames.some((name) => isChosen(name, [part]))) {
      throw new InvalidArgumentError(`"${part}" is no fault; the faults are ${faultNames.join(', ')}.`);
    }
  }
  return parts;
}

const program = new Command('npm run chaos --')
  .description(
    'Runs the real stack under load, kills, stops and cuts off its parts at random, and compares at the end what clients heard\n' +
      'with what ClickHouse has: what was acknowledged is stored, each event once, with the values that were sent.',
  )
  .option('--quick', `faults for ${quickMs / 1_000} s: what npm test runs (the default)`)
  .option('--kills <n>', 'until so many processes were killed', number(1_000_000, true))
  .option('--faults <n>', 'until so many faults of any kind happened', number(1_000_000, true))
  .option('--hours <h>', 'for so long', number(1_000, false))
  .option(
    '--seed <s>',
    'which faults, in which order',
    number(2 ** 32 - 1, true),
    Math.floor(Math.random() * 2 ** 31) + 1,
  )
  .option(
    '--only <faults>',
    'only these, by name or by what their names begin with: kill:worker,stop,failpoint:loader',
    faultList,
    [],
  )
  .option('--rate <n>', 'events per second', number(100_000, true), 3_000)
  .option(
    '--clients <n>',
    'clients that share the rate; the first counts its batches from 1 after each of its deaths',
    number(100, true),
    3,
  )
  .addOption(
    new Option('--durability <when>', 'when clients forget a batch')
      .choices(['accepted', 'committed'])
      .default('accepted'),
  )
  .option(
    '--cluster',
    `the log on a cluster of three nats-servers with replicated streams: one on the PATH that is ${replicatesFrom} or newer, or one that is built with Go`,
  )
  .option('--sync-always', 'with --cluster: every message is on the disk before it is acknowledged')
  .addOption(
    new Option('--control <protection>', 'switch a protection off: exit code 0 when its lack is found').choices(
      Object.keys(controls),
    ),
  )
  .option(
    '--one-by-one',
    'each fault only when what the one before hit works again: how long recoveries take by themselves',
  )
  .option('--keep', 'leave data and logs where they are (after a finding they are kept anyway)')
  .option('--verbose', 'a line for each fault, as it happens')
  .option('--json', 'end with one line of JSON')
  .showHelpAfterError('(add --help for the options)')
  .addHelpText(
    'after',
    `
Faults, by name:
  ${faultNames.join('\n  ')}

Controls:
  ${Object.entries(controls)
    .map(([name, { shows }]) => `${name}: leaves out "${protections[name as Protection]}"; shows events ${shows}`)
    .join('\n  ')}

Examples:
  npm run chaos                                        a minute of everything
  npm run chaos -- --kills 1000 --seed 1 --json        a thousand kills, and on until each failpoint came 20 times
  npm run chaos -- --only stop:worker --faults 10 --verbose
  npm run chaos -- --cluster --hours 0.2 --sync-always  three nats-servers, killed one at a time and all at once
  npm run chaos -- --control insert-if-absent          shows that the check can fail

Exit code 0: nothing was lost, doubled or altered, and everything recovered in time. 1: something was, and the data are kept.
A seed repeats the choice of faults; when each happens depends on the machine too.
`,
  );

/** @throws UsageError when there is no nats-server for it */
async function clusterOf({ syncAlways = false }: Flags): Promise<ClusterOptions> {
  const nats = await currentNats();
  if (nats.program === undefined) throw new UsageError(`--cluster: ${nats.reason}.`);
  return { program: nats.program, syncAlways };
}

/** How long the run takes: bounded by kills and faults, or by time alone. */
function boundsOf(flags: Flags): { readonly isBounded: boolean; readonly endless: boolean; readonly maxMs: number } {
  const isBounded = flags.kills !== undefined || flags.faults !== undefined;
  // Bounded in time, too: at the slowest pace that makes sense, a fault takes 6 s.
  const boundedMs = 120_000 + Math.max(flags.kills ?? 0, flags.faults ?? 0) * 6_000;
  const freeMs = flags.control === undefined ? quickMs : controlMs;
  const maxMs = flags.hours === undefined ? (isBounded ? boundedMs : freeMs) : flags.hours * hourMs;
  return { isBounded, endless: !isBounded, maxMs };
}

/** Aborted by the first signal that asks the run to end; the second one ends the process. */
function untilSignal(): AbortSignal {
  const interrupted = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      if (interrupted.signal.aborted) process.exit(130);
      interrupted.abort();
    });
  }
  return interrupted.signal;
}

/** A control run passes when the check finds what is missing; any other when it finds nothing. */
function conclusion(
  result: RunResult,
  control: Control | undefined,
): { readonly passed: boolean; readonly line: string } {
  if (control === undefined) {
    const failure = verdict(result);
    return { passed: failure === undefined, line: failure === undefined ? 'all is well' : `failed: ${failure}` };
  }
  const { protection, shows } = control;
  const found = result[shows];
  if (found > 0)
    return { passed: true, line: `without ${protection}, ${found} events were ${shows}: the check finds it` };
  const why = 'the run was too short, or the check is blind';
  return { passed: false, line: `without ${protection}, no event was ${shows}: ${why}` };
}

async function main(): Promise<number> {
  const flags = program.parse().opts<Flags>();
  const { seed, rate, clients } = flags;
  if (flags.syncAlways === true && flags.cluster !== true) program.error('--sync-always goes with --cluster.');
  const control = flags.control === undefined ? undefined : controls[flags.control];
  const { endless, maxMs, isBounded } = boundsOf(flags);
  const interrupted = untilSignal();
  const since = Date.now();
  const progress = createProgressLine(process.stderr, 15_000);
  const say = (line: string): void => {
    if (flags.verbose !== true) return;
    progress.clear();
    process.stderr.write(`${((Date.now() - since) / 1_000).toFixed(1).padStart(7)} s  ${line}\n`);
  };
  const result = await run({
    cluster: flags.cluster === true ? await clusterOf(flags) : undefined,
    seed,
    rate,
    clients,
    durability: flags.durability,
    kills: endless ? Number.POSITIVE_INFINITY : (flags.kills ?? 0),
    faults: endless ? Number.POSITIVE_INFINITY : (flags.faults ?? 0),
    maxMs,
    // Each failpoint 20 times in a thousand kills.
    minFailpoint: Math.floor((flags.kills ?? 0) / 50),
    only: flags.only.length > 0 ? flags.only : (control?.faults ?? []),
    pace: isBounded || flags.hours !== undefined ? 1 : 0.6,
    oneByOne: flags.oneByOne === true,
    control,
    keep: flags.keep === true,
    say,
    progress: progress.show,
    interrupted,
  });
  progress.clear();
  process.stdout.write(`${page(result, seed)}\n`);
  const { passed, line } = conclusion(result, control);
  process.stdout.write(`${line}\n`);
  if (flags.json === true) process.stdout.write(`${JSON.stringify(summary(result, seed))}\n`);
  return passed ? 0 : 1;
}

main()
  .then((code) => process.exit(code))
  .catch((error: unknown) => {
    process.stderr.write(
      `chaos: ${error instanceof UsageError ? error.message : ((error as Error).stack ?? String(error))}\n`,
    );
    process.exit(1);
  });

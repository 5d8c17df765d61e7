/**
 * `sluice demo`: streams realistic events through the whole stack and shows what arrived.
 *
 *   main.ts       flags, signals, exit code
 *   run.ts        one run: stream, wait, show, compare
 *   stack.ts      the stack that it streams into: given, running, or started
 *   source.ts     what a stream of events is
 *   generate.ts   … random journeys
 *   journeys.ts   … from a CSV of paths
 *   weblog.ts     … from an access log
 *   input.ts      files, gzipped or not, by the line
 *   run-figures.ts  what ClickHouse has of the run
 *   progress.ts   bar or lines
 *   report.ts     tables and the comparison
 *
 * Exit code 0: what is stored is exactly what was sent. 1: it is not, or the demo could not run. 130: interrupted.
 */
import { Command, InvalidArgumentError } from 'commander';
import { resolveOptions, stackOptions } from '../../lib/config/index.js';
import { UsageError } from '../../lib/errors.js';
import { parseWhole } from '../../lib/number-text.js';
import { clickhousePassword } from '../../lib/secret-file.js';
import { hourMs } from '../../lib/units.js';
import { createGeneratedSource } from './generate.js';
import { journeySource } from './journeys.js';
import { newRunName, runDemo } from './run.js';
import type { Source } from './source.js';
import { findStack } from './stack.js';
import { weblogSource } from './weblog.js';

interface Flags {
  readonly journeys?: string;
  readonly weblog?: string;
  readonly events: number;
  readonly seed: number;
  readonly data?: string;
  readonly url?: string;
  readonly key?: string;
  readonly clickhouseUrl?: string;
}

const whole =
  (min: number, max: number) =>
  (text: string): number => {
    const value = parseWhole(text);
    if (value === undefined || value < min || value > max) {
      throw new InvalidArgumentError(`Give a whole number from ${min} to ${max}.`);
    }
    return value;
  };

const address = (text: string): string => {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !['http:', 'https:'].includes(url.protocol)) {
    throw new InvalidArgumentError('Give an address such as http://127.0.0.1:7070.');
  }
  return text.replace(/\/$/, '');
};

const program = new Command('sluice demo')
  .description('Streams realistic events through the whole stack and shows what arrived.')
  .option('--journeys <file>', 'replay journeys from a CSV: path,total_conversions,total_conversion_value,total_null')
  .option('--weblog <file>', 'replay an access log in Combined Log Format as page views')
  .option('--events <number>', 'events to generate when no file is given', whole(1, 100_000_000), 200_000)
  .option('--seed <number>', 'seed of the generated events', whole(0, 2 ** 32 - 1), 1)
  .option('--data <folder>', `data folder of the local stack (default: "${stackOptions.data.default}")`)
  .option('--url <address>', 'gateway of another stack; give --key and --clickhouse-url too', address)
  .option('--key <key>', "tenant's key for --url")
  .option('--clickhouse-url <address>', 'ClickHouse of that stack', address)
  .allowExcessArguments(false);

async function sourceOf(flags: Flags, run: string): Promise<Source> {
  if (flags.journeys !== undefined && flags.weblog !== undefined) {
    throw new UsageError('Give --journeys or --weblog, not both.');
  }
  // The whole hour: runs of the same input differ in their ids and in nothing else.
  const endMs = Math.floor(Date.now() / hourMs) * hourMs;
  if (flags.journeys !== undefined) return journeySource(flags.journeys, run, endMs);
  if (flags.weblog !== undefined) return weblogSource(flags.weblog);
  return createGeneratedSource({ total: flags.events, seed: flags.seed, run, endMs });
}

async function demo(flags: Flags, signal: AbortSignal): Promise<boolean> {
  const out = process.stdout;
  const run = newRunName(Date.now());
  // Before a stack is started: a bad file should be reported at once.
  const source = await sourceOf(flags, run);
  const settings = resolveOptions(stackOptions, { data: flags.data });
  const stack = await findStack({
    data: settings.data,
    url: flags.url,
    key: flags.key,
    clickhouseUrl: flags.clickhouseUrl,
    say: (line) => {
      out.write(`${line}\n`);
    },
    signal,
  });
  try {
    return await runDemo({
      stack,
      source,
      run,
      clickhouse: {
        user: settings.clickhouseUser,
        password: stack.clickhousePassword ?? clickhousePassword(settings),
        database: settings.clickhouseDatabase,
      },
      out,
      signal,
    });
  } finally {
    await stack.stop();
  }
}

const interrupt = new AbortController();
for (const name of ['SIGINT', 'SIGTERM'] as const) {
  process.on(name, () => interrupt.abort(new Error(name)));
}
// `sluice demo` runs this file as a child: when that is killed, this one stops the stack that it started, and ends.
process.on('disconnect', () => interrupt.abort(new Error('the parent process is gone')));
process.channel?.unref();
program.parse();
try {
  process.exitCode = (await demo(program.opts<Flags>(), interrupt.signal)) ? 0 : 1;
} catch (error) {
  if (interrupt.signal.aborted) {
    process.stderr.write('Interrupted.\n');
    process.exitCode = 130;
  } else if (error instanceof UsageError) {
    process.stderr.write(`${error.message}\n`);
    process.exitCode = 1;
  } else throw error;
}

/**
 * `npm run hostile -- fuzz`: mutated requests over sockets against real gateways, from a seed.
 *
 *   command.ts      this file: the command line, what is printed, the exit code
 *   run.ts          one run: lanes, connections, verdicts FUZZ-1 to FUZZ-4
 *   plan.ts         what each request of a seed is
 *   corpus.ts       valid requests of every kind; mutate.ts what is done to them
 *   send-frames.ts  HTTP/2 frame by frame; send-node.ts by node:http2; send-bytes.ts HTTP/1.1 and broken frames
 *   collect.ts      a collection in a gateway, before its memory is looked at
 *   outcome.ts      what became of a request; loop-log.ts how long event loops stood still
 */
import { Command, InvalidArgumentError } from 'commander';
import { parseWhole } from '../../lib/number-text.js';
import { type FuzzFigures, fuzz } from './run.js';

const whole =
  (least: number) =>
  (text: string): number => {
    const value = parseWhole(text);
    if (value === undefined || value < least || value > 1e9) {
      throw new InvalidArgumentError(`Give a whole number from ${least} to 1000000000.`);
    }
    return value;
  };

export const page = (figures: FuzzFigures): string => {
  const { requests, seconds, fates, late, valid, rss, good, failures } = figures;
  const counts = Object.entries(fates).map(([fate, count]) => `${count.toLocaleString('en')} ${fate}`);
  const ms = (value: number | null): string => (value === null ? '–' : `${Math.round(value)} ms`);
  return [
    `${requests.toLocaleString('en')} requests in ${Math.round(seconds)} s: ${counts.join(', ')}.`,
    `${late.requests} answers came after more than 2 s, the last after ${Math.round(late.longestMs)} ms.`,
    `${valid.sent} valid requests, ${valid.accepted} accepted, ${valid.stored} in the log.`,
    ...rss.map(
      ({ before, most, after }, i) =>
        `Memory of the gateway ${i === 0 ? 'with the hot path' : 'of the library'}: ${[before, most, after].map(Math.round).join(', ')} MiB before, at most, at the end.`,
    ),
    `The good client's P99: ${ms(good.alone.p99)} alone, ${ms(good.during.p99)} beside it; ${good.during.errors} of ${good.during.calls} calls failed.`,
    ...failures.map((failure) => `FAILED ${failure}`),
    failures.length === 0 ? 'passed' : `${failures.length} failures`,
  ].join('\n');
};

const program = new Command('npm run hostile -- fuzz')
  .description('Sends mutated requests over sockets to real gateways on 127.0.0.1, and valid ones between them.')
  .option('--requests <n>', 'how many', whole(1), 1_000_000)
  .option('--seed <n>', 'the same seed sends the same requests', whole(0), 1)
  .option('--from <n>', 'the number of the first one: with --requests 1, that one alone', whole(0), 0)
  .option('--memory-seconds <s>', 'how long memory may take to come back; 0: it is not looked at', whole(0), 60)
  .option('--json', 'end with one line of JSON')
  .showHelpAfterError('(add --help for the options)');

/** @param interrupted rejects when the run is to end early */
export async function main(args: readonly string[], interrupted: Promise<never>): Promise<number> {
  const flags = program
    .parse(args, { from: 'user' })
    .opts<{ requests: number; seed: number; from: number; memorySeconds: number; json?: boolean }>();
  const figures = await fuzz({ ...flags, interrupted, say: (line) => void process.stderr.write(`${line}\n`) });
  process.stdout.write(`${page(figures)}\n`);
  if (flags.json === true) process.stdout.write(`${JSON.stringify({ fuzz: figures })}\n`);
  return figures.failures.length === 0 ? 0 : 1;
}

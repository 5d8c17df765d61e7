/**
 * `npm run hostile`: attacks on a real gateway, with a good client beside each.
 *
 *   main.ts               this file: the command line, what is printed, the exit code
 *   run.ts                one run: the attacks in turn, each with a verdict
 *   scene.ts              one attack against one fresh gateway, and its figures
 *   bounds.ts             what must hold, with the reasons; the verdict
 *   attack.ts             what an attack is; attacks/: all of them, map in attacks/index.ts
 *   attacker.ts           runs an attack in a process of its own: attack-process.ts
 *   bystanders.ts         the good client, another customer, a probe: bystander-process.ts
 *   process-watch.ts      memory, event-loop delay and CPU of the gateway
 *   wire/                 sockets, HTTP/2 frame by frame, HTTP/1.1 text, messages
 *   fuzz/                 `npm run hostile -- fuzz`: mutated requests from a seed; map in fuzz/command.ts
 *   report.ts             the table, and the line of JSON
 */
import { cpus, loadavg } from 'node:os';
import { Command, InvalidArgumentError, Option } from 'commander';
import { UsageError } from '../lib/errors.js';
import { parseWhole } from '../lib/number-text.js';
import type { Attack } from './attack.js';
import { attacks } from './attacks/index.js';
import { common, type Judged } from './bounds.js';
import { main as fuzz } from './fuzz/command.js';
import { page, summary, told } from './report.js';
import { run } from './run.js';

interface Flags {
  readonly only: readonly Attack[];
  readonly seconds: number;
  readonly processes: number;
  readonly tls?: boolean;
  readonly json?: boolean;
  readonly set: readonly string[];
}

const whole =
  (most: number) =>
  (text: string): number => {
    const value = parseWhole(text);
    if (value === undefined || value < 1 || value > most) {
      throw new InvalidArgumentError(`Give a whole number from 1 to ${most}.`);
    }
    return value;
  };

/** A word chooses each attack whose name begins with it. */
function chosenAttacks(text: string): Attack[] {
  return text.split(',').flatMap((word) => {
    const found = attacks.filter(({ name }) => word.trim() !== '' && name.startsWith(word.trim()));
    if (found.length > 0) return found;
    throw new InvalidArgumentError(
      `"${word}" is no attack; the attacks are ${attacks.map(({ name }) => name).join(', ')}.`,
    );
  });
}

/** `name=value` of the gateway's settings. */
function setting(text: string, before: readonly string[]): string[] {
  const [name = '', ...value] = text.split('=');
  if (!/^[a-z][a-z-]*$/.test(name) || value.length === 0) {
    throw new InvalidArgumentError('Give a setting of the gateway as name=value: max-connections=100.');
  }
  return [...before, `--${name}`, value.join('=')];
}

const program = new Command('npm run hostile --')
  .description(
    'Attacks a real gateway on 127.0.0.1 with bounded scripts, each from a process of its own, while a good client makes 50 calls a\n' +
      'second, another customer 10, and a probe asks for /readyz. Prints what each attack cost, and a verdict against stated bounds.',
  )
  .addOption(
    new Option('--only <attacks>', 'only these, by what their names begin with: json,idle-connections')
      .argParser(chosenAttacks)
      .default([...attacks], 'all'),
  )
  .option('--seconds <s>', 'most seconds of each attack', whole(600), 10)
  .option('--processes <n>', 'gateway processes behind the port', whole(16), 1)
  .option('--tls', 'the gateway serves TLS')
  .addOption(
    new Option('--set <name=value>', 'another setting of the gateway; can be given again')
      .argParser(setting)
      .default([], 'none'),
  )
  .option('--json', 'end with one line of JSON')
  .showHelpAfterError('(add --help for the options)')
  .addHelpText(
    'after',
    `
Attacks:
${attacks.map(({ name, about }) => `  ${name.padEnd(28)} ${about}`).join('\n')}

Columns: calls, connections or frames that were sent, those answered, and those refused without an answer; memory of the largest
gateway process in MiB; the longest delay of an event loop; CPU seconds of the gateway during the attack; the good client's
latencies in ms, its failed calls, and those of the other customer and the probe.

npm run hostile -- fuzz --help: mutated requests from a seed, with verdicts of their own.

Exit code 0: every attack was held within the bounds of hostile/bounds.ts. 1: one was not.
`,
  );

/** Rejects on a signal, so that what was started is ended too; never resolves. */
const interruption = (): Promise<never> =>
  new Promise((_, reject) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const)
      process.once(signal, () => reject(new UsageError(`interrupted by ${signal}`)));
  });

async function main(interrupted: Promise<never>): Promise<number> {
  const flags = program.parse().opts<Flags>();
  const say = (line: string): void => void process.stderr.write(`${line}\n`);
  const rows = await run({
    attacks: [...new Set(flags.only)],
    judged: Object.keys(common) as Judged[],
    flags: flags.set,
    processes: flags.processes,
    tls: flags.tls === true,
    seconds: flags.seconds,
    scale: 1,
    calm: { warmUp: 2, alone: 4, after: 10 },
    say,
    onRow: (row) => say(told(row)),
    interrupted,
  });
  const { length: cores } = cpus();
  const [load = 0] = loadavg();
  process.stdout.write(
    `${cores} cores, Node ${process.version}, ${flags.processes} gateway process${flags.processes === 1 ? '' : 'es'}, ` +
      `${flags.tls === true ? 'TLS' : 'no TLS'}; the machine's load at the end ${load.toFixed(1)}\n${page(rows)}\n`,
  );
  if (flags.json === true) process.stdout.write(`${JSON.stringify(summary(rows))}\n`);
  return rows.every(({ broken }) => broken.length === 0) ? 0 : 1;
}

const [word, ...rest] = process.argv.slice(2);
const interrupted = interruption();
interrupted.catch(() => undefined);

(word === 'fuzz' ? fuzz(rest, interrupted) : main(interrupted))
  .then((code) => {
    process.exitCode = code;
  })
  .catch((error: unknown) => {
    process.stderr.write(
      `hostile: ${error instanceof UsageError ? error.message : ((error as Error).stack ?? String(error))}\n`,
    );
    process.exitCode = 1;
  });

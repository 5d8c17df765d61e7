/**
 * `sluice up` for tests, as the command that a user types: free ports, own folder, nothing left.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { flagOf, testEnvironment } from '../../lib/config/index.js';
import { freePort } from '../../lib/testing/nats.js';
import { root } from '../../lib/testing/root.js';
import { until } from '../../lib/testing/until.js';
import { commandFile } from '../roles.js';
import { type RunningStack, runningStack } from '../stack-file.js';

const portOptions = [
  'port',
  'gatewayMetricsPort',
  'workerMetricsPort',
  'clickhousePort',
  'clickhouseMetricsPort',
  'natsPort',
  'natsMonitorPort',
] as const;

export type Ports = Record<(typeof portOptions)[number], number>;

export async function freePorts(): Promise<Ports> {
  const ports = {} as Ports;
  for (const name of portOptions) {
    // A port that was given out before must not be given out again.
    do ports[name] = await freePort();
    while (Object.entries(ports).some(([other, port]) => other !== name && port === ports[name]));
  }
  return ports;
}

/** Flags that `sluice up` and `sluice doctor` take. */
export const flagsOf = (data: string, ports: Ports): string[] => [
  '--data',
  data,
  ...Object.entries(ports).flatMap(([name, port]) => [flagOf(name), String(port)]),
];

export interface Answer {
  readonly code: number | string;
  readonly out: string;
  readonly err: string;
}

export interface RunningCommand {
  readonly child: ChildProcess;
  readonly out: () => string;
  readonly err: () => string;
  readonly ended: Promise<Answer>;
}

/** The environment of a user, with telemetry as users have it. */
function environment(more: Readonly<Record<string, string>>): Record<string, string> {
  const { OTEL_SDK_DISABLED: _, ...rest } = testEnvironment();
  return { ...rest, ...more };
}

/** Starts a program, in the project's folder unless another is given. */
export function command(
  program: string,
  args: readonly string[],
  more: Record<string, string> = {},
  cwd = root,
): RunningCommand {
  const child = spawn(program, [...args], { cwd, stdio: ['ignore', 'pipe', 'pipe'], env: environment(more) });
  let [out, err] = ['', ''];
  child.stdout.on('data', (chunk) => {
    out += String(chunk);
  });
  child.stderr.on('data', (chunk) => {
    err += String(chunk);
  });
  const ended = once(child, 'exit').then(async ([code, signal]) => {
    // What was written before the end is still to be read; a grandchild may hold the pipe open.
    await new Promise((resolve) => setTimeout(resolve, 20));
    return { code: (code ?? signal) as number | string, out, err };
  });
  return { child, out: () => out, err: () => err, ended };
}

/** How a command of Sluice is started. */
export interface Installation {
  /** The program of Node. */
  readonly node: string;
  /** The program of all commands, from {@link folder} or absolute. */
  readonly file: string;
  /** In which it is started. */
  readonly folder: string;
}

/** The commands of what runs this, on its Node: compiled in a run of the tests, else the sources. */
const own: Installation = { node: process.execPath, file: commandFile, folder: root };

/** The sources, as a user of a checkout starts them. */
export const checkout: Installation = { ...own, file: 'cli/sluice.mjs' };

/** Starts a command of Sluice. */
export const startSluice = (
  { node, file, folder }: Installation,
  args: readonly string[],
  more: Record<string, string> = {},
): RunningCommand => command(node, [file, ...args], more, folder);

/** A command, to its end. */
export const sluice = (
  args: readonly string[],
  more: Record<string, string> = {},
  installation = own,
): Promise<Answer> => startSluice(installation, args, more).ended;

/** Processes whose command line or environment names the text, this one left out: "pid command line". */
export function processesNaming(text: string): string[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .flatMap((pid) => {
      try {
        const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
        const found = words.includes(text) || readFileSync(`/proc/${pid}/environ`, 'utf8').includes(text);
        return found && words !== '' ? [`${pid} ${words.trim()}`] : [];
      } catch {
        return [];
      }
    });
}

export interface UpProcess extends RunningCommand {
  readonly data: string;
  readonly ports: Ports;
  /** As up.json tells it now. */
  readonly stack: () => RunningStack;
}

/** Starts `sluice up`; resolves when it says that it is ready. */
export async function startUp(
  data: string,
  ports: Ports,
  more: readonly string[] = [],
  variables: Record<string, string> = {},
  installation = own,
): Promise<UpProcess> {
  const running = startSluice(installation, ['up', ...flagsOf(data, ports), ...more], variables);
  let gone = false;
  void running.ended.then(() => {
    gone = true;
  });
  await until('ready, or ended', () => gone || running.out().includes('Ctrl-C ends everything'), 60_000);
  if (gone) throw new Error(`sluice up ended: ${running.err()}`);
  const stack = (): RunningStack => {
    const found = runningStack(data);
    if (found === undefined) throw new Error('no up.json');
    return found;
  };
  return { ...running, data, ports, stack };
}

/** A folder for a stack; whatever still names it at the end is killed, and the folder removed. */
export async function withFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-up-'));
  try {
    await use(folder);
  } finally {
    for (const line of processesNaming(folder)) {
      try {
        process.kill(Number.parseInt(line, 10), 'SIGKILL');
      } catch {
        // Gone meanwhile.
      }
    }
    await until('the processes are gone', () => processesNaming(folder).length === 0, 5_000);
    await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

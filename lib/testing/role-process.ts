/**
 * Runs a role of Sluice as its own process, as in production: told its settings by flags, says over IPC when it is
 * ready, is drained by SIGTERM. Its log goes to a file, the end of which is shown when it fails.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { endProcess, logTail } from '../child-process.js';
import { environmentOf, nodeFlags } from '../config/index.js';
import { programFlags, programPath } from './program.js';

export type RoleName = 'gateway' | 'worker' | 'clickhouse';

/** Where each role's process starts, from the root of the repository. */
const entries: Readonly<Record<RoleName, string>> = {
  gateway: 'gateway/main.ts',
  worker: 'workers/main.ts',
  clickhouse: 'workers/embedded/main.ts',
};

const root = fileURLToPath(new URL('../..', import.meta.url));
const readyWithinMs = 60_000;
const drainWithinMs = 20_000;

export interface RoleOptions {
  readonly flags: readonly string[];
  /** For the log. */
  readonly folder: string;
  /** Traces and metrics are started, as in production. */
  readonly telemetry: boolean;
  /** Folder for a CPU profile; undefined: none. */
  readonly profile?: string | undefined;
  /** Modules that are loaded before the role, as paths from the root. @default none */
  readonly preload?: readonly string[];
}

export interface Role {
  readonly name: string;
  readonly pid: number;
  /** As reported when ready; 0 when the role listens on none. */
  readonly port: number;
  /** Ports of /metrics, one for each process. Empty unless the role was started with port 0 and with telemetry. */
  readonly metricsPorts: readonly number[];
  /** Rejects when the process ends on its own; never resolves. */
  readonly failure: Promise<never>;
  close(): Promise<void>;
}

/** Node's arguments for a process whose profiles, one a thread, go to a folder of the given name below `folder`. */
export const profileArguments = (folder: string | undefined, name: string): string[] =>
  folder === undefined ? [] : ['--cpu-prof', `--cpu-prof-dir=${join(folder, name)}`];

/** @throws Error with the end of the role's log when it does not get ready within a minute */
export async function startRole(role: RoleName, index: number, options: RoleOptions): Promise<Role> {
  const name = `${role}-${index}`;
  const logFile = join(options.folder, `${name}.log`);
  const output = openSync(logFile, 'w');
  const child = fork(programPath(entries[role]), options.flags, {
    cwd: root,
    env: environmentOf(role),
    execArgv: [
      ...nodeFlags[role],
      ...programFlags,
      ...(options.telemetry ? ['--import', programPath('lib/telemetry/start.ts')] : []),
      ...(options.preload ?? []).flatMap((path) => ['--import', programPath(path)]),
      ...profileArguments(options.profile, name),
    ],
    stdio: ['ignore', output, output, 'ipc'],
  });
  closeSync(output);
  let closing = false;
  const metricsPorts: number[] = [];
  child.on('message', (message: { metricsPort?: number }) => {
    if (message.metricsPort !== undefined) metricsPorts.push(message.metricsPort);
  });
  const failure = new Promise<never>((_, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      if (!closing)
        reject(new Error(`${name} ended with ${signal ?? code}; the end of its log:\n${logTail(logFile, 12)}`));
    });
  });
  failure.catch(() => undefined);
  const close = async () => {
    closing = true;
    await endProcess(child, { withinMs: drainWithinMs });
  };
  try {
    const port = await Promise.race([
      failure,
      whenReady(child, () => `${name} was not ready:\n${logTail(logFile, 12)}`),
    ]);
    return { name, pid: child.pid ?? 0, port, metricsPorts, failure, close };
  } catch (error) {
    await close();
    throw error;
  }
}

function whenReady(child: ChildProcess, describe: () => string): Promise<number> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(describe())), readyWithinMs);
    child.on('message', (message) => {
      if (typeof message !== 'object' || message === null || !('ready' in message) || message.ready !== true) return;
      clearTimeout(timer);
      resolve('port' in message && typeof message.port === 'number' ? message.port : 0);
    });
  });
}

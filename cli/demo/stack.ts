/**
 * The stack that the demo streams into: one given by flags, else the one that runs on the data folder, else one that the
 * demo starts, and stops at its end. Where a local one is, `sluice up` says in its data folder (../stack-file.ts).
 */
import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { endProcess, logTail } from '../../lib/child-process.js';
import { UsageError } from '../../lib/errors.js';
import { makeFolder } from '../../lib/make-folder.js';
import { readSecret } from '../../lib/secret-file.js';
import { commandFile } from '../roles.js';
import { keyFileOf, type RunningStack, runningStack } from '../stack-file.js';

export interface StackAddress {
  /** http://host:port */
  readonly gateway: string;
  readonly key: string;
  /** http://host:port */
  readonly clickhouse: string;
  /** Of the local stack; undefined: the settings have it. */
  readonly clickhousePassword?: string | undefined;
}

export interface Stack extends StackAddress {
  /** Ends the stack when the demo started it. Never rejects. */
  stop(): Promise<void>;
}

export interface StackOptions {
  /** Data folder of `sluice up`. */
  readonly data: string;
  readonly url?: string | undefined;
  readonly key?: string | undefined;
  readonly clickhouseUrl?: string | undefined;
  readonly say: (line: string) => void;
  readonly signal: AbortSignal;
  /** The command that starts a stack; for tests. */
  readonly command?: readonly string[];
  readonly upWithinMs?: number;
}

/** A first start may install packages. */
const upWithinMs = 300_000;
const drainWithinMs = 30_000;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** @throws UsageError when flags are incomplete, or no stack can be started */
export async function findStack(options: StackOptions): Promise<Stack> {
  const { data, say } = options;
  const given = [options.url, options.key, options.clickhouseUrl].filter((value) => value !== undefined);
  if (given.length > 0) return givenStack(options);
  const running = await readyStack(data, 60_000, options.signal);
  if (running !== undefined) {
    say(`Using the stack that runs on ${data}: gateway ${running.gateway}, ClickHouse ${running.clickhouse}.`);
    return { ...running, stop: async () => undefined };
  }
  return startStack(options);
}

async function givenStack({ url, key, clickhouseUrl, data, say }: StackOptions): Promise<Stack> {
  const known = await readAddresses(data);
  const stack = {
    gateway: url ?? known?.gateway,
    key: key ?? (url === undefined ? known?.key : undefined),
    clickhouse: clickhouseUrl ?? (url === undefined ? known?.clickhouse : undefined),
  };
  const { gateway, key: chosenKey, clickhouse } = stack;
  if (gateway === undefined || chosenKey === undefined || clickhouse === undefined) {
    throw new UsageError('Give --url, --key and --clickhouse-url together, or none of them to use the local stack.');
  }
  if (!(await isReady(gateway))) {
    throw new UsageError(`The gateway at ${gateway} is not ready (GET ${gateway}/readyz). Start it, or correct --url.`);
  }
  say(`Using the given stack: gateway ${gateway}, ClickHouse ${clickhouse}.`);
  const password = clickhouseUrl === undefined ? known?.clickhousePassword : undefined;
  return { gateway, key: chosenKey, clickhouse, clickhousePassword: password, stop: async () => undefined };
}

/** Of the stack that runs on the folder, ready or not. */
async function readAddresses(data: string): Promise<StackAddress | undefined> {
  const stack = runningStack(data);
  const key = await readFile(keyFileOf(data), 'utf8').catch(() => '');
  return stack === undefined || key.trim() === ''
    ? undefined
    : { gateway: stack.gateway, clickhouse: stack.clickhouse, key: key.trim(), clickhousePassword: passwordOf(stack) };
}

const passwordOf = ({ clickhousePasswordFile: file }: RunningStack): string | undefined =>
  file === undefined ? undefined : readSecret(file, 'The data folder');

/** A stack that runs may be restarting its gateway just now. */
async function readyStack(data: string, withinMs: number, signal: AbortSignal): Promise<StackAddress | undefined> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    signal.throwIfAborted();
    const addresses = await readAddresses(data);
    if (addresses === undefined || (await isReady(addresses.gateway))) return addresses;
    if (performance.now() > deadline) {
      throw new UsageError(
        `A stack runs on ${data}, and its gateway ${addresses.gateway} is not ready (GET ${addresses.gateway}/readyz says why).`,
      );
    }
    await pause(200);
  }
}

async function isReady(gateway: string): Promise<boolean> {
  try {
    const answer = await fetch(`${gateway}/readyz`, { signal: AbortSignal.timeout(2_000) });
    await answer.arrayBuffer();
    return answer.ok;
  } catch {
    return false;
  }
}

async function startStack(options: StackOptions): Promise<Stack> {
  const { data, say, signal } = options;
  const [program, ...args] = options.command ?? [process.execPath, commandFile, 'up', '--data', data];
  const logFile = resolve(data, 'demo-up.log');
  makeFolder(data);
  say(`No stack runs on ${data}: starting one. Its log is in ${logFile}.`);
  const output = openSync(logFile, 'w', 0o600);
  // A group of its own: Ctrl-C in the terminal reaches the demo alone, which then lets the stack drain.
  const child = spawn(program as string, args, { stdio: ['ignore', output, output], detached: true });
  closeSync(output);
  let failure: string | undefined;
  child.once('error', (error) => {
    failure = error.message;
  });
  child.once('exit', (code, by) => {
    failure ??= `it ended with ${by ?? `exit code ${code}`}`;
  });
  const stop = (): Promise<void> => endProcess(child, { withinMs: drainWithinMs });
  const deadline = performance.now() + (options.upWithinMs ?? upWithinMs);
  try {
    for (;;) {
      signal.throwIfAborted();
      if (failure !== undefined) throw await notStarted(failure, logFile);
      const address = await readAddresses(data);
      if (address !== undefined && (await isReady(address.gateway))) {
        say(`The stack is up: gateway ${address.gateway}, ClickHouse ${address.clickhouse}.`);
        return { ...address, stop };
      }
      if (performance.now() > deadline) throw await notStarted('it was not ready in time', logFile);
      await pause(200);
    }
  } catch (error) {
    await stop();
    throw error;
  }
}

function notStarted(reason: string, logFile: string): UsageError {
  return new UsageError(
    `The stack could not be started: ${reason}. Try \`sluice doctor\`. The end of ${logFile}:\n${logTail(logFile, 5)}`,
  );
}

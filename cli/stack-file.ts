/**
 * `up.json` in the data folder: where the running stack is, for the commands that talk to it.
 */
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { StackConfig } from '../lib/config/index.js';

export interface RunningStack {
  /** Of `sluice up`. */
  readonly pid: number;
  /** `http://host:port`: gRPC, gRPC-Web, Connect, HTTP. */
  readonly gateway: string;
  readonly clickhouse: string;
  /** `host:port`. */
  readonly nats: string;
  /** Of /metrics, by process name. */
  readonly metrics: Readonly<Record<string, string>>;
  /** By process name. */
  readonly pids: Readonly<Record<string, number>>;
  readonly tenant: string;
}

const fileOf = (data: string): string => join(data, 'up.json');

/** File of the demo tenant's key, mode 0600. */
export const keyFileOf = (data: string): string => join(data, 'demo-key');

export const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
};

export function writeRunningStack(data: string, stack: RunningStack): void {
  writeFileSync(fileOf(data), `${JSON.stringify(stack, null, 2)}\n`);
}

export const removeRunningStack = (data: string): void => rmSync(fileOf(data), { force: true });

/** The stack that runs on this folder now; undefined when none does. */
export function runningStack(data: string): RunningStack | undefined {
  if (!existsSync(fileOf(data))) return undefined;
  try {
    const stack = JSON.parse(readFileSync(fileOf(data), 'utf8')) as RunningStack;
    return isAlive(stack.pid) ? stack : undefined;
  } catch {
    return undefined;
  }
}

/** A pid may have been given to another program since; a process that nobody has collected yet has no command line. */
function isOurs(pid: number): boolean {
  if (!isAlive(pid)) return false;
  try {
    return /gateway|workers|nats/.test(readFileSync(`/proc/${pid}/cmdline`, 'utf8'));
  } catch {
    // No /proc: the ports tell.
    return false;
  }
}

/** What is left of a stack on this folder whose supervisor is dead. */
export function survivors(data: string): { name: string; pid: number }[] {
  try {
    const stack = JSON.parse(readFileSync(fileOf(data), 'utf8')) as RunningStack;
    if (isAlive(stack.pid)) return [];
    return Object.entries(stack.pids)
      .map(([name, pid]) => ({ name, pid }))
      .filter(({ pid }) => pid > 0 && isOurs(pid));
  } catch {
    return [];
  }
}

/** Addresses for a command: as given, else of the running stack, else the defaults. */
export function addresses(config: StackConfig): { nats: string; clickhouse: string } {
  const stack = runningStack(config.data);
  return {
    nats: config.natsUrl || stack?.nats || '127.0.0.1:4222',
    clickhouse: config.clickhouseUrl || stack?.clickhouse || 'http://127.0.0.1:8123',
  };
}

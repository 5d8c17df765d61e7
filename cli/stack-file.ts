/**
 * `up.json` in the data folder: where the running stack is, for the commands that talk to it.
 */
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { type StackConfig, stackOptions } from '../lib/config/index.js';
import { UsageError } from '../lib/errors.js';
import { clickhousePassword, writeSecret } from '../lib/secret-file.js';
import { shellWord } from '../lib/terminal.js';

export interface RunningStack {
  /** Of `sluice up`. */
  readonly pid: number;
  /** `http://host:port`: gRPC, gRPC-Web, Connect, HTTP. */
  readonly gateway: string;
  readonly clickhouse: string;
  /** `host:port`. */
  readonly nats: string;
  /** Files that hold what both ask for; absent in the files of older versions. */
  readonly natsCredentials?: string;
  readonly clickhousePasswordFile?: string;
  /** Of /metrics, by process name. */
  readonly metrics: Readonly<Record<string, string>>;
  /** By process name. */
  readonly pids: Readonly<Record<string, number>>;
  readonly tenant: string;
}

const fileOf = (data: string): string => join(data, 'up.json');

/** File of the demo tenant's key, mode 0600. */
export const keyFileOf = (data: string): string => join(data, 'demo-key');

/** Files of what nats-server and ClickHouse of the stack ask for, mode 0600. Removed, they are made again by the next start. */
export const natsCredentialsOf = (data: string): string => join(data, 'nats-credentials');
export const clickhousePasswordOf = (data: string): string => join(data, 'clickhouse-password');

export const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
};

/** At once, as commands read it at any time. */
export function writeRunningStack(data: string, stack: RunningStack): void {
  writeSecret(fileOf(data), `${JSON.stringify(stack, null, 2)}\n`);
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

/** A pid may have been given to another program since; a process that was not collected yet has no command line. */
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

export interface StackAddresses {
  readonly nats: string;
  /** A file; empty: none. */
  readonly natsCredentials: string;
  readonly clickhouse: string;
  /** A file; empty: the settings give the password, or there is none. */
  readonly clickhousePasswordFile: string;
  /** By either. */
  readonly clickhousePassword: string;
}

/**
 * Addresses for a command: as given, else of the running stack, else the defaults. A folder that was named and on which no stack runs
 * has none: the defaults would be those of another installation. Secrets of the running stack go to its addresses alone.
 * @throws UsageError when an address is read that is not known, or a password that cannot be
 */
export function addresses(config: StackConfig): StackAddresses {
  const { data } = config;
  const stack = runningStack(data);
  const otherwise = (flag: string, usual: string): string => {
    if (data === stackOptions.data.default) return usual;
    throw new UsageError(
      `No stack runs on the folder ${data}: check --data, start it with \`npm start -- --data ${shellWord(data)}\`, or give ${flag}.`,
    );
  };
  return {
    get nats() {
      return config.natsUrl || stack?.nats || otherwise('--nats-url', '127.0.0.1:4222');
    },
    get natsCredentials() {
      return config.natsCredentials || (config.natsUrl === '' ? (stack?.natsCredentials ?? '') : '');
    },
    get clickhouse() {
      return config.clickhouseUrl || stack?.clickhouse || otherwise('--clickhouse-url', 'http://127.0.0.1:8123');
    },
    get clickhousePasswordFile() {
      const own = config.clickhouseUrl === '' && config.clickhousePassword === '';
      return config.clickhousePasswordFile || (own ? (stack?.clickhousePasswordFile ?? '') : '');
    },
    get clickhousePassword() {
      return clickhousePassword({ ...config, clickhousePasswordFile: this.clickhousePasswordFile });
    },
  };
}

/** Runs a command of the workers as a process, to its end. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { testEnvironment } from '../../lib/config/index.js';
import { programFlags, programPath } from '../../lib/testing/program.js';

export interface CommandAddresses {
  readonly natsUrl: string;
  readonly clickhouseUrl: string;
  readonly database: string;
}

export interface CommandEnd {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** @param main the command's file from workers/, as ledger/audit-main.ts */
export async function runCommand(
  main: string,
  addresses: CommandAddresses,
  args: readonly string[],
): Promise<CommandEnd> {
  const { natsUrl, clickhouseUrl, database } = addresses;
  const flags = ['--nats-url', natsUrl, '--clickhouse-url', clickhouseUrl, '--clickhouse-database', database];
  const child = spawn(process.execPath, [...programFlags, programPath(`workers/${main}`), ...flags, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: testEnvironment(),
  });
  let [out, err] = ['', ''];
  child.stdout.on('data', (chunk) => {
    out += String(chunk);
  });
  child.stderr.on('data', (chunk) => {
    err += String(chunk);
  });
  const [code] = await once(child, 'close');
  return { code: code as number, out, err };
}

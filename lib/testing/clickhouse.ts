/**
 * The embedded ClickHouse for one test, as the process it is: free port, own folder, gone at the end.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gone } from '../child-process.js';
import { freePort } from './nats.js';
import { programFlags, programPath } from './program.js';

export interface TestClickHouse {
  /** `http://127.0.0.1:<port>`. */
  readonly url: string;
  /** The process: for SIGKILL, SIGSTOP. */
  process(): ChildProcess;
  /** Starts it again on the same port and data after a kill. */
  restart(): Promise<void>;
}

const root = fileURLToPath(new URL('../..', import.meta.url));

function started(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    let text = '';
    child.stderr?.on('data', (chunk) => {
      text = (text + String(chunk)).slice(-4000);
    });
    child.once('message', () => resolve());
    child.once('exit', (code) =>
      reject(new Error(`the embedded ClickHouse exited with ${code} before it was ready: ${text}`)),
    );
  });
}

/**
 * Runs `use` with a server, and ends the server, also after an error.
 * @param parent where its folder is made
 * @param flags more of them
 */
export async function withClickHouse<T>(
  use: (clickhouse: TestClickHouse) => Promise<T>,
  parent = tmpdir(),
  flags: readonly string[] = [],
): Promise<T> {
  const port = await freePort();
  const folder = await mkdtemp(join(parent, 'sluice-clickhouse-'));
  const start = (): ChildProcess =>
    spawn(
      process.execPath,
      [
        ...programFlags,
        programPath('workers/embedded/main.ts'),
        ...['--clickhouse-port', String(port), '--clickhouse-data', folder, ...flags],
      ],
      { cwd: root, stdio: ['ignore', 'ignore', 'pipe', 'ipc'] },
    );
  let child = start();
  try {
    await started(child);
    return await use({
      url: `http://127.0.0.1:${port}`,
      process: () => child,
      restart: async () => {
        await gone(child);
        child = start();
        await started(child);
      },
    });
  } finally {
    child.kill('SIGKILL');
    await gone(child);
    await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

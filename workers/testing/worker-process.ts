/**
 * A worker as its own process, for tests that kill it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { variableOf } from '../../lib/config/index.js';
import { programFlags, programPath } from '../../lib/testing/program.js';

const main = programPath('workers/main.ts');

export interface WorkerProcess {
  readonly child: ChildProcess;
  /** What it logged so far. */
  readonly output: () => string;
  /** Resolves with the exit code, null after a signal. */
  readonly exited: Promise<number | null>;
}

/**
 * Starts a worker; `settings` by option name. Resolves when it is ready unless `ready` is false; rejects when it ends
 * before.
 */
export async function startWorkerProcess(
  settings: Readonly<Record<string, string | number>>,
  ready = true,
): Promise<WorkerProcess> {
  const variables = Object.entries({ logLevel: 'info', metricsPort: 0, ...settings }).map(([name, value]) => [
    variableOf(name),
    String(value),
  ]);
  const child = spawn(process.execPath, [...programFlags, main], {
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    env: { ...process.env, OTEL_SDK_DISABLED: 'true', ...Object.fromEntries(variables) },
  });
  let output = '';
  child.stderr?.on('data', (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-200_000);
  });
  const exited = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)));
  if (ready) {
    await new Promise<void>((resolve, reject) => {
      child.once('message', () => resolve());
      void exited.then((code) => reject(new Error(`the worker exited with ${code} before it was ready:\n${output}`)));
    });
  }
  return { child, output: () => output, exited };
}

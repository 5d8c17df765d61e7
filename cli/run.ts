/**
 * Runs one of the project's programs in the foreground: its output is ours, signals go to it, its exit code comes back.
 */
import { spawn } from 'node:child_process';
import { type Entry, nodeArguments, nodeEnvironment } from './roles.js';

const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** @returns the exit code; 128 + n after signal n, as shells do */
export function run(entry: Entry, flags: readonly string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    // A group of its own: a Ctrl-C in the terminal would otherwise arrive twice, once from here.
    const child = spawn(process.execPath, nodeArguments(entry, flags), {
      stdio: ['inherit', 'inherit', 'inherit', 'ipc'],
      detached: true,
      env: nodeEnvironment(entry),
    });
    const forward = (signal: NodeJS.Signals): void => {
      child.kill(signal);
    };
    for (const signal of signals) process.on(signal, forward);
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      for (const name of signals) process.off(name, forward);
      resolve(code ?? (signal === 'SIGINT' ? 130 : signal === 'SIGTERM' ? 143 : 137));
    });
  });
}

/**
 * Ends child processes.
 */
import type { ChildProcess } from 'node:child_process';
import { readFileSync } from 'node:fs';

/** Resolves when the process has ended, or was never started. */
export function gone(child: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return resolve();
    child.once('exit', () => resolve());
  });
}

export interface EndOptions {
  /** How long it may take to end before it is killed, ms. */
  readonly withinMs: number;
  /** Asks it to end. @default SIGTERM */
  readonly ask?: () => void;
  /** @default SIGKILL */
  readonly kill?: () => void;
}

/** Asks a process to end, and kills it when it does not. Resolves when it has ended. */
export async function endProcess(child: ChildProcess, options: EndOptions): Promise<void> {
  const { withinMs, ask = () => child.kill('SIGTERM'), kill = () => child.kill('SIGKILL') } = options;
  const end = gone(child);
  const killer = setTimeout(kill, withinMs);
  ask();
  await end;
  clearTimeout(killer);
}

/** The last lines of a log file; '' when it cannot be read. */
export function logTail(file: string, lines: number): string {
  try {
    return readFileSync(file, 'utf8').trimEnd().split('\n').slice(-lines).join('\n');
  } catch {
    return '';
  }
}

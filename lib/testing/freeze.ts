/**
 * Freezes a process, and waits until it stands still.
 *
 * `kill` returns before the signal has reached every thread: a server with many threads may still answer what is sent at that
 * moment, and a test that counts on its silence then fails by chance.
 */
import type { ChildProcess } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';

const patienceMs = 5_000;

/** Undo it with SIGCONT. @throws Error when the process is not frozen within 5 s */
export async function freeze(child: ChildProcess): Promise<void> {
  child.kill('SIGSTOP');
  const until = Date.now() + patienceMs;
  // Where there is no /proc, a signal is trusted to have arrived.
  while (existsSync('/proc/self/task') && !isFrozen(child.pid)) {
    if (Date.now() > until) throw new Error(`process ${child.pid} did not stop within ${patienceMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
}

/** Whether every thread of a process is stopped by a signal; false when it is gone, or where there is no /proc. */
export function isFrozen(pid: number | undefined): boolean {
  const tasks = `/proc/${pid}/task`;
  try {
    return readdirSync(tasks).every((task) => {
      const stat = readFileSync(`${tasks}/${task}/stat`, 'utf8');
      // The name in brackets may hold anything; the state follows it. T: stopped by a signal.
      return stat.slice(stat.lastIndexOf(')') + 2).startsWith('T');
    });
  } catch {
    return false;
  }
}

/**
 * One supervised process: started, watched, started again when it dies, ended when asked.
 *
 * States: starting → running → (dead → starting)… → ending → ended. `ending` is never left again.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, renameSync, statSync } from 'node:fs';
import { backOff } from '../../lib/back-off.js';

export interface ChildOptions {
  readonly name: string;
  /** Arguments to node. */
  readonly args: readonly string[];
  /** Standard output and error go there; a file of over 16 MiB is moved to `.old` at a start. */
  readonly logFile: string;
  /**
   * Resolves when the process serves; gives up when the signal says that the process has ended. Without it, a message
   * `{ready: true}` from the process says so.
   */
  readonly probe?: (ended: AbortSignal) => Promise<void>;
  /** @default this process's environment */
  readonly env?: NodeJS.ProcessEnv | undefined;
  /** How long it may take to get ready, ms. */
  readonly readyWithinMs: number;
  /**
   * The stack is of use without it: when it is not ready in time, or says that it waits for an operator, `ready` resolves and
   * it goes on by itself. @default false: `ready` rejects
   */
  readonly mayWait?: boolean;
  /** How long it may take to end after SIGTERM, ms; then it is killed. */
  readonly endWithinMs: number;
  /** Something happened that the user should see. */
  readonly say: (line: string) => void;
  /** It got ready, the first time or again. */
  readonly onReady?: () => void;
}

export interface SupervisedChild {
  readonly name: string;
  /** Of the program itself; undefined while there is none. */
  readonly pid: number | undefined;
  /** Resolves when ready for the first time, or when it may wait and does. Rejects when it cannot even start once. */
  readonly ready: Promise<void>;
  /** It was ready at least once. */
  readonly wasReady: boolean;
  end(): Promise<void>;
  /** Now, without asking. */
  kill(): void;
}

const maxLogBytes = 16 * 1024 ** 2;
/** Before a process is started again. */
const waits = { first: 250, last: 10_000 };
/** A process that lived this long starts again with the shortest wait, ms. */
const settledAfterMs = 30_000;

export function supervise(options: ChildOptions): SupervisedChild {
  let child: ChildProcess | undefined;
  let programPid: number | undefined;
  let ending = false;
  let failures = 0;
  let everReady = false;
  /** The stack went on without it. */
  let awaited = true;
  let timer: NodeJS.Timeout | undefined;
  let markReady: () => void = () => {};
  let markFailed: (error: Error) => void = () => {};
  const ready = new Promise<void>((resolve, reject) => {
    markReady = resolve;
    markFailed = reject;
  });
  ready.catch(() => {});

  const tail = (): string => {
    try {
      return readFileSync(options.logFile, 'utf8').trimEnd().split('\n').slice(-5).join('\n');
    } catch {
      return '';
    }
  };

  function start(): void {
    if (existsSync(options.logFile) && statSync(options.logFile).size > maxLogBytes) {
      renameSync(options.logFile, `${options.logFile}.old`);
    }
    const output = openSync(options.logFile, 'a');
    // A process group of its own: Ctrl-C reaches the supervisor alone, which ends the others in the right order.
    const started = spawn(process.execPath, [...options.args], {
      detached: true,
      env: options.env,
      stdio: ['ignore', output, output, 'ipc'],
    });
    closeSync(output);
    child = started;
    programPid = started.pid;
    const since = Date.now();
    const life = new AbortController();

    const isReady = (): void => {
      if (child !== started || ending) return;
      clearTimeout(overdue);
      if (everReady || !awaited) options.say(`${options.name} is ${everReady ? 'back' : 'ready now'}`);
      everReady = true;
      markReady();
      options.onReady?.();
    };
    const overdue = setTimeout(() => {
      options.say(`${options.name} is not ready after ${options.readyWithinMs / 1000} s; its log: ${options.logFile}`);
      if (everReady || !awaited) return;
      if (options.mayWait === true) goOn(`the rest runs; the end of its log:\n${tail()}`);
      else markFailed(new Error(`${options.name} did not get ready; the end of its log:\n${tail()}`));
    }, options.readyWithinMs);
    const goOn = (why: string): void => {
      options.say(`${options.name} waits, and starts by itself when it can: ${why}`);
      awaited = false;
      markReady();
    };
    started.on('message', (message: { ready?: boolean; pid?: number; waits?: string }) => {
      if (typeof message.pid === 'number') programPid = message.pid;
      if (typeof message.waits === 'string' && options.mayWait === true && !ending) goOn(message.waits);
      if (message.ready === true && options.probe === undefined) isReady();
    });
    options.probe?.(life.signal).then(isReady, () => {});

    started.once('error', (error) => {
      clearTimeout(overdue);
      life.abort();
      markFailed(error);
    });
    started.once('exit', (code, signal) => {
      clearTimeout(overdue);
      life.abort();
      if (child === started) {
        child = undefined;
        programPid = undefined;
      }
      if (ending) return;
      if (!everReady && awaited) {
        markFailed(new Error(`${options.name} ended with ${signal ?? `code ${code}`} at its start:\n${tail()}`));
        return;
      }
      if (Date.now() - since > settledAfterMs) failures = 0;
      const waitMs = backOff(waits, ++failures);
      options.say(`${options.name} ended with ${signal ?? `code ${code}`}; starting it again in ${waitMs} ms`);
      timer = setTimeout(start, waitMs);
    });
  }

  start();
  return {
    name: options.name,
    get pid() {
      return programPid;
    },
    ready,
    get wasReady() {
      return everReady;
    },
    async end() {
      ending = true;
      clearTimeout(timer);
      const last = child;
      if (last === undefined || last.exitCode !== null || last.signalCode !== null) return;
      await new Promise<void>((resolve) => {
        const overdue = setTimeout(() => {
          options.say(`${options.name} does not end; killing it`);
          if (programPid !== undefined && programPid !== last.pid) process.kill(programPid, 'SIGKILL');
          last.kill('SIGKILL');
        }, options.endWithinMs);
        last.once('exit', () => {
          clearTimeout(overdue);
          resolve();
        });
        last.kill('SIGTERM');
      });
    },
    kill() {
      ending = true;
      clearTimeout(timer);
      if (programPid !== undefined && child !== undefined) {
        try {
          process.kill(programPid, 'SIGKILL');
        } catch {
          // Gone already.
        }
      }
      child?.kill('SIGKILL');
    },
  };
}

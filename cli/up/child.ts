/**
 * One supervised process: started, watched, started again when it dies, ended when asked.
 *
 * Phases: running → (waiting → running)… → ending. `ending` is never left again, nor is `failed`, after a first start that failed.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, existsSync, openSync, renameSync, statSync } from 'node:fs';
import { backOff } from '../../lib/back-off.js';
import { endProcess, logTail } from '../../lib/child-process.js';
import { MiB } from '../../lib/units.js';

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

const maxLogBytes = 16 * MiB;
/** Before a process is started again. */
const waits = { first: 250, last: 10_000 };
/** A process that lived this long starts again with the shortest wait, ms. */
const settledAfterMs = 30_000;

/** One process of a child, from its start to its end. */
interface Run {
  readonly process: ChildProcess;
  /** Of the program itself; undefined: it could not be started, or has ended. */
  pid: number | undefined;
}

type Phase =
  | { readonly kind: 'running'; readonly run: Run }
  /** Between an end and the next start. */
  | { readonly kind: 'waiting'; readonly timer: NodeJS.Timeout }
  /** It could not start once. */
  | { readonly kind: 'failed' }
  | { readonly kind: 'ending'; readonly run: Run | undefined };

/** What the stack makes of a child: waits for its first readiness, went on without it, or has seen it ready. */
type Standing = 'awaited' | 'left behind' | 'proven';

export function supervise(options: ChildOptions): SupervisedChild {
  const { name, say } = options;
  let failures = 0;
  let standing: Standing = 'awaited';
  const ready = firstReadiness();

  const goOn = (why: string): void => {
    say(`${name} waits, and starts by itself when it can: ${why}`);
    if (standing === 'awaited') standing = 'left behind';
    ready.resolve();
  };
  const isEnding = (): boolean => phase.kind === 'ending';

  const start = (): Phase => {
    const since = Date.now();
    const run = startRun(options, {
      onReady() {
        if (isEnding()) return;
        if (standing !== 'awaited') say(`${name} is ${standing === 'proven' ? 'back' : 'ready now'}`);
        standing = 'proven';
        ready.resolve();
        options.onReady?.();
      },
      onOverdue() {
        say(`${name} is not ready after ${options.readyWithinMs / 1000} s; its log: ${options.logFile}`);
        if (standing !== 'awaited') return;
        const end = `the end of its log:\n${logTail(options.logFile, 5)}`;
        if (options.mayWait === true) goOn(`the rest runs; ${end}`);
        else ready.reject(new Error(`${name} did not get ready; ${end}`));
      },
      onWaits(why) {
        if (options.mayWait === true && !isEnding()) goOn(why);
      },
      onError: (error) => ready.reject(error),
      onExit(how) {
        if (phase.kind === 'ending') {
          phase = { kind: 'ending', run: undefined };
          return;
        }
        if (standing === 'awaited') {
          phase = { kind: 'failed' };
          ready.reject(new Error(`${name} ended with ${how} at its start:\n${logTail(options.logFile, 5)}`));
          return;
        }
        if (Date.now() - since > settledAfterMs) failures = 0;
        const waitMs = backOff(waits, ++failures);
        say(`${name} ended with ${how}; starting it again in ${waitMs} ms`);
        const timer = setTimeout(() => {
          phase = start();
        }, waitMs);
        phase = { kind: 'waiting', timer };
      },
    });
    return { kind: 'running', run };
  };
  const current = (): Run | undefined => ('run' in phase ? phase.run : undefined);
  /** Not started again. @returns its process, when there is one */
  const last = (): Run | undefined => {
    if (phase.kind === 'waiting') clearTimeout(phase.timer);
    const run = current();
    phase = { kind: 'ending', run };
    return run;
  };

  let phase: Phase = start();
  return {
    name,
    get pid() {
      return current()?.pid;
    },
    ready: ready.promise,
    get wasReady() {
      return standing === 'proven';
    },
    async end() {
      const run = last();
      if (run !== undefined) await ended(run, options);
    },
    kill() {
      const run = last();
      if (run !== undefined) killNow(run);
    },
  };
}

interface RunEvents {
  onReady(): void;
  onOverdue(): void;
  /** It says that it waits for an operator, and why. */
  onWaits(why: string): void;
  onError(error: Error): void;
  /** @param how exit code or signal */
  onExit(how: string): void;
}

/** Starts a process. All calls come later. */
function startRun(options: ChildOptions, events: RunEvents): Run {
  if (existsSync(options.logFile) && statSync(options.logFile).size > maxLogBytes) {
    renameSync(options.logFile, `${options.logFile}.old`);
  }
  const output = openSync(options.logFile, 'a');
  // `detached` gives the process its own group. So Ctrl-C reaches only the supervisor, which ends the others in the right order.
  const started = spawn(process.execPath, [...options.args], {
    detached: true,
    env: options.env,
    stdio: ['ignore', output, output, 'ipc'],
  });
  closeSync(output);
  const run: Run = { process: started, pid: started.pid };
  const life = new AbortController();
  const overdue = setTimeout(events.onOverdue, options.readyWithinMs);
  const isOver = (): void => {
    clearTimeout(overdue);
    life.abort();
  };
  const isReady = (): void => {
    if (life.signal.aborted) return;
    clearTimeout(overdue);
    events.onReady();
  };
  started.on('message', (message: { ready?: boolean; pid?: number; waits?: string }) => {
    if (typeof message.pid === 'number') run.pid = message.pid;
    if (typeof message.waits === 'string') events.onWaits(message.waits);
    if (message.ready === true && options.probe === undefined) isReady();
  });
  options.probe?.(life.signal).then(isReady, () => {});
  started.once('error', (error) => {
    isOver();
    events.onError(error);
  });
  started.once('exit', (code, signal) => {
    isOver();
    run.pid = undefined;
    events.onExit(signal ?? `code ${code}`);
  });
  return run;
}

/** A promise that is settled from outside, and whose rejection needs no one to listen. */
function firstReadiness(): { promise: Promise<void>; resolve: () => void; reject: (error: Error) => void } {
  let resolve: () => void = () => {};
  let reject: (error: Error) => void = () => {};
  const promise = new Promise<void>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  promise.catch(() => {});
  return { promise, resolve, reject };
}

/** Asks a process to end, and kills it when it does not in time. Resolves when it has ended. */
async function ended(run: Run, { name, endWithinMs, say }: ChildOptions): Promise<void> {
  const last = run.process;
  await endProcess(last, {
    withinMs: endWithinMs,
    kill: () => {
      say(`${name} does not end; killing it`);
      if (run.pid !== undefined && run.pid !== last.pid) process.kill(run.pid, 'SIGKILL');
      last.kill('SIGKILL');
    },
  });
}

function killNow(run: Run): void {
  if (run.pid !== undefined) {
    try {
      process.kill(run.pid, 'SIGKILL');
    } catch {
      // Gone already.
    }
  }
  run.process.kill('SIGKILL');
}

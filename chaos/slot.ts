/**
 * A place for one process of a role: started, watched, started again at once when it dies, however it died.
 *
 *   SLOT-1  A slot ends every process that it started, by process id, also after an error.
 *   SLOT-2  A death is `killed` when the harness killed it, `failpoint` when the process had an armed failpoint and killed itself, `ended` when it
 *       was asked to (SIGTERM); all else is `crashed`, which is counted and told.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { backOff } from '../lib/back-off.js';

export type Role = 'client' | 'gateway' | 'worker' | 'clickhouse' | 'nats';

export interface Launch {
  /** Arguments to node. */
  readonly args: readonly string[];
  /** Failpoint that is armed, with its count. */
  readonly failpoint?: string | undefined;
}

export interface SlotOptions {
  readonly name: string;
  readonly role: Role;
  readonly cwd: string;
  readonly env: Readonly<Record<string, string>>;
  /** Everything that its processes print, one after the other. */
  readonly logFile: string;
  /** Asked at each start. */
  readonly launch: () => Launch;
  /** Says when it serves; without it a message `{ready: true}` does. Gives up when `life` ends. */
  readonly probe?: (life: AbortSignal) => Promise<void>;
  /** A start that takes longer has failed: the process is killed and another one started, ms. @default never */
  readonly readyWithinMs?: number;
  readonly onMessage?: (message: unknown) => void;
  readonly onDeath: (death: Death) => void;
}

export interface Death {
  readonly slot: Slot;
  readonly how: 'killed' | 'failpoint' | 'ended' | 'crashed';
  readonly failpoint: string | undefined;
  /** Date.now(). */
  readonly at: number;
  /** Of a crash: exit code or signal, and the end of the log. */
  readonly detail: string;
}

export interface Slot {
  readonly name: string;
  readonly role: Role;
  readonly pid: number | undefined;
  /** Serving, as far as is known. */
  readonly ready: boolean;
  readonly paused: boolean;
  /** Port that it told; 0: none. */
  readonly port: number;
  /** Armed now. */
  readonly failpoint: string | undefined;
  /** Date.now() of the last start. */
  readonly startedAt: number;
  /** Resolves when a process of this slot serves; false when the slot is closed before. */
  whenReady(): Promise<boolean>;
  /** SIGKILL. False when there is no process to kill. */
  kill(): boolean;
  /** SIGTERM; it is started again. */
  term(): void;
  pause(): void;
  resume(): void;
  /** The last: SIGTERM, then SIGKILL after `withinMs`. Not started again. */
  close(withinMs: number): Promise<void>;
}

/** Between a death and the next start; doubles while processes do not even get ready. */
const waits = { first: 20, last: 2_000 };

export function startSlot(options: SlotOptions): Slot {
  const { name, role } = options;
  let child: ChildProcess | undefined;
  let pid: number | undefined;
  let port = 0;
  let ready = false;
  let paused = false;
  let closing = false;
  let reason: 'killed' | 'ended' | undefined;
  let failpoint: string | undefined;
  let startedAt = 0;
  let failures = 0;
  let timer: NodeJS.Timeout | undefined;
  const waiters: ((served: boolean) => void)[] = [];

  const signal = (what: NodeJS.Signals): boolean => {
    if (child === undefined || pid === undefined) return false;
    try {
      process.kill(pid, what);
      return true;
    } catch {
      return false;
    }
  };

  const start = (): void => {
    const launch = options.launch();
    failpoint = launch.failpoint;
    reason = undefined;
    startedAt = Date.now();
    const output = openSync(options.logFile, 'a');
    const started = spawn(process.execPath, [...launch.args], {
      cwd: options.cwd,
      env: options.env,
      stdio: ['ignore', output, output, 'ipc'],
    });
    closeSync(output);
    child = started;
    pid = started.pid;
    const life = new AbortController();
    const isReady = (): void => {
      if (child !== started || ready) return;
      clearTimeout(overdue);
      ready = true;
      failures = 0;
      for (const waiter of waiters.splice(0)) waiter(true);
    };
    const overdue =
      options.readyWithinMs === undefined ? undefined : setTimeout(() => signal('SIGKILL'), options.readyWithinMs);
    started.on('message', (message: { ready?: boolean; port?: number; pid?: number }) => {
      if (typeof message.pid === 'number') pid = message.pid;
      if (typeof message.port === 'number') port = message.port;
      if (message.ready === true && options.probe === undefined) isReady();
      options.onMessage?.(message);
    });
    options.probe?.(life.signal).then(isReady, () => {});
    started.once('error', () => {});
    started.once('exit', (code, by) => {
      clearTimeout(overdue);
      life.abort();
      const wasReady = ready;
      child = undefined;
      pid = undefined;
      ready = false;
      paused = false;
      const how = reason ?? (failpoint !== undefined && by === 'SIGKILL' ? 'failpoint' : 'crashed');
      if (closing) return;
      options.onDeath({
        slot,
        how: how === 'ended' && failpoint !== undefined && by === 'SIGKILL' ? 'failpoint' : how,
        failpoint,
        at: Date.now(),
        detail: how === 'crashed' ? `${by ?? `code ${code}`}; ${tail(options.logFile)}` : '',
      });
      if (!wasReady) failures++;
      timer = setTimeout(start, backOff(waits, failures + 1));
    });
  };

  const slot: Slot = {
    name,
    role,
    get pid() {
      return pid;
    },
    get ready() {
      return ready;
    },
    get paused() {
      return paused;
    },
    get port() {
      return port;
    },
    get failpoint() {
      return failpoint;
    },
    get startedAt() {
      return startedAt;
    },
    whenReady() {
      if (ready) return Promise.resolve(true);
      if (closing) return Promise.resolve(false);
      return new Promise((resolve) => waiters.push(resolve));
    },
    kill() {
      if (reason === 'killed') return false;
      const before = reason;
      reason = 'killed';
      if (signal('SIGKILL')) return true;
      reason = before;
      return false;
    },
    term() {
      reason ??= 'ended';
      signal('SIGTERM');
    },
    pause() {
      if (signal('SIGSTOP')) paused = true;
    },
    resume() {
      paused = false;
      signal('SIGCONT');
    },
    async close(withinMs) {
      closing = true;
      clearTimeout(timer);
      for (const waiter of waiters.splice(0)) waiter(false);
      const dying = child;
      if (dying === undefined) return;
      await new Promise<void>((resolve) => {
        const overdue = setTimeout(() => {
          signal('SIGKILL');
          dying.kill('SIGKILL');
        }, withinMs);
        dying.once('exit', () => {
          clearTimeout(overdue);
          resolve();
        });
        signal('SIGCONT');
        signal('SIGTERM');
      });
    },
  };
  start();
  return slot;
}

function tail(file: string): string {
  try {
    return readFileSync(file, 'utf8').trimEnd().split('\n').slice(-4).join('\n').slice(-2_000);
  } catch {
    return '';
  }
}

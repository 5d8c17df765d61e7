/**
 * A place for one process of a role: started, watched, started again at once when it dies, however it died.
 *
 *   SLOT-1  A slot ends every process that it started, by process id, also after an error.
 *   SLOT-2  A death is `killed` when the harness killed it, `failpoint` when the process had an armed failpoint and killed itself, `ended` when it
 *       was asked to (SIGTERM); all else is `crashed`, which is counted and told.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { backOff } from '../lib/back-off.js';
import { endProcess, logTail } from '../lib/child-process.js';

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
  readonly slot: ProcessSlot;
  readonly how: 'killed' | 'failpoint' | 'ended' | 'crashed';
  readonly failpoint: string | undefined;
  /** Date.now(). */
  readonly at: number;
  /** Of a crash: exit code or signal, and the end of the log. */
  readonly detail: string;
}

export interface ProcessSlot {
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

/** One process of a slot. */
interface Life {
  readonly child: ChildProcess;
  /** Of the program itself; undefined: it could not be started. */
  pid: number | undefined;
  ready: boolean;
  paused: boolean;
  /** Why it will die, when the harness has asked for it. */
  reason: 'killed' | 'ended' | undefined;
}

type Phase =
  | { readonly kind: 'living'; readonly life: Life }
  /** Between a death and the next start. */
  | { readonly kind: 'waiting'; readonly timer: NodeJS.Timeout }
  /** The last: until its process, when there is one, has ended. */
  | { readonly kind: 'closing'; readonly life: Life | undefined }
  | { readonly kind: 'closed' };

export function startSlot(options: SlotOptions): ProcessSlot {
  const { name, role } = options;
  let port = 0;
  let failpoint: string | undefined;
  let startedAt = 0;
  let failures = 0;
  const waiters: ((served: boolean) => void)[] = [];
  const answer = (served: boolean): void => {
    for (const waiter of waiters.splice(0)) waiter(served);
  };

  const start = (): Phase => {
    const launch = options.launch();
    failpoint = launch.failpoint;
    startedAt = Date.now();
    const life = startLife(options, launch.args, {
      onReady() {
        failures = 0;
        answer(true);
      },
      onPort(told) {
        port = told;
      },
      onExit(died, code, by) {
        if (phase.kind === 'closing') {
          phase = { kind: 'closed' };
          return;
        }
        if (!died.ready) failures++;
        const timer = setTimeout(
          () => {
            phase = start();
          },
          backOff(waits, failures + 1),
        );
        phase = { kind: 'waiting', timer };
        const how = howItDied(died.reason, failpoint, by);
        const detail = how === 'crashed' ? `${by ?? `code ${code}`}; ${logTail(options.logFile, 4).slice(-2_000)}` : '';
        options.onDeath({ slot, how, failpoint, at: Date.now(), detail });
      },
    });
    return { kind: 'living', life };
  };
  const life = (): Life | undefined => ('life' in phase ? phase.life : undefined);

  const slot: ProcessSlot = {
    name,
    role,
    get pid() {
      return life()?.pid;
    },
    get ready() {
      return life()?.ready === true;
    },
    get paused() {
      return life()?.paused === true;
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
      if (slot.ready) return Promise.resolve(true);
      if (phase.kind === 'closing' || phase.kind === 'closed') return Promise.resolve(false);
      return new Promise((resolve) => waiters.push(resolve));
    },
    kill: () => kill(life()),
    term: () => term(life()),
    pause: () => pause(life()),
    resume: () => resume(life()),
    async close(withinMs) {
      if (phase.kind === 'waiting') clearTimeout(phase.timer);
      const last = life();
      phase = last === undefined ? { kind: 'closed' } : { kind: 'closing', life: last };
      answer(false);
      if (last !== undefined) await ended(last, withinMs);
    },
  };
  let phase: Phase = start();
  return slot;
}

interface LifeEvents {
  onReady(): void;
  /** It listens on this port. */
  onPort(port: number): void;
  onExit(life: Life, code: number | null, by: NodeJS.Signals | null): void;
}

/** Starts a process of a slot. All calls come later. */
function startLife(options: SlotOptions, args: readonly string[], events: LifeEvents): Life {
  const output = openSync(options.logFile, 'a');
  const child = spawn(process.execPath, [...args], {
    cwd: options.cwd,
    env: options.env,
    stdio: ['ignore', output, output, 'ipc'],
  });
  closeSync(output);
  const life: Life = { child, pid: child.pid, ready: false, paused: false, reason: undefined };
  const over = new AbortController();
  const overdue =
    options.readyWithinMs === undefined ? undefined : setTimeout(() => signal(life, 'SIGKILL'), options.readyWithinMs);
  const isReady = (): void => {
    if (over.signal.aborted || life.ready) return;
    clearTimeout(overdue);
    life.ready = true;
    events.onReady();
  };
  child.on('message', (message: { ready?: boolean; port?: number; pid?: number }) => {
    if (typeof message.pid === 'number') life.pid = message.pid;
    if (typeof message.port === 'number') events.onPort(message.port);
    if (message.ready === true && options.probe === undefined) isReady();
    options.onMessage?.(message);
  });
  options.probe?.(over.signal).then(isReady, () => {});
  child.once('error', () => {});
  child.once('exit', (code, by) => {
    clearTimeout(overdue);
    over.abort();
    events.onExit(life, code, by);
  });
  return life;
}

/** SLOT-2 */
function howItDied(reason: Life['reason'], failpoint: string | undefined, by: NodeJS.Signals | null): Death['how'] {
  const bySelf = failpoint !== undefined && by === 'SIGKILL';
  if (reason === 'ended') return bySelf ? 'failpoint' : 'ended';
  return reason ?? (bySelf ? 'failpoint' : 'crashed');
}

function signal(life: Life | undefined, what: NodeJS.Signals): boolean {
  if (life?.pid === undefined) return false;
  try {
    process.kill(life.pid, what);
    return true;
  } catch {
    return false;
  }
}

function kill(life: Life | undefined): boolean {
  if (life === undefined || life.reason === 'killed' || !signal(life, 'SIGKILL')) return false;
  life.reason = 'killed';
  return true;
}

function term(life: Life | undefined): void {
  if (life === undefined) return;
  life.reason ??= 'ended';
  signal(life, 'SIGTERM');
}

function pause(life: Life | undefined): void {
  if (life !== undefined && signal(life, 'SIGSTOP')) life.paused = true;
}

function resume(life: Life | undefined): void {
  if (life === undefined) return;
  life.paused = false;
  signal(life, 'SIGCONT');
}

/** Asks a process to end, and kills it when it does not in time. Resolves when it has ended. */
const ended = (life: Life, withinMs: number): Promise<void> =>
  endProcess(life.child, {
    withinMs,
    ask: () => {
      signal(life, 'SIGCONT');
      signal(life, 'SIGTERM');
    },
    kill: () => {
      signal(life, 'SIGKILL');
      life.child.kill('SIGKILL');
    },
  });

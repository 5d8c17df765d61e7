/** Runs an attack in a process of its own (attack-process.ts), ended when its time is over. */
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { programFlags, programPath } from '../lib/testing/program.js';
import { type Counts, newCounts } from './attack.js';
import type { Target } from './wire/sockets.js';

export interface AttackOrder {
  readonly attack: string;
  readonly target: Target;
  readonly keys: readonly string[];
  readonly seconds: number;
  /** The attack goes on for longer, up to {@link maxSeconds}, until it has counted so much: for a machine that is busy. @default nothing */
  readonly atLeast?: Partial<Pick<Counts, 'answered' | 'bytesOut'>>;
  /** Above 0, at most 1. */
  readonly scale: number;
}

export type FromAttacker =
  /** Its code is loaded; the parent's `go` begins the attack. */
  | { readonly type: 'ready' }
  | { readonly type: 'counts'; readonly counts: Counts }
  | { readonly type: 'done'; readonly counts: Counts }
  | { readonly type: 'failed'; readonly message: string };

const root = fileURLToPath(new URL('..', import.meta.url));
/** Beyond its time, for the last answers and for the process to end by itself. */
const graceMs = 40_000;
export const maxSeconds = 40;

export interface Attacker {
  /** Resolves with what the attack did, when it has ended and all its connections are closed. @throws Error when the script failed */
  go(): Promise<Counts>;
  /** Ends it, also before it has begun. */
  close(): void;
}

/** Starts the process. Resolves when it has loaded its code, which is no part of the attack. */
export async function startAttacker(order: AttackOrder): Promise<Attacker> {
  const child = fork(programPath('hostile/attack-process.ts'), [JSON.stringify(order)], {
    cwd: root,
    execArgv: [...programFlags],
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  let counts = newCounts();
  let failure: string | undefined;
  child.on('message', (message: FromAttacker) => {
    if (message.type === 'failed') failure = message.message;
    else if (message.type !== 'ready') counts = message.counts;
  });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const ready = new Promise<void>((resolve) => child.once('message', () => resolve()));
  await Promise.race([ready, ended]);
  return {
    async go() {
      const timer = setTimeout(() => child.kill('SIGKILL'), Math.max(order.seconds, maxSeconds) * 1_000 + graceMs);
      if (child.connected) child.send('go');
      await ended;
      clearTimeout(timer);
      if (failure !== undefined) throw new Error(`the attack ${order.attack} failed: ${failure}`);
      return counts;
    },
    close: () => void child.kill('SIGKILL'),
  };
}

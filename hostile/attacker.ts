/** Runs an attack in a process of its own (attack-process.ts), ended when its time is over. */
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type Counts, newCounts } from './attack.js';
import type { Target } from './wire/sockets.js';

export interface AttackOrder {
  readonly attack: string;
  readonly target: Target;
  readonly keys: readonly string[];
  readonly seconds: number;
  /** Above 0, at most 1. */
  readonly scale: number;
}

export type FromAttacker =
  | { readonly type: 'counts'; readonly counts: Counts }
  | { readonly type: 'done'; readonly counts: Counts }
  | { readonly type: 'failed'; readonly message: string };

const root = fileURLToPath(new URL('..', import.meta.url));
/** Beyond its time, for the process to start and to end by itself. */
const graceMs = 15_000;

/** Resolves with what the attack did, when it has ended and all its connections are closed. @throws Error when the script failed */
export function attackWith(order: AttackOrder): Promise<Counts> {
  const child = fork(fileURLToPath(new URL('attack-process.ts', import.meta.url)), [JSON.stringify(order)], {
    cwd: root,
    execArgv: ['--import', 'tsx'],
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  let counts = newCounts();
  let failure: string | undefined;
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => child.kill('SIGKILL'), order.seconds * 1_000 + graceMs);
    child.on('message', (message: FromAttacker) => {
      if (message.type === 'failed') failure = message.message;
      else counts = message.counts;
    });
    child.once('error', reject);
    child.once('exit', () => {
      clearTimeout(timer);
      if (failure === undefined) resolve(counts);
      else reject(new Error(`the attack ${order.attack} failed: ${failure}`));
    });
  });
}

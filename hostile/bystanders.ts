/**
 * Those who keep the rules while an attack runs: the good client, a client of another customer, and a load balancer's probe. They
 * are one process (bystander-process.ts) apart from the attacker's, each with an address and a key of its own.
 */
import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { programFlags, programPath } from '../lib/testing/program.js';

/** What callers saw of the calls that they began within a phase. */
export interface Seen {
  readonly calls: number;
  readonly errors: number;
  /** ms; null without an answer. */
  readonly p50: number | null;
  readonly p99: number | null;
  /** Why calls failed, with how many; the first few kinds. */
  readonly reasons: Readonly<Record<string, number>>;
}

export interface PhaseSeen {
  readonly good: Seen;
  readonly other: Seen;
  readonly probe: Seen;
}

export type Phase = 'warm-up' | 'alone' | 'attack' | 'after';

export interface BystanderSettings {
  readonly port: number;
  readonly tls: boolean;
  readonly goodKey: string;
  readonly otherKey: string;
}

export type ToBystanders =
  | { readonly type: 'begin'; readonly settings: BystanderSettings }
  /** A phase ends: report it when its calls have ended. Undefined: there is no other phase. */
  | { readonly type: 'next'; readonly phase: Phase | undefined };

export type FromBystanders =
  | { readonly type: 'begun' }
  | { readonly type: 'seen'; readonly phase: Phase; readonly seen: PhaseSeen };

export interface Bystanders {
  /** Ends the current phase and begins another. Resolves, when the last call of the ended phase has ended, with what was seen. */
  next(phase: Phase | undefined): Promise<PhaseSeen>;
  close(): void;
}

const root = fileURLToPath(new URL('..', import.meta.url));

/** Starts them; the first phase is the warm-up. */
export async function startBystanders(settings: BystanderSettings): Promise<Bystanders> {
  const child = fork(programPath('hostile/bystander-process.ts'), [], {
    cwd: root,
    execArgv: [...programFlags],
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  let ended = false;
  const answer = <T extends FromBystanders['type']>(type: T): Promise<Extract<FromBystanders, { type: T }>> =>
    new Promise((resolve, reject) => {
      const onMessage = (message: FromBystanders): void => {
        if (message.type !== type) return;
        child.off('message', onMessage);
        resolve(message as Extract<FromBystanders, { type: T }>);
      };
      child.on('message', onMessage);
      child.once('exit', () => {
        if (!ended) reject(new Error('the process of the good client ended'));
      });
    });
  const send = (message: ToBystanders): void => void child.send(message);
  const begun = answer('begun');
  send({ type: 'begin', settings });
  await begun;
  return {
    async next(phase) {
      if (ended) throw new Error('the process of the good client was ended');
      const seen = answer('seen');
      send({ type: 'next', phase });
      return (await seen).seen;
    },
    close() {
      ended = true;
      child.kill('SIGKILL');
    },
  };
}

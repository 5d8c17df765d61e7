/**
 * A client that keeps the rules while a test attacks its gateway: 50 calls a second, in a process of its own and from 127.0.0.2, so that it
 * shares neither the attacker's event loop nor the limits of the attacker's addresses.
 */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { programFlags, programPath } from '../../lib/testing/program.js';

export interface SeenByClient {
  /** Answered calls. */
  readonly calls: number;
  /** Calls without an answer 10 s after the end. */
  readonly unanswered: number;
  /** Why calls failed; the first few. */
  readonly failures: readonly string[];
  /** ms. */
  readonly p99: number;
}

/** @returns what the client has seen while `use` ran */
export async function besideGoodClient(port: number, key: string, use: () => Promise<void>): Promise<SeenByClient> {
  const child = fork(programPath('gateway/testing/good-client-process.ts'), [String(port), key], {
    execArgv: [...programFlags],
  });
  try {
    await once(child, 'message');
    await use();
    const seen = once(child, 'message');
    child.send('end');
    return (await seen)[0] as SeenByClient;
  } finally {
    child.kill('SIGKILL');
  }
}

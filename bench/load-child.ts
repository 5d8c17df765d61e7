/**
 * A load process of a benchmark, spoken to over Node's IPC: it shares no event loop and no garbage collector with anything else.
 */
import { fork } from 'node:child_process';
import { endProcess } from '../lib/child-process.js';
import { programFlags, programPath } from '../lib/testing/program.js';

/** What every load process understands and says, beside its own messages. */
export type End = { readonly type: 'end' };
export type Failed = { readonly type: 'failed'; readonly message: string };

export interface LoadChild<To, From> {
  readonly pid: number;
  /** Rejects when the process says `failed`, or ends by itself; never resolves. */
  readonly failure: Promise<never>;
  tell(message: To): void;
  listen(each: (message: From) => void): void;
  close(): Promise<void>;
}

const endWithinMs = 3_000;

/** @param nodeArguments e.g. for a CPU profile */
export function startLoadChild<To, From extends { readonly type: string }>(
  entry: URL,
  nodeArguments: readonly string[],
): LoadChild<To, From> {
  const child = fork(programPath(entry), [], {
    execArgv: [...programFlags, ...nodeArguments],
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  let closing = false;
  const failure = new Promise<never>((_, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      if (!closing) reject(new Error(`a load process ended with ${signal ?? code}`));
    });
    child.on('message', (message: From | Failed) => {
      if (message.type === 'failed') reject(new Error(`load: ${(message as Failed).message}`));
    });
  });
  failure.catch(() => undefined); // it may come when nothing waits for it
  return {
    pid: child.pid ?? 0,
    failure,
    tell: (message) => child.send(message as object),
    listen: (each) => child.on('message', each),
    close: () => {
      closing = true;
      const ask = (): void => void (child.connected && child.send({ type: 'end' } satisfies End));
      return endProcess(child, { withinMs: endWithinMs, ask });
    },
  };
}

/** Calls `run` for each order; an error is sent as `failed`. The process ends with its benchmark. */
export function takeOrders<To extends { readonly type: string }>(run: (order: To) => Promise<void> | void): void {
  process.on('message', (order: To) => {
    Promise.resolve(order).then(run).catch(sayFailed);
  });
  process.on('disconnect', () => process.exit(1));
}

export function say(message: { readonly type: string }): void {
  process.send?.(message);
}

export function sayFailed(error: unknown): void {
  const failed: Failed = { type: 'failed', message: error instanceof Error ? error.message : String(error) };
  say(failed);
}

/** Calls `run` once after the next round of I/O, however often it was asked for. */
export function soon(run: () => void): () => void {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    setImmediate(() => {
      asked = false;
      run();
    });
  };
}

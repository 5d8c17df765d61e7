/**
 * Unary calls by h2load, of Debian's package nghttp2-client: a client in C takes a third of the CPU a call of one in Node, and leaves
 * the machine to the gateway. A few processes of it share the clients. Each sends one batch again and again, under the same name, so
 * that there are as many different batches as processes: the gateway looks for no copies, and nothing is loaded.
 *
 * h2load looks at HTTP statuses alone. So the log must hold at least the bytes of all calls that it counts.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gone } from '../lib/child-process.js';
import { newHistogram, record } from '../lib/testing/latency.js';
import type { Fleet, FleetResult } from './fleet.js';
import { type CallProtocol, callHeaders } from './h2-link.js';
import { patch, prepare } from './payload.js';
import { publish } from './unary-methods.js';

export interface H2loadOptions {
  readonly url: string;
  readonly key: string;
  readonly protocol: CallProtocol;
  readonly connections: number;
  /** Calls at once, of all connections together. */
  readonly clients: number;
  /** Events of a batch. */
  readonly batch: number;
  readonly seed: number;
  /** Bytes that the log holds. */
  readonly loggedBytes: () => Promise<number>;
}

const maxProcesses = 4;
/** More than any run makes: it is ended before. */
const endless = 1_000_000_000;
/** A line of h2load's log (microseconds since 1970, status, microseconds), in bytes, for progress alone. */
const lineBytes = 27;

/** What one process sends, and where it notes what became of it. */
interface Body {
  readonly file: string;
  readonly log: string;
  readonly batchBytes: number;
}

/** Ms since 1970. */
interface Window {
  readonly from: number;
  readonly to: number;
}

/** A fleet whose processes are h2load. It fails when that is not installed. */
export function startH2load(options: H2loadOptions): Fleet {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-h2load-'));
  const processes = Math.min(maxProcesses, options.connections);
  const bodies = Array.from({ length: processes }, (_, i) => writeBody(options, folder, i));
  const batchBytes = Math.min(...bodies.map((body) => body.batchBytes));
  const total = { acked: 0, batches: 0, rejected: 0, resends: 0, refused: 0 };
  let running: ChildProcess[] = [];
  let markedAt = 0;
  let fail: (error: Error) => void = () => undefined;
  const failure = new Promise<never>((_, reject) => {
    fail = reject;
  });
  failure.catch(() => undefined);

  const start = (body: Body, i: number, rate: number | 'max'): ChildProcess => {
    const { connections } = options;
    const share = Math.floor(connections / processes) + (i < connections % processes ? 1 : 0);
    const child = spawn('h2load', argumentsOf(options, body, share, rate), { stdio: 'ignore' });
    child.once('error', (error: NodeJS.ErrnoException) =>
      fail(error.code === 'ENOENT' ? new Error('h2load is not installed: apt-get install nghttp2-client') : error),
    );
    child.once('exit', (code) => {
      if (running.includes(child)) fail(new Error(`h2load ended with ${code}`));
    });
    return child;
  };
  const end = async (): Promise<void> => {
    const last = running;
    running = [];
    for (const child of last) child.kill('SIGKILL');
    await Promise.all(last.map(gone));
  };
  const resultOf = (window: Window): FleetResult => {
    const seen = readLogs(bodies, window);
    total.batches += seen.batches;
    total.acked = total.batches * options.batch;
    const counts = { ...total, batches: seen.inWindow, acked: seen.inWindow * options.batch };
    const seconds = (window.to - window.from) / 1000;
    return { seconds, counts, total: { ...total }, ack: seen.ack, lag: newHistogram() };
  };

  return {
    get pids() {
      return running.map(({ pid }) => pid ?? 0);
    },
    bytesPerEvent: batchBytes / options.batch,
    get progress() {
      const logged = running.length === 0 ? 0 : bodies.reduce((sum, { log }) => sum + sizeOf(log), 0);
      return { acked: total.acked + Math.floor(logged / lineBytes) * options.batch, resends: 0 };
    },
    begin: (rate) => {
      running = bodies.map((body, i) => start(body, i, rate));
    },
    mark: () => {
      markedAt = Date.now();
    },
    stop: async () => {
      const window = { from: markedAt, to: Date.now() };
      const before = total.batches;
      await end();
      const result = resultOf(window);
      const logged = await options.loggedBytes();
      const told = (total.batches - before) * batchBytes;
      if (logged < told) throw new Error(`${told} bytes of batches were acknowledged, and the log holds ${logged}`);
      return result;
    },
    failure,
    close: async () => {
      await end();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

function writeBody({ protocol, batch, seed }: H2loadOptions, folder: string, i: number): Body {
  const target = protocol === 'grpc' ? 'gateway' : 'connect';
  const message = prepare({ target, events: batch, seed: seed * maxProcesses + i, tenant: '' });
  patch(message, { run: seed, slot: i, number: 0 }, Date.now());
  const file = join(folder, `body-${i}`);
  writeFileSync(file, message.bytes);
  return { file, log: join(folder, `log-${i}`), batchBytes: message.batch.end - message.batch.start };
}

/** @param connections of this process; `rate` is that of all, events per second */
function argumentsOf(options: H2loadOptions, body: Body, connections: number, rate: number | 'max'): string[] {
  const { url, key, protocol, batch, clients, connections: all } = options;
  const { ':method': _, ':path': path, ...headers } = callHeaders(publish.path, key, protocol);
  return [
    ...['-n', `${endless}`, '-c', `${connections}`, '-m', `${Math.max(1, Math.round(clients / all))}`],
    ...['-d', body.file, '--log-file', body.log],
    ...(rate === 'max' ? [] : ['--rps', `${Math.max(1, Math.round(rate / batch / all))}`]),
    ...Object.entries(headers).flatMap(([name, value]) => ['-H', `${name}: ${value}`]),
    `${url}${path}`,
  ];
}

/** Reads and removes the logs. @throws Error when a call was not answered with 200 */
function readLogs(bodies: readonly Body[], { from, to }: Window) {
  const ack = newHistogram();
  let batches = 0;
  let inWindow = 0;
  const isIn = (at: number): boolean => at >= from && at < to;
  for (const { log } of bodies) {
    for (const line of readFileSync(log, 'latin1').split('\n')) {
      const [beganUs, status, us] = line.split('\t').map(Number);
      if (beganUs === undefined || us === undefined) continue; // cut off
      if (status !== 200) throw new Error(`a call was answered with HTTP status ${status}`);
      batches++;
      if (isIn((beganUs + us) / 1000)) inWindow++;
      if (isIn(beganUs / 1000)) record(ack, us / 1000);
    }
    rmSync(log);
  }
  return { ack, batches, inWindow };
}

/** 0 while there is no such file. */
const sizeOf = (file: string): number => statSync(file, { throwIfNoEntry: false })?.size ?? 0;

/**
 * `--processes N`: several gateway processes behind one port on one machine. This process starts them and gives them connections in
 * turn (node:cluster). Each is a whole gateway with its own bounds.
 *
 *   PROC-1  The first one has to listen before the others are started, so that an impossible setting is reported once. If it ends
 *       before that, everything ends with its exit code.
 *   PROC-2  A process that ends by itself is started again, after a pause that doubles while it keeps ending soon.
 *   PROC-3  Asked to end, it asks all to drain, and it ends when the last one has: exit code 0 if all drained.
 *   PROC-4  Process i has its metrics at `metricsPort` + i, also after it was started again.
 *   PROC-5  When the one that deals out the connections has stood still, it tells the others: what comes now may have waited (stall.ts).
 */

import cluster, { type Worker } from 'node:cluster';
import { backOff } from '../lib/back-off.js';
import type { Logger } from '../lib/logger.js';
import { onParentGone } from '../lib/parent-gone.js';
import { createStallWatch, watchStalls } from './ingest/stall.js';

export interface ProcessesOptions {
  readonly count: number;
  /** The command line of the role, without node and script. */
  readonly argv: readonly string[];
  /** Of the first process; 0: each picks a free one. */
  readonly metricsPort: number;
  /** After this many ms a drain is cut short. */
  readonly graceMs: number;
  /** PROC-5, ms. */
  readonly stallAfter: number;
  readonly logger: Logger;
}

/** True in the process that starts the others; false in those, and where nothing was started. */
export const startsOthers = (processes: number): boolean => processes > 1 && cluster.isPrimary;

/** PROC-2: between an end of a process and its next start. */
const waits = { first: 100, last: 10_000 };
/** A process that has lived this long was well. */
const settledMs = 30_000;

export function runProcesses({ count, argv, metricsPort, graceMs, stallAfter, logger }: ProcessesOptions): void {
  const places = Array.from({ length: count }, () => ({
    worker: undefined as Worker | undefined,
    ready: false,
    ends: 0,
  }));
  let ending = false;
  let listened = false;
  let told = false;
  let failed = false;

  const start = (index: number): void => {
    const place = places[index];
    if (place === undefined || ending) return;
    const metrics = metricsPort === 0 ? [] : ['--metrics-port', String(metricsPort + index)];
    cluster.setupPrimary({ args: [...argv, ...metrics] });
    const worker = cluster.fork();
    place.worker = worker;
    place.ready = false;
    const born = performance.now();
    logger.info({ process: worker.process.pid, index }, 'process started');
    worker.once('listening', () => {
      if (listened) return;
      listened = true;
      for (let other = 1; other < count; other++) start(other);
    });
    worker.on('message', (message: { ready?: boolean; port?: number; metricsPort?: number }) => {
      if (message.ready === true) {
        place.ready = true;
        announce(message.port);
      } else if (message.metricsPort !== undefined) {
        process.send?.(message);
      }
    });
    worker.once('exit', (code, signal) => {
      place.worker = undefined;
      place.ready = false;
      if (ending) {
        failed ||= code !== 0;
        leaveWhenAlone();
        return;
      }
      if (!listened) process.exit(code ?? 1);
      place.ends = performance.now() - born > settledMs ? 1 : place.ends + 1;
      const pauseMs = backOff(waits, place.ends);
      logger.error({ process: worker.process.pid, index, code, signal, pauseMs }, 'process ended; starting it again');
      setTimeout(() => start(index), pauseMs);
    });
  };

  const announce = (port: number | undefined): void => {
    if (told || ending || !places.every(({ ready }) => ready)) return;
    told = true;
    logger.info({ processes: count }, 'all ready');
    process.send?.({ ready: true, port });
  };

  const leaveWhenAlone = (): void => {
    if (places.some(({ worker }) => worker !== undefined)) return;
    logger.info('all drained');
    process.exit(failed ? 1 : 0);
  };

  const end = (why: string): void => {
    if (ending) return;
    ending = true;
    logger.info({ why }, 'draining all');
    for (const { worker } of places) worker?.process.kill('SIGTERM');
    // Each ends by itself at this time; whatever hangs is killed.
    setTimeout(() => {
      failed = true;
      for (const { worker } of places) worker?.process.kill('SIGKILL');
    }, graceMs + 10_000).unref();
    leaveWhenAlone();
  };
  watchStalls(
    createStallWatch(stallAfter, (ms) => {
      for (const { worker } of places) worker?.send({ stalled: ms }); // PROC-5
    }),
  );
  process.on('SIGTERM', () => end('SIGTERM'));
  process.on('SIGINT', () => end('SIGINT'));
  onParentGone(() => end('the parent process is gone'));

  start(0);
}

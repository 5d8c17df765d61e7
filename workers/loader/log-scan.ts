/**
 * Reads what a stream holds now, from one sequence to another, once and within a bound of memory, for commands that read the log (audit, where).
 */
import type { JetStreamManager } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/nats-core';
import type { Logger } from '../../lib/logger.js';
import { MiB } from '../../lib/units.js';
import { createByteBudget } from '../reader/budget.js';
import { createBufferPool } from '../reader/buffer-pool.js';
import type { LogMessage } from '../reader/log-message.js';
import { createPullReader } from '../reader/pull-reader.js';

const heldBytes = 32 * MiB;
const idleMs = 500;
/** Failed looks for a message that the server says is there, before the scan gives up: half a minute. */
const maxIdle = 60;

export interface LogScanOptions {
  readonly nc: NatsConnection;
  readonly jsm: JetStreamManager;
  readonly stream: string;
  /** The stream's making that is meant; the scan ends with an error when it is made again meanwhile. */
  readonly generation: string;
  /** First and last sequence that are wanted; what is missing in between is left out. */
  readonly from: number;
  readonly to: number;
  readonly logger: Logger;
  /** A message; its bytes are overwritten once this has returned. */
  readonly onMessage: (message: LogMessage) => void | Promise<void>;
}

/** Reads, in order. Rejects when the stream is gone or made again, or stops answering for half a minute. */
export async function scanLog(options: LogScanOptions): Promise<void> {
  const { nc, jsm, stream, generation, from, to, logger, onMessage } = options;
  if (to < from) return;
  const reader = createPullReader({
    nc,
    jsm,
    stream,
    budget: createByteBudget(heldBytes),
    buffers: createBufferPool(heldBytes),
    aheadBytes: heldBytes / 2,
    logger,
  });
  try {
    reader.seek(generation, from - 1);
    let last = from - 1;
    let idle = 0;
    while (last < to) {
      const message = reader.peek();
      if (message !== undefined) {
        idle = 0;
        if (message.sequence > to) return;
        last = message.sequence;
        reader.take();
        try {
          await onMessage(message);
        } finally {
          reader.release([message], true);
        }
        continue;
      }
      if (reader.lost) throw new Error(`the stream ${stream} is gone, or was made again while it was read`);
      await reader.wait(idleMs);
      if (reader.peek() !== undefined) continue;
      // Nothing came: perhaps nothing is left, because the last ones were removed.
      const next = await jsm.direct.getMessage(stream, { seq: last + 1, next_by_subj: '>' });
      if (next === null || next.seq > to) return;
      if (++idle > maxIdle) throw new Error(`the stream ${stream} delivers nothing after message ${last}`);
    }
  } finally {
    await reader.close();
  }
}

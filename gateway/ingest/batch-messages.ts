/**
 * Batches to messages of the log: the coalescer groups them, each group becomes one message, and the outcome of the message is that of
 * its batches.
 */
import type { GatewayConfig } from '../../lib/config/index.js';
import { SluiceError } from '../../lib/errors.js';
import { KiB } from '../../lib/units.js';
import type { GatewayClock } from '../clock.js';
import type { LogAck, Outgoing } from '../log/publisher.js';
import type { FlushReason, GatewayMetrics } from '../metrics.js';
import { createCoalescer, type Group } from './coalesce.js';
import type { CommitWatch } from './committed.js';
import { type LogAccess, retrySoonMs } from './log-access.js';
import type { PendingBatch, PendingBatches } from './pending-batches.js';

export interface BatchMessageOptions {
  readonly config: Pick<GatewayConfig, 'coalesceBytes' | 'coalesceDelay'>;
  /** INGEST-4, ms. */
  readonly maxHeldMs: number;
  readonly clock: GatewayClock;
  readonly metrics: Pick<GatewayMetrics, 'flushed' | 'stored'>;
  readonly pending: PendingBatches;
  readonly commits: CommitWatch;
  readonly access: Pick<LogAccess, 'send'>;
}

export interface BatchMessages {
  /** @param bytes of the batch in its message */
  add(subject: string, batch: PendingBatch, bytes: number): void;
  /** ms for which the shard takes nothing, because it said at `at` (monotonic ms) or before that it is full; 0 or less: it takes batches. */
  pauseOf(shard: number, at: number): number;
  /** Sends all that is gathered. */
  flush(): void;
}

/** From this size on a batch has a message of its own: joining it with others would save nothing. */
const largeBatchBytes = 32 * KiB;
/** After "full", a shard is tried again this much later: a refused message costs as much traffic as a stored one. */
const fullPauseMs = 200;

export function createBatchMessages(options: BatchMessageOptions): BatchMessages {
  const { config, maxHeldMs, metrics, pending, commits, access } = options;
  const { now, wall, after, random } = options.clock;
  /** Per shard: not before this time (monotonic ms). */
  const fullUntil: number[] = [];

  const send = (group: Group<PendingBatch>, reason: FlushReason): void => {
    metrics.flushed(reason);
    const shard = group.items[0]?.shard ?? 0;
    let ackedBefore = 0;
    let committedBefore = 0;
    const message: Outgoing = {
      subject: group.key,
      encode(allocate) {
        ackedBefore = commits.lastAcked(shard);
        committedBefore = commits.lastCommitted(shard);
        return encode(group, allocate);
      },
      settle(outcome) {
        const sound =
          outcome instanceof SluiceError ||
          commits.acked(shard, Number(outcome.sequence), ackedBefore, committedBefore);
        settle(group, sound ? outcome : forgotten());
      },
    };
    access.send(message);
  };

  const coalescer = createCoalescer<PendingBatch>({
    maxBytes: config.coalesceBytes,
    largeBytes: Math.min(largeBatchBytes, config.coalesceBytes),
    maxDelay: config.coalesceDelay,
    now,
    after,
    emit: send,
  });

  const forgotten = (): SluiceError =>
    new SluiceError('outcome_unknown', 'The log lost its end, and put the batch where it will not be loaded.', {
      outcomeUnknown: true,
      retryAfterMs: retrySoonMs(random),
    });

  /** INGEST-4. */
  const heldTooLong = (): SluiceError =>
    new SluiceError('log_unavailable', 'The gateway held the batch for too long, and did not send it to the log.', {
      retryAfterMs: retrySoonMs(random),
    });

  /** Joins the batches of a group into one message. The one copy that this core makes. */
  const encode = (group: Group<PendingBatch>, allocate: (size: number) => Buffer): Buffer | undefined => {
    group.sealed = true;
    let size = 0;
    const from = now() - maxHeldMs;
    const fromWall = wall() - maxHeldMs;
    for (const batch of group.items) {
      if (batch.heldSince < from || batch.receivedAt < fromWall) pending.answer(batch, heldTooLong());
      size += batch.framed?.size ?? 0;
    }
    if (size === 0) return undefined;
    const payload = allocate(size);
    let at = 0;
    for (const batch of group.items) {
      if (batch.framed === undefined) continue;
      at = batch.framed.write(payload, at);
      // Lets go of the caller's bytes.
      batch.framed = undefined;
    }
    return payload;
  };

  const settle = (group: Group<PendingBatch>, outcome: LogAck | SluiceError): void => {
    group.sealed = true;
    const shard = group.items[0]?.shard ?? 0;
    const told = outcome instanceof SluiceError ? outcome : { ...outcome, shard, history: commits.history(shard) };
    if (outcome instanceof SluiceError && outcome.code === 'log_full') fullUntil[shard] = now() + fullPauseMs;
    for (const batch of group.items) {
      if (!(outcome instanceof SluiceError) && !batch.answered) metrics.stored(batch.result.accepted);
      pending.answer(batch, told);
      pending.release(batch);
    }
    coalescer.settled(group);
  };

  return {
    add: coalescer.add,
    pauseOf(shard, at) {
      const until = fullUntil[shard];
      return until === undefined ? 0 : until - at;
    },
    flush: coalescer.flush,
  };
}

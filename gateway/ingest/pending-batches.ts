/**
 * Batches between admission and the outcome of their message. Each is answered once: with the outcome, or at its deadline.
 */
import type { Rejection } from '../../lib/contract/index.js';
import { SluiceError } from '../../lib/errors.js';
import type { GatewayClock } from '../clock.js';
import type { Admission } from './admission.js';
import type { HistoricPosition } from './committed.js';
import { createDeadlines } from './deadlines.js';
import type { FramedBatch } from './stored-batch.js';

export interface IngestResult {
  readonly batchId: string;
  readonly accepted: number;
  readonly rejected: number;
  readonly rejections: readonly Rejection[];
  /** Undefined when nothing was accepted. */
  readonly position: HistoricPosition | undefined;
  /** Fields that the contract does not know and that were left out, as the request asked. */
  readonly ignoredFields?: readonly string[];
}

export interface PendingBatch {
  readonly tenant: string;
  readonly shard: number;
  /** Bytes that admission counts for it. */
  readonly cost: number;
  /** Since when it is held: monotonic ms, and ms since 1970. */
  readonly heldSince: number;
  readonly receivedAt: number;
  /** Becomes the answer: the position is filled in when it is known. */
  readonly result: { -readonly [K in keyof IngestResult]: IngestResult[K] };
  /** Undefined once it is in a message, or given up before. */
  framed: FramedBatch | undefined;
  answered: boolean;
  readonly resolve: (result: IngestResult) => void;
  readonly reject: (error: SluiceError) => void;
  deadlineBucket: number | undefined;
}

export interface PendingBatches {
  /** @param deadlineAt ms since 1970; undefined: its caller waits as long as it takes */
  add(batch: PendingBatch, deadlineAt: number | undefined): void;
  /** Answers a batch that has no answer yet. */
  answer(batch: PendingBatch, outcome: HistoricPosition | SluiceError): void;
  /** The message of the batch has its outcome: gives back the room of the batch (INGEST-2). */
  release(batch: PendingBatch): void;
  /** Resolves when no batch is pending, at the latest after `graceMs`. */
  idle(graceMs: number): Promise<void>;
}

const deadlineTickMs = 10;

export function createPendingBatches(
  { wall, after }: Pick<GatewayClock, 'wall' | 'after'>,
  admission: Pick<Admission, 'release'>,
  /** ms after which each batch is settled: a deadline beyond that needs no watch. */
  longestWaitMs: number,
): PendingBatches {
  let size = 0;
  let onIdle: (() => void) | undefined;

  const deadlines = createDeadlines<PendingBatch>({
    tickMs: deadlineTickMs,
    now: wall,
    after,
    expired(batch) {
      batch.deadlineBucket = undefined;
      const sent = batch.framed === undefined;
      answer(
        batch,
        new SluiceError(
          'deadline',
          sent ? 'The log did not acknowledge the batch in time.' : 'The batch was not sent to the log in time.',
          { outcomeUnknown: sent, retryAfterMs: 0 },
        ),
      );
    },
  });

  const answer = (batch: PendingBatch, outcome: HistoricPosition | SluiceError): void => {
    if (batch.answered) return;
    batch.answered = true;
    // What is answered before it is sent is not sent any more: the caller would not hear of it.
    batch.framed = undefined;
    if (batch.deadlineBucket !== undefined) deadlines.remove(batch, batch.deadlineBucket);
    if (outcome instanceof SluiceError) {
      batch.reject(outcome);
    } else {
      batch.result.position = outcome;
      batch.resolve(batch.result);
    }
  };

  return {
    add(batch, deadlineAt) {
      size++;
      if (deadlineAt !== undefined && deadlineAt - batch.receivedAt < longestWaitMs) {
        batch.deadlineBucket = deadlines.add(batch, deadlineAt);
      }
    },
    answer,
    release(batch) {
      size--;
      admission.release(batch.tenant, batch.cost);
      if (size === 0) onIdle?.();
    },
    async idle(graceMs) {
      if (size === 0) return;
      await new Promise<void>((resolve) => {
        const cancel = after(graceMs, resolve);
        onIdle = () => {
          cancel();
          resolve();
        };
      });
    },
  };
}

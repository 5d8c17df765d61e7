/**
 * Takes one batch in: checks what came with it, counts its bytes, scans it, and gives it to the message of its shard.
 */
import { retryAfter } from '../../lib/back-off.js';
import { batchIdPattern } from '../../lib/batch-status.js';
import {
  contractRevision,
  type ReadFindings,
  type ScanResult,
  scanAfterReading,
  scanBatch,
} from '../../lib/contract/index.js';
import { shardOf } from '../../lib/contract/shard.js';
import { SluiceError } from '../../lib/errors.js';
import { batchSubject } from '../../lib/subjects.js';
import type { GatewayClock } from '../clock.js';
import type { LogConnection } from '../log/log-connection.js';
import type { GatewayMetrics } from '../metrics.js';
import type { Admission } from './admission.js';
import type { BatchMessages } from './batch-messages.js';
import type { IngestResult, PendingBatch, PendingBatches } from './pending-batches.js';
import type { StallWatch } from './stall.js';
import { type FramedBatch, frameBatch } from './stored-batch.js';
import { toldBytes } from './told-bytes.js';

export interface IngestInput {
  readonly tenant: string;
  /** Encoded EventBatch. Not copied until it is sent, so it must not change before the promise settles. */
  readonly batch: Uint8Array;
  /** What was found while the batch was read from JSON; undefined: nothing. */
  readonly findings?: ReadFindings | undefined;
  /** Empty: the core mints one. */
  readonly batchId: string;
  /** 0 = unknown. */
  readonly attempt: number;
  readonly sentAt?: { seconds: bigint; nanos: number } | undefined;
  /** When its connection was opened, on the monotonic clock, ms; undefined: before all else. */
  readonly openedAt?: number | undefined;
  /** Something below the application has sent it before. @default false */
  readonly resent?: boolean | undefined;
  /** On the clock of Date.now(), ms. Noticed up to 20 ms late. */
  readonly deadlineAt?: number | undefined;
  readonly traceparent?: string | undefined;
  /** Name and version of the client library: "sluice-node/0.1.0". */
  readonly client?: string | undefined;
  /** 4 or 16 bytes. */
  readonly clientAddress?: Uint8Array | undefined;
  readonly userAgent?: string | undefined;
}

export interface AcceptOptions {
  readonly maxBatchBytes: number;
  readonly maxBatchEvents: number;
  /** INGEST-5, ms. */
  readonly maxHeldMs: number;
  readonly clock: GatewayClock;
  readonly metrics: Pick<GatewayMetrics, 'scanned' | 'stored'>;
  readonly connection: Pick<LogConnection, 'shards' | 'shardEpoch'>;
  readonly admission: Pick<Admission, 'take' | 'release'>;
  readonly pending: PendingBatches;
  readonly messages: BatchMessages;
  readonly stalls: StallWatch | undefined;
}

/** What a held batch costs beyond its bytes, so that a flood of tiny batches is bounded too. */
export const batchOverheadBytes = 512;
/** The last second of 2199. */
const lastSentAt = 7_258_118_399n;

/** Whether ClickHouse can store the time; it would read any other one as 1970. */
const isStorable = ({ seconds, nanos }: { seconds: bigint; nanos: number }): boolean =>
  seconds >= 0n && seconds <= lastSentAt && nanos >= 0 && nanos < 1e9;

/** @throws SluiceError when something about the batch, beside its events, is wrong */
function check({ batch, batchId, sentAt, deadlineAt }: IngestInput, maxBatchBytes: number, receivedAt: number): void {
  if (batch.length > maxBatchBytes) {
    throw new SluiceError('batch_too_large', `The batch has ${batch.length} bytes; the limit is ${maxBatchBytes}.`);
  }
  if (batchId !== '' && !batchIdPattern.test(batchId)) {
    throw new SluiceError('batch_id_invalid', 'The batch_id is longer than 64 bytes or has other characters.');
  }
  if (sentAt !== undefined && !isStorable(sentAt)) {
    throw new SluiceError('sent_at_invalid', 'sent_at is before 1970 or after 2199.', { field: 'sent_at' });
  }
  if (deadlineAt !== undefined && deadlineAt <= receivedAt) {
    throw new SluiceError('deadline', 'The deadline had passed when the batch came.', { retryAfterMs: 0 });
  }
}

/** Takes a batch while the log can take it. @throws SluiceError when it is refused at once */
export function createAccept(options: AcceptOptions): (input: IngestInput) => Promise<IngestResult> {
  const { maxBatchBytes, maxHeldMs, clock, metrics, connection, admission, pending, messages, stalls } = options;
  const { now, wall, random } = clock;
  const scanLimits = { maxEvents: options.maxBatchEvents };

  const scan = ({ batch, findings }: IngestInput): ScanResult => {
    const found = findings === undefined ? scanBatch(batch, scanLimits) : scanAfterReading(batch, scanLimits, findings);
    metrics.scanned(found.accepted, found.rejected, found.rejections);
    return found;
  };

  /** INGEST-5. An id that is made here is on no other copy: its batch is no suspect of the loader's (LOAD-5), whatever the caller says. */
  const attemptOf = (
    { batchId, attempt, resent, openedAt, sentAt }: IngestInput,
    at: number,
    wallAt: number,
  ): number => {
    const doubted =
      resent === true ||
      stalls?.doubts(openedAt ?? Number.NEGATIVE_INFINITY, at, wallAt) === true ||
      (sentAt !== undefined && Number(sentAt.seconds) * 1_000 < wallAt - maxHeldMs);
    if (batchId === '') return 1;
    return attempt === 1 && doubted ? 0 : attempt;
  };

  const refuseWhenFull = (shard: number, at: number): void => {
    const pause = messages.pauseOf(shard, at);
    if (pause <= 0) return;
    throw new SluiceError('log_full', 'The log is full.', {
      retryAfterMs: retryAfter(pause + 500, random),
    });
  };

  const frame = (input: IngestInput, batchId: string, found: ScanResult, at: number, wallAt: number): FramedBatch =>
    frameBatch({
      tenant: input.tenant,
      batchId,
      attempt: attemptOf(input, at, wallAt),
      receivedAt: wallAt,
      sentAt: input.sentAt,
      eventCount: found.accepted,
      rejectedCount: found.rejected,
      unknownFields: found.unknownFields,
      contract: contractRevision,
      traceparent: input.traceparent,
      client: input.client,
      clientAddress: input.clientAddress,
      userAgent: input.userAgent,
      events: found.bytes,
    });

  return (input) => {
    const { tenant, findings } = input;
    const heldSince = now();
    const receivedAt = wall();
    check(input, maxBatchBytes, receivedAt);
    let cost = input.batch.length + batchOverheadBytes;
    admission.take(tenant, cost);
    // Whatever goes wrong before a message has the batch gives its room back (INGEST-2).
    let handedOver = false;
    try {
      const found = scan(input);
      const { accepted, rejected, rejections } = found;
      const batchId = input.batchId === '' ? clock.makeId() : input.batchId;
      const result: PendingBatch['result'] = { batchId, accepted, rejected, rejections, position: undefined };
      if (findings !== undefined && findings.ignoredFields.length > 0) result.ignoredFields = findings.ignoredFields;
      if (accepted === 0) {
        metrics.stored(0);
        return Promise.resolve(result);
      }
      const shard = shardOf(tenant, batchId, connection.shards);
      refuseWhenFull(shard, heldSince);
      const told = toldBytes(result);
      if (told > 0) {
        admission.take(tenant, told, cost);
        cost += told;
      }
      const framed = frame(input, batchId, found, heldSince, receivedAt);
      handedOver = true;
      return new Promise((resolve, reject) => {
        const batch: PendingBatch = {
          tenant,
          shard,
          cost,
          heldSince,
          receivedAt,
          result,
          framed,
          answered: false,
          resolve,
          reject,
          deadlineBucket: undefined,
        };
        pending.add(batch, input.deadlineAt);
        messages.add(batchSubject(shard, tenant, connection.shardEpoch), batch, framed.size);
      });
    } finally {
      if (!handedOver) admission.release(tenant, cost);
    }
  };
}

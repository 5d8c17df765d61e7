/**
 * Passes one batch of a caller into the core, from any route, with its span. Every failure becomes a row of the error table.
 */
import { create } from '@bufbuild/protobuf';
import { type BatchResult, BatchResultSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { SluiceError } from '../../lib/errors.js';
import type { Logger } from '../../lib/logger.js';
import { createSparseLogger } from '../../lib/sparse-logger.js';
import type { Caller } from '../../lib/tenants.js';
import type { Ingest, IngestResult } from '../ingest/ingest.js';
import type { GatewayMetrics } from '../metrics.js';
import type { Tracing } from '../tracing.js';
import type { RequestFacts } from './request-facts.js';
import type { BatchMessage } from './view.js';

export interface BatchCall {
  readonly caller: Caller;
  readonly facts: RequestFacts;
  /** When its connection was opened, monotonic ms. */
  readonly openedAt: number;
  /** Sent before by something below the application: {@link wasResent}. */
  readonly resent: boolean;
  /** Clock of Date.now(), ms. */
  readonly deadlineAt: number | undefined;
  /** Of the span. */
  readonly name: string;
  /** It wants to hear of ClickHouse, so it needs to know where the log has its batches. @default false */
  readonly follows?: boolean;
}

/** Resolves when the log has the batch. @throws SluiceError and nothing else */
export type PublishBatch = (call: BatchCall, message: BatchMessage) => Promise<IngestResult>;

export interface PublishBatchOptions {
  readonly ingest: Ingest;
  readonly tracing: Tracing;
  readonly metrics: Pick<GatewayMetrics, 'failed'>;
  /** Whether answers say where the log has a batch. Off by default: it shows how much all tenants send. */
  readonly logPositions: boolean;
  readonly logger: Logger;
}

export function createPublishBatch(options: PublishBatchOptions): PublishBatch {
  const { ingest, tracing, metrics, logPositions } = options;
  const logger = createSparseLogger(options.logger);
  return ({ caller, facts, openedAt, resent, deadlineAt, name, follows = false }, message) => {
    const span = tracing.start(name, caller.tenant, facts.traceparent);
    // No async function: two promises less for each batch.
    return ingest
      .publish({
        tenant: caller.tenant,
        batch: message.batch,
        findings: message.findings,
        batchId: message.batchId,
        attempt: message.attempt,
        sentAt: message.sentAt,
        openedAt,
        resent,
        deadlineAt,
        traceparent: span.traceparent,
        client: facts.client,
        clientAddress: facts.clientAddress,
        userAgent: facts.userAgent,
      })
      .then(
        (result) => {
          span.accepted(result.accepted, result.rejected);
          if (!logPositions && !follows) hidePosition(result);
          return result;
        },
        (reason: unknown) => {
          span.failed(reason);
          if (!(reason instanceof SluiceError)) logger.error({ err: reason }, 'publish failed unexpectedly');
          const error =
            reason instanceof SluiceError
              ? reason
              : new SluiceError('internal', 'The gateway failed.', { cause: reason, outcomeUnknown: true });
          metrics.failed(error.code);
          throw error;
        },
      );
  };
}

/** The result is of this call alone, so it is changed in place: a copy would cost every batch. */
function hidePosition(result: { position: IngestResult['position'] }): void {
  result.position = undefined;
}

/** The answer's message. */
export function toBatchResult(result: IngestResult): BatchResult {
  const { batchId, accepted, rejected, rejections, position, ignoredFields } = result;
  return create(BatchResultSchema, {
    batchId,
    accepted,
    rejected,
    ...(rejected === 0 ? {} : { rejections: [...rejections] }),
    ...(position === undefined ? {} : { position }),
    ...(ignoredFields === undefined ? {} : { ignoredFields: [...ignoredFields] }),
  });
}

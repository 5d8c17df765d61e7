/** An open stream as the delivery uses it, and what it tells. */
import type { FailureCode, SluiceClientError } from '../errors.js';

/** One batch on its way. */
export interface Outgoing {
  readonly batchId: string;
  readonly bytes: Uint8Array;
  readonly attempt: number;
}

/** An open stream, as the core uses it. */
export interface Link {
  send(batch: Outgoing): void;
  /** No more will be sent; answers are still taken, for so many ms at most. */
  finish(withinMs: number): void;
  /** Ends the stream at once. No call comes from it after this. */
  abort(): void;
}

export interface LinkLimits {
  readonly maxBatchBytes: number;
  readonly maxBatchEvents: number;
  readonly maxBytesInFlight: number;
  /** Most batches sent and not committed; 0: the gateway tells no commits. */
  readonly maxUncommitted: number;
}

/** What a stream tells. `onEnd` comes last and once. */
export interface LinkEvents {
  onLimits(limits: LinkLimits): void;
  onAccepted(batchId: string, result: Acceptance): void;
  onFailed(batchId: string, failure: BatchFault): void;
  /** ClickHouse has what this stream has accepted so far of this shard, up to this position. */
  onCommitted(shard: number, sequence: bigint): void;
  onDraining(): void;
  onEnd(error: SluiceClientError | undefined): void;
}

export interface Acceptance {
  readonly accepted: number;
  readonly rejected: number;
  readonly rejections: readonly EventRejection[];
  /** Where the log has it; undefined when nothing was accepted. */
  readonly position: { readonly shard: number; readonly sequence: bigint } | undefined;
}

/** One event that breaks the contract. */
export interface EventRejection {
  /** Its place in the batch, from 0. */
  readonly index: number;
  readonly field: string;
  /** Name of the RejectionCode, e.g. "TOO_LONG". */
  readonly code: string;
  readonly message: string;
}

export interface BatchFault {
  readonly code: FailureCode;
  readonly message: string;
  /** Undefined: not to be retried. */
  readonly retryAfterMs: number | undefined;
}

/** A batch from the moment when it is closed until it is settled. */
import type { SealedBatch } from '../batcher.js';
import type { FailureCode } from '../errors.js';
import type { Acceptance } from './link.js';

/** A batch as the host hears of it. */
export interface ToldBatch extends SealedBatch {
  readonly batchId: string;
  /** What its first acceptance said; undefined before. */
  readonly acceptance: Acceptance | undefined;
}

export type Outcome =
  | { readonly kind: 'delivered' }
  | { readonly kind: 'refused'; readonly code: FailureCode; readonly message: string };

export interface Batch extends SealedBatch {
  readonly batchId: string;
  /** Order of arrival; the parts of a split batch share it. */
  readonly order: number;
  attempt: number;
  /** Not to be sent before. */
  dueAt: number;
  acceptance: Acceptance | undefined;
  /** It was kept for too long once. */
  overdue: boolean;
  /** Streams in a row that ended under it. */
  lostStreams: number;
  /** Nothing else is in flight while it is (DELIVER-6). */
  alone: boolean;
}

/** What a batch is before its first send. */
export const unsent = {
  attempt: 0,
  dueAt: 0,
  acceptance: undefined,
  overdue: false,
  lostStreams: 0,
  alone: false,
} as const;

/**
 * What callers are answered in place of an ack (PUB-3), with a time to come back: ±50 %, so that they do not all come at once.
 */
import { retryAfter } from '../../lib/back-off.js';
import { SluiceError } from '../../lib/errors.js';

export interface PublishErrors {
  /** It is surely not in the log. */
  unavailable(message: string, cause?: unknown): SluiceError;
  /** It may be in the log. */
  unknown(message: string, cause?: unknown): SluiceError;
  full(cause: unknown): SluiceError;
}

/** How long a caller should wait when the log is full: workers free room about once a second. */
const fullRetryMs = 1_000;
const unavailableRetryMs = 500;

/** @param random in [0, 1) */
export function createPublishErrors(random: () => number): PublishErrors {
  const around = (ms: number): number => retryAfter(ms, random);
  return {
    unavailable: (message, cause) =>
      new SluiceError('log_unavailable', message, { retryAfterMs: around(unavailableRetryMs), cause }),
    unknown: (message, cause) =>
      new SluiceError('outcome_unknown', message, {
        retryAfterMs: around(unavailableRetryMs),
        outcomeUnknown: true,
        cause,
      }),
    full: (cause) => new SluiceError('log_full', 'The log is full.', { retryAfterMs: around(fullRetryMs), cause }),
  };
}

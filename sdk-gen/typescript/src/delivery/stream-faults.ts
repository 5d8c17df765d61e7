/** What the host hears of streams that ended. */
import { type FailureCode, SluiceClientError } from '../errors.js';
import type { Batch } from './batch.js';
import type { Acceptance } from './link.js';

/** Ends of a stream that trying again will hardly mend. */
export const refusals: ReadonlySet<FailureCode> = new Set(['unauthenticated', 'permission_denied', 'unimplemented']);
/** After so many ends of streams in a row a batch goes alone, and after one more it waits (DELIVER-6). */
export const suspiciousLosses = 2;

/** A stream that ended in order although something was expected of it. Undefined: nothing was. */
export function silentEnd(was: 'opening' | 'open', unanswered: number): SluiceClientError | undefined {
  if (was === 'opening') return new SluiceClientError('unavailable', 'The stream ended before it told its limits.');
  if (unanswered === 0) return undefined;
  return new SluiceClientError('unavailable', `The stream ended before it answered ${unanswered} batches.`);
}

/** Says when a batch may be what ends the streams. */
export function withSuspect(error: SluiceClientError, lost: readonly Batch[]): SluiceClientError {
  const [only] = lost;
  if (only === undefined || lost.length > 1 || only.lostStreams <= suspiciousLosses) return error;
  const { code, message, reason, retryAfterMs, cause } = error;
  const more = `${/[.!?]$/.test(message) ? message : `${message}.`} Batch ${only.batchId} was alone on the stream, and ${only.lostStreams} streams in a row ended under it: it may be the cause.`;
  return new SluiceClientError(code, more, {
    ...(reason === undefined ? {} : { reason }),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    cause,
  });
}

/** An answer that does not speak of each event once is none (DELIVER-2). */
export function miscounted(batch: Batch, { accepted, rejected }: Acceptance): SluiceClientError {
  return new SluiceClientError(
    'internal',
    `Batch ${batch.batchId} has ${batch.events} events, and the answer speaks of ${accepted} accepted and ${rejected} rejected: ` +
      'check that baseUrl is the address of a gateway, and that no other server answers in its place.',
  );
}

/**
 * What JetStream answers to a published message: an ack, an error, or the server's word that no stream listens.
 */
import type { SluiceError } from '../../lib/errors.js';
import { jetStreamErrors } from '../../lib/jetstream-errors.js';
import type { LogReply } from './log-wire.js';
import type { PublishErrors } from './publish-errors.js';

/** Where the log has a message. */
export interface LogAck {
  readonly stream: string;
  readonly sequence: bigint;
}

/** No room for the account or the server. */
const fullCodes: ReadonlySet<number> = new Set([
  jetStreamErrors.accountResourcesExceeded,
  jetStreamErrors.insufficientResources,
  jetStreamErrors.memoryResourcesExceeded,
  jetStreamErrors.storageResourcesExceeded,
]);

/** The server's own word: there is no subscriber. */
export const isNoResponders = (reply: LogReply): boolean => reply.data.length === 0 && reply.headers?.code === 503;

export function readReply(reply: LogReply, errors: PublishErrors): LogAck | SluiceError {
  if (reply.data.length === 0) {
    return isNoResponders(reply)
      ? errors.unavailable('A stream of the log is missing.')
      : errors.unknown('The log sent an empty answer.');
  }
  let answer: unknown;
  try {
    answer = JSON.parse(reply.string());
  } catch (cause) {
    return errors.unknown('The log sent an answer that cannot be read.', cause);
  }
  const { stream, seq, error } = answer as { stream?: unknown; seq?: unknown; error?: JetStreamError };
  if (error !== undefined) return readError(error, errors);
  if (typeof stream !== 'string' || !Number.isSafeInteger(seq) || (seq as number) <= 0) {
    return errors.unknown('The log sent an ack without a position.');
  }
  return { stream, sequence: BigInt(seq as number) };
}

interface JetStreamError {
  readonly code?: number;
  readonly err_code?: number;
  readonly description?: string;
}

function readError(error: JetStreamError, errors: PublishErrors): SluiceError {
  const { err_code: number = 0, description } = error;
  const full =
    fullCodes.has(number) || (number === jetStreamErrors.streamStoreFailed && (description ?? '').includes('maximum'));
  if (full) return errors.full(error);
  return errors.unavailable(
    `The log refused the batch (JetStream error ${number}: ${description ?? 'no words'}).`,
    error,
  );
}

/**
 * What went wrong, as the host hears it. The client throws nothing from its background work: it calls back.
 */

/** gRPC status codes by number, as the host reads them. */
const codeNames = [
  'ok',
  'canceled',
  'unknown',
  'invalid_argument',
  'deadline_exceeded',
  'not_found',
  'already_exists',
  'permission_denied',
  'resource_exhausted',
  'failed_precondition',
  'aborted',
  'out_of_range',
  'unimplemented',
  'internal',
  'unavailable',
  'data_loss',
  'unauthenticated',
] as const;

/** The gateway's status codes, and the client's own: an event of the wrong types, and one larger than a batch may be. */
export type FailureCode = (typeof codeNames)[number] | 'invalid_event' | 'event_too_large';

export const codeName = (code: number): FailureCode => codeNames[code] ?? 'unknown';

/** Trouble with the connection; the client goes on trying. */
export class SluiceClientError extends Error {
  override readonly name = 'SluiceClientError';
  readonly code: FailureCode;
  /** No earlier than this many ms from now, when the gateway said so. */
  readonly retryAfterMs: number | undefined;
  /** Name of the gateway's own refusal, as docs/errors.md lists it; undefined when the error is not the gateway's. */
  readonly reason: string | undefined;

  constructor(
    code: FailureCode,
    message: string,
    options: { retryAfterMs?: number; reason?: string; cause?: unknown } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.retryAfterMs = options.retryAfterMs;
    this.reason = options.reason;
  }
}

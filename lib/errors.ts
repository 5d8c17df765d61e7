/**
 * The one table of errors that Sluice returns to its users: the name of each, the RPC code and HTTP status that it maps to,
 * whether trying again can help, and what the user can do. docs/errors.md is held to it by a test.
 *
 * Everything that is not in this table is a bug and leaves the gateway as `internal`, without its message.
 */
import { Code } from '@connectrpc/connect';

interface ErrorRow {
  /** gRPC / Connect status. */
  readonly code: Code;
  /** Status on the plain HTTP routes. */
  readonly http: number;
  /** Whether the same call may succeed later. */
  readonly retryable: boolean;
  /** What the user can do about it, in one sentence. */
  readonly fix: string;
}

const table = {
  key_missing: {
    code: Code.Unauthenticated,
    http: 401,
    retryable: false,
    fix: 'Send the header "authorization: Bearer <key>"; `sluice tenant add` makes a key.',
  },
  key_unknown: {
    code: Code.Unauthenticated,
    http: 401,
    retryable: false,
    fix: 'Use a key that `sluice tenant list` shows as active; a revoked key stays revoked.',
  },
  batch_malformed: {
    code: Code.InvalidArgument,
    http: 400,
    retryable: false,
    fix: 'Encode the batch with a generated client; the byte offset is where the bytes stop being an EventBatch.',
  },
  request_malformed: {
    code: Code.InvalidArgument,
    http: 400,
    retryable: false,
    fix: 'Encode and frame the request with a client that is generated from proto/.',
  },
  json_invalid: {
    code: Code.InvalidArgument,
    http: 400,
    retryable: false,
    fix: 'Correct the named field; field names and values follow the Protobuf JSON mapping of sluice.event.v1.',
  },
  event_invalid: {
    code: Code.InvalidArgument,
    http: 400,
    retryable: false,
    fix: 'Correct the named field; the rules stand beside each field in proto/sluice/event/v1/event.proto.',
  },
  batch_id_invalid: {
    code: Code.InvalidArgument,
    http: 400,
    retryable: false,
    fix: 'Use 1 to 64 letters, digits and . _ : / - as batch_id or idempotency-key, or leave it out.',
  },
  sent_at_invalid: {
    code: Code.InvalidArgument,
    http: 400,
    retryable: false,
    fix: 'Send a sent_at between 1970-01-01 and 2199-12-31, or leave it out; a clock so far off breaks occurred_at as well.',
  },
  batch_empty: {
    code: Code.InvalidArgument,
    http: 400,
    retryable: false,
    fix: 'Put at least one event into the batch.',
  },
  batch_too_large: {
    code: Code.InvalidArgument,
    http: 413,
    retryable: false,
    fix: 'Split the batch; GetLimits returns the limits of a batch.',
  },
  inflates_too_far: {
    code: Code.InvalidArgument,
    http: 413,
    retryable: false,
    fix: 'Send it without gzip, or in smaller batches. A call may inflate to 256 KiB, plus 50 bytes for each byte of gzip.',
  },
  media_type: {
    code: Code.InvalidArgument,
    http: 415,
    retryable: false,
    fix: 'Send "content-type: application/json" to the HTTP routes, and to the RPC routes one that the "accept-post" header of the answer names.',
  },
  content_encoding: {
    code: Code.InvalidArgument,
    http: 415,
    retryable: false,
    fix: 'Send the body as it is, or with "content-encoding: gzip".',
  },
  headers_too_large: {
    code: Code.InvalidArgument,
    http: 431,
    retryable: false,
    fix: 'Send at most 100 headers and 16 KiB of names and values; leave cookies out.',
  },
  http_malformed: {
    code: Code.InvalidArgument,
    http: 400,
    retryable: false,
    fix: 'Send HTTP/1.1 or HTTP/2 with legal headers, and a content-length that is the number of bytes of the body.',
  },
  request_timeout: {
    code: Code.DeadlineExceeded,
    http: 408,
    retryable: true,
    fix: 'Send the same request again: its headers within 10 s, then at least 60 KiB in each minute (a call without a batch: all within 10 s). On a slow line send smaller batches.',
  },
  body_silent: {
    code: Code.DeadlineExceeded,
    http: 408,
    retryable: true,
    fix: 'Send the whole request without pauses of 15 s. Complete the request before you send it, or split the batch for a slow line.',
  },
  answers_unread: {
    code: Code.Aborted,
    http: 408,
    retryable: true,
    fix: 'Read the answers of the stream while you send; send the batches without an answer again with attempt + 1.',
  },
  http_version: {
    code: Code.Unimplemented,
    http: 505,
    retryable: false,
    fix: 'Use HTTP/2 for calls with a stream of requests, or send single batches with Publish.',
  },
  not_found: {
    code: Code.Unimplemented,
    http: 404,
    retryable: false,
    fix: 'The routes are POST /v1/events, POST /v1/events/batch, /healthz, /readyz, and the RPCs that reflection lists.',
  },
  method_not_allowed: {
    code: Code.Unimplemented,
    http: 405,
    retryable: false,
    fix: 'Use the method that the "allow" header of the answer names.',
  },
  overloaded: {
    code: Code.ResourceExhausted,
    http: 429,
    retryable: true,
    fix: 'Wait as RetryInfo (or Retry-After) says, then send the same batch again with attempt + 1.',
  },
  too_many_calls: {
    code: Code.ResourceExhausted,
    http: 429,
    retryable: true,
    fix: 'End calls that you do not need: one stream carries any number of batches. Then wait as RetryInfo says, and try again.',
  },
  too_many_refusals: {
    code: Code.ResourceExhausted,
    http: 429,
    retryable: true,
    fix: 'Correct what the refusals name. Send batches without an answer again on another stream or connection, after the wait of RetryInfo (or Retry-After).',
  },
  log_full: {
    code: Code.ResourceExhausted,
    http: 429,
    retryable: true,
    fix: 'Wait as RetryInfo says. Operator: workers lag behind, or the stream limit (max_bytes) is too small.',
  },
  log_unavailable: {
    code: Code.Unavailable,
    http: 503,
    retryable: true,
    fix: 'Send the same batch again later with attempt + 1. Operator: the message has the reason; most often NATS cannot be reached.',
  },
  outcome_unknown: {
    code: Code.Unavailable,
    http: 503,
    retryable: true,
    fix: 'Send the same batch_id again with attempt + 1. The log may have the batch; Sluice does not store a retry twice.',
  },
  status_unavailable: {
    code: Code.Unavailable,
    http: 503,
    retryable: true,
    fix: 'Ask again later. Operator: no worker answers, or ClickHouse cannot be reached.',
  },
  draining: {
    code: Code.Unavailable,
    http: 503,
    retryable: true,
    fix: 'Connect again: this gateway is shutting down.',
  },
  deadline: {
    code: Code.DeadlineExceeded,
    http: 504,
    retryable: true,
    fix: 'Send the same batch_id again with attempt + 1 and a longer deadline. The log may have the batch; Sluice does not store a retry twice.',
  },
  internal: {
    code: Code.Internal,
    http: 500,
    retryable: false,
    fix: 'This is a fault of the gateway: find the request in its stderr, and report it.',
  },
} as const satisfies Record<string, ErrorRow>;

export type ErrorName = keyof typeof table;

/** The table, for docs and for mapping. */
export const errorTable: Readonly<Record<ErrorName, ErrorRow>> = Object.freeze(table);

export interface SluiceErrorOptions {
  /** How long a client should wait before it tries again, in ms. */
  readonly retryAfterMs?: number;
  /** True when the log may have the batch in spite of the error. */
  readonly outcomeUnknown?: boolean;
  /** Byte offset into the batch, for `batch_malformed`; into the body, unpacked, for `json_invalid`. */
  readonly offset?: number;
  /** The field at fault, as the contract names it: "sent_at", "touch.channel". */
  readonly field?: string;
  /** Why an event is invalid, by its name in RejectionCode. */
  readonly rejection?: string;
  readonly cause?: unknown;
}

/** An error for a user, by its row in the table. `message` says what happened this time. */
export class SluiceError extends Error {
  override readonly name = 'SluiceError';
  readonly code: ErrorName;
  readonly retryAfterMs: number | undefined;
  readonly outcomeUnknown: boolean;
  readonly offset: number | undefined;
  readonly field: string | undefined;
  readonly rejection: string | undefined;

  constructor(code: ErrorName, message: string, options: SluiceErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
    this.retryAfterMs = options.retryAfterMs;
    this.outcomeUnknown = options.outcomeUnknown ?? false;
    this.offset = options.offset;
    this.field = options.field;
    this.rejection = options.rejection;
  }

  get row(): ErrorRow {
    return errorTable[this.code];
  }
}

/** A failure of a command that the user can mend: printed as one line without a stack, exit code 1. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

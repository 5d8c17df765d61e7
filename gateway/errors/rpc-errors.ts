/**
 * Errors on their way out: rows of the one table (lib/errors.ts) become RPC errors with details, JSON answers, and
 * failures of one batch on a stream. And on their way in: what the RPC library throws becomes a row, where it has one.
 * Beside it, http-answers.ts writes JSON answers of plain HTTP.
 */
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { type Duration, DurationSchema } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError } from '@connectrpc/connect';
import { ErrorInfoSchema, RetryInfoSchema } from '#gen/google/rpc/error_details_pb.js';
import type { BatchFailureSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { SluiceError } from '../../lib/errors.js';

const domain = 'sluice';

/** Of ms; never negative. */
export function duration(ms: number): Duration {
  const whole = Math.max(0, Math.round(ms));
  return create(DurationSchema, {
    seconds: BigInt(Math.floor(whole / 1_000)),
    nanos: (whole % 1_000) * 1_000_000,
  });
}

/** With a full stop, unless it ends as a sentence does. */
export const sentence = (text: string): string => (/[.!?]$/.test(text) ? text : `${text}.`);

/** What happened, and what to do about it. */
export const explain = ({ message, row }: SluiceError): string => `${sentence(message)} ${row.fix}`;

/** Of an answer with the status 401 (RFC 9110, 11.6.1; RFC 6750, 3). */
export const authenticate = 'Bearer realm="sluice"';

/**
 * A grpc-message as gRPC encodes it: only what is no printable ASCII, and the percent sign. The library encodes punctuation as well, and
 * grpc-js, which decodes as for a whole URI, shows its users "the key is not known%2C".
 * @param encoded by encodeURIComponent
 * @see https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md "Status-Message"
 */
export const plainGrpcMessage = (encoded: string): string =>
  encoded.replace(/%(?:[2-6][0-9A-F]|7[0-9A-E])/g, (code) => (code === '%25' ? code : decodeURIComponent(code)));

/** The answer to an RPC: code, message with the fix, ErrorInfo with the name of the row, RetryInfo where it may help. */
export function toConnectError(error: SluiceError): ConnectError {
  const metadata: Record<string, string> = {};
  if (error.offset !== undefined) metadata.offset = String(error.offset);
  if (error.field !== undefined) metadata.field = error.field;
  if (error.outcomeUnknown) metadata.outcome_unknown = 'true';
  const details: ConnectError['details'] = [
    { desc: ErrorInfoSchema, value: create(ErrorInfoSchema, { reason: error.code, domain, metadata }) },
  ];
  if (error.row.retryable) {
    details.push({
      desc: RetryInfoSchema,
      value: create(RetryInfoSchema, { retryDelay: duration(error.retryAfterMs ?? 0) }),
    });
  }
  const rpc = new ConnectError(explain(error), error.row.code, retryHeader(error));
  rpc.details = details;
  return rpc;
}

function retryHeader(error: SluiceError): Record<string, string> {
  return error.row.retryable && error.retryAfterMs !== undefined
    ? { 'retry-after': String(Math.ceil(error.retryAfterMs / 1_000)) }
    : {};
}

/** The answer on the plain HTTP routes. */
export function toHttpAnswer(error: SluiceError): { status: number; headers: Record<string, string>; body: object } {
  const { row, code, message, offset, field, rejection, retryAfterMs, outcomeUnknown } = error;
  return {
    status: row.http,
    headers: { ...retryHeader(error), ...(row.http === 401 ? { 'www-authenticate': authenticate } : {}) },
    body: {
      error: {
        code,
        message,
        fix: row.fix,
        retryable: row.retryable,
        ...(offset === undefined ? {} : { offset }),
        ...(field === undefined ? {} : { field }),
        ...(rejection === undefined ? {} : { rejection }),
        ...(row.retryable && retryAfterMs !== undefined ? { retryAfterMs } : {}),
        ...(outcomeUnknown ? { outcomeUnknown } : {}),
      },
    },
  };
}

/** The answer about one batch of a stream. */
export function toBatchFailure(batchId: string, error: SluiceError): MessageInitShape<typeof BatchFailureSchema> {
  return {
    batchId,
    code: error.row.code,
    message: explain(error),
    ...(error.row.retryable ? { retryAfter: duration(error.retryAfterMs ?? 0) } : {}),
    outcomeUnknown: error.outcomeUnknown,
  };
}

/**
 * What went wrong while a request was read, in our words: the library calls bytes that are no Protobuf, or no whole gzip, `internal`,
 * and a message over the limit `resource_exhausted`, which clients would retry forever. Its other refusals get a name: clients take a
 * refusal without one for the word of a proxy, and try again. Undefined: it has no row (cancelled, unavailable …).
 */
export function fromLibraryError(code: Code, message: string): SluiceError | undefined {
  if (message.startsWith('parse binary:')) {
    return new SluiceError('request_malformed', `The request is not a valid message (${message.slice(14)}).`);
  }
  if (message.includes('larger than configured readMaxBytes')) {
    return new SluiceError(
      'batch_too_large',
      `The request is too large (${message.replace('configured readMaxBytes', 'the limit of')} bytes).`,
    );
  }
  if (/^(?:protocol error: |decompression failed|received compressed |\w+ takes (?:one|a) message)/.test(message)) {
    return new SluiceError('request_malformed', capital(message));
  }
  if (message.startsWith('unknown compression ')) return new SluiceError('content_encoding', capital(message));
  if (message === 'the operation timed out') return new SluiceError('deadline', 'The deadline passed.');
  if (code === Code.InvalidArgument && /^cannot decode|JSON/.test(message)) {
    return new SluiceError('json_invalid', sentence(message.slice(0, 500)));
  }
  return undefined;
}

const capital = (text: string): string => `${text.slice(0, 1).toUpperCase()}${text.slice(1, 500)}`;

/** An error of the library with the name of its row. gRPC itself says which code an unknown or undeclared compression has. */
export function named({ code, rawMessage, metadata }: ConnectError, row: SluiceError): ConnectError {
  const rpc = toConnectError(row);
  if (!/^(?:unknown compression|received compressed) /.test(rawMessage)) return rpc;
  const prescribed = new ConnectError(rpc.rawMessage, code, metadata);
  prescribed.details = rpc.details;
  return prescribed;
}

/**
 * Whatever a handler caught, as the error to answer with, and its row when it has one. `unexpected` is a bug: log it,
 * the caller hears `internal` only.
 */
export function classify(reason: unknown): { rpc: ConnectError; row: SluiceError | undefined; unexpected: boolean } {
  if (reason instanceof SluiceError) {
    return { rpc: toConnectError(reason), row: reason, unexpected: reason.code === 'internal' };
  }
  if (reason instanceof ConnectError) {
    const row = fromLibraryError(reason.code, reason.rawMessage);
    return { rpc: row === undefined ? reason : named(reason, row), row, unexpected: false };
  }
  const row = new SluiceError('internal', 'The gateway failed.', { cause: reason });
  return { rpc: toConnectError(row), row, unexpected: true };
}

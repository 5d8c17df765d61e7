/**
 * What the hot handler knows of the three protocols: which requests it takes, how an answer begins, and how it ends, with or without an
 * error. The library takes content types with other spellings, other codecs and compressed requests. Each detail here is the same in
 * the library; compare.it.test.ts checks that.
 */
import type { OutgoingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import type { ConnectError } from '@connectrpc/connect';
import {
  codeToHttpStatus,
  createEndStreamSerialization,
  endStreamFlag,
  errorToJsonBytes,
} from '@connectrpc/connect/protocol-connect';
import { setTrailerStatus } from '@connectrpc/connect/protocol-grpc';
import { trailerFlag, trailerSerialize } from '@connectrpc/connect/protocol-grpc-web';
import { authenticate, plainGrpcMessage } from '../../errors/rpc-errors.js';
import { connectTimeout, grpcTimeout } from '../call-timeout.js';
import { envelope } from './answers.js';
import { endWithBytes } from './last-write.js';

/** As in routes.ts. */
export const jsonOptions = { ignoreUnknownFields: false, alwaysEmitImplicit: true };

export interface Protocol {
  /** Of answers. */
  readonly contentType: string;
  /** Request and answer are in envelopes. */
  readonly enveloped: boolean;
  /** An envelope with this flag is skipped. */
  readonly skippedFlags: number;
  /** Bits that have no meaning. */
  readonly reservedFlags: number;
  /** Names of headers: how the request is compressed, which compression is understood, how long the caller waits. */
  readonly encoding: string;
  readonly acceptEncoding: string | undefined;
  readonly timeout: string;
  readonly timeoutOf: (text: string) => number | undefined;
  /** The end of an answer comes as HTTP trailers. */
  readonly trailers: boolean;
  /** The last bytes of the body. */
  readonly last: (error: ConnectError | undefined) => Buffer | undefined;
}

const endStream = createEndStreamSerialization(jsonOptions);
const wellEnded = {
  web: envelope(trailerFlag, Buffer.from('grpc-status: 0\r\n')),
  connect: envelope(endStreamFlag, Buffer.from('{}')),
};

const grpc: Protocol = {
  contentType: 'application/grpc+proto',
  enveloped: true,
  skippedFlags: 0,
  reservedFlags: 0xfe,
  encoding: 'grpc-encoding',
  acceptEncoding: 'grpc-accept-encoding',
  timeout: 'grpc-timeout',
  timeoutOf: grpcTimeout,
  trailers: true,
  last: () => undefined,
};

const grpcWeb: Protocol = {
  ...grpc,
  contentType: 'application/grpc-web+proto',
  skippedFlags: trailerFlag,
  reservedFlags: 0x7e,
  trailers: false,
  last: (error) =>
    error === undefined
      ? wellEnded.web
      : envelope(trailerFlag, trailerSerialize(setTrailerStatus(new Headers(), error))),
};

const connectStream: Protocol = {
  contentType: 'application/connect+proto',
  enveloped: true,
  skippedFlags: endStreamFlag,
  reservedFlags: 0xfc,
  encoding: 'connect-content-encoding',
  acceptEncoding: 'connect-accept-encoding',
  timeout: 'connect-timeout-ms',
  timeoutOf: connectTimeout,
  trailers: false,
  last: (error) =>
    error === undefined
      ? wellEnded.connect
      : envelope(endStreamFlag, endStream.serialize({ metadata: new Headers(), error })),
};

const connectUnary: Protocol = {
  ...connectStream,
  contentType: 'application/proto',
  enveloped: false,
  encoding: 'content-encoding',
  // Answers are too small to be compressed, and here nothing is said about that which is not.
  acceptEncoding: undefined,
  last: () => undefined,
};

type ByContentType = Readonly<Partial<Record<string, Protocol>>>;
const both = {
  'application/grpc': grpc,
  'application/grpc+proto': grpc,
  'application/grpc-web': grpcWeb,
  'application/grpc-web+proto': grpcWeb,
};
export const unaryProtocols: ByContentType = Object.assign(Object.create(null), both, {
  'application/proto': connectUnary,
});
export const streamProtocols: ByContentType = Object.assign(Object.create(null), both, {
  'application/connect+proto': connectStream,
});

const wellTrailers: OutgoingHttpHeaders = { 'grpc-status': '0' };

// One listener for all streams: `this` says which.
function sendWellTrailers(this: ServerHttp2Stream): void {
  this.sendTrailers(wellTrailers);
}

function trailersOf(error: ConnectError): OutgoingHttpHeaders {
  const trailers = Object.fromEntries(setTrailerStatus(new Headers(), error));
  return { ...trailers, 'grpc-message': plainGrpcMessage(trailers['grpc-message'] ?? '') };
}

export interface AnswerOptions {
  /** The caller understands gzip: the library says so in its answers, though none is long enough. */
  readonly gzip: boolean;
  /** Headers for browsers. */
  readonly cors: OutgoingHttpHeaders | undefined;
}

const heads = { plain: new Map<Protocol, OutgoingHttpHeaders>(), gzip: new Map<Protocol, OutgoingHttpHeaders>() };

function headOf(protocol: Protocol, { gzip, cors }: AnswerOptions): OutgoingHttpHeaders {
  const known = gzip ? heads.gzip : heads.plain;
  let head = known.get(protocol);
  if (head === undefined) {
    head = { ':status': 200, 'content-type': protocol.contentType, ...(gzip ? { [protocol.encoding]: 'gzip' } : {}) };
    known.set(protocol, head);
  }
  return cors === undefined ? head : { ...cors, ...head };
}

const withTrailers = { waitForTrailers: true };

/** Begins an answer in envelopes. */
export function begin(stream: ServerHttp2Stream, protocol: Protocol, options: AnswerOptions): void {
  stream.respond(headOf(protocol, options), protocol.trailers ? withTrailers : undefined);
}

/** Ends an answer in envelopes that has begun. `body` goes before the end. */
export function end(
  stream: ServerHttp2Stream,
  protocol: Protocol,
  body: Buffer | undefined,
  error: ConnectError | undefined,
): void {
  if (protocol.trailers) {
    if (error === undefined) {
      stream.on('wantTrailers', sendWellTrailers);
    } else {
      const trailers = trailersOf(error);
      stream.on('wantTrailers', () => stream.sendTrailers(trailers));
    }
    stream.end(body);
    return;
  }
  const last = protocol.last(error) as Buffer;
  endWithBytes(stream, body === undefined ? last : Buffer.concat([body, last]));
}

/** Refuses a call in envelopes before it is served. @returns whether it was one */
export function refuseCall(stream: ServerHttp2Stream, contentType: string | undefined, error: ConnectError): boolean {
  const protocol = streamProtocols[contentType ?? ''];
  if (protocol === undefined) return false;
  begin(stream, protocol, { gzip: false, cors: undefined });
  end(stream, protocol, undefined, error);
  return true;
}

/** A whole answer of Connect's unary form. */
export function answerUnary(stream: ServerHttp2Stream, { cors }: AnswerOptions, body: Buffer): void {
  stream.respond({
    ':status': 200,
    'content-type': connectUnary.contentType,
    'content-length': String(body.length),
    ...cors,
  });
  endWithBytes(stream, body);
}

/** @param ours the error arose while the request was read, and not in its handler: the library tells details in another style */
export function refuseUnary(
  stream: ServerHttp2Stream,
  { cors }: AnswerOptions,
  error: ConnectError,
  ours: boolean,
): void {
  const body = errorToJsonBytes(error, ours ? undefined : jsonOptions);
  const status = codeToHttpStatus(error.code);
  stream.respond({
    ':status': status,
    ...Object.fromEntries(error.metadata),
    ...(status === 401 ? { 'www-authenticate': authenticate } : {}),
    'content-type': 'application/json',
    'content-length': String(body.length),
    ...cors,
  });
  endWithBytes(stream, Buffer.from(body.buffer, body.byteOffset, body.length));
}

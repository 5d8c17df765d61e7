/**
 * The hot path of the RPCs: binary `Publish` and `PublishStream` over HTTP/2, served on node's bare streams below the RPC library, in
 * gRPC, gRPC-Web and Connect. The library serves everything else, and every unusual request (another codec, compression, a query, an
 * invalid authority). Its answers are the reference: compare.it.test.ts sends the same to both and compares them. The setting `hotPath`
 * turns this off.
 *
 *   handler.ts          which requests are taken, and what is known of their callers
 *   unary.ts            Publish; stream.ts PublishStream, stream-input.ts its requests (the rules are in ../stream-call.ts)
 *   protocols.ts        how answers begin and end in the three protocols
 *   envelopes.ts        messages out of chunks; ../../held/message-buffers.ts the memory for those that span some
 *   request.ts          the fields around the batch
 *   answers.ts          answers to bytes; last-write.ts how the last of them are written
 */
import type { IncomingHttpHeaders, OutgoingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import { create } from '@bufbuild/protobuf';
import { LimitsSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { contractRevision } from '../../../lib/contract/index.js';
import { type Caller, isStrangers } from '../../../lib/tenants.js';
import { classify } from '../../errors/rpc-errors.js';
import type { CallGate } from '../../held/call-gate.js';
import type { MessageBuffers } from '../../held/message-buffers.js';
import { createDeadlines } from '../../ingest/deadlines.js';
import { resetWhenAnswered } from '../../listener/answered-early.js';
import type { Connection } from '../../listener/connection.js';
import type { ServedStream } from '../../listener/server.js';
import type { GatewayMetrics } from '../../metrics.js';
import { farthestTimeout } from '../call-timeout.js';
import type { KeyedCallOptions } from '../keyed-calls.js';
import type { BatchCall } from '../publish-batch.js';
import { type FactOptions, type RequestFacts, readFacts, wasResent } from '../request-facts.js';
import { maxRequestBytes } from '../routes.js';
import { type AnswerOptions, begin, end, type Protocol, streamProtocols, unaryProtocols } from './protocols.js';
import { encodeLimits, serveStream } from './stream.js';
import { UnaryCall, type UnaryOptions } from './unary.js';

export interface HotOptions extends KeyedCallOptions {
  readonly gate: CallGate;
  readonly buffers: MessageBuffers;
  /** What answers to a browser's call carry. */
  readonly cors: (origin: string) => OutgoingHttpHeaders | undefined;
}

/** Serves the stream, or leaves it alone: undefined. */
export type HotHandler = (
  stream: ServerHttp2Stream,
  headers: IncomingHttpHeaders,
  connection: Connection,
) => ServedStream | undefined;

const publishPath = '/sluice.ingest.v1.IngestService/Publish';
const publishStreamPath = '/sluice.ingest.v1.IngestService/PublishStream';
/** A call whose request is not whole is answered at most so much after its deadline. */
const deadlineTickMs = 20;

export function createHotHandler(options: HotOptions): HotHandler {
  const { ingest, keys, streams, publish, metrics, gate, unfinished, buffers } = options;
  const maxMessageBytes = maxRequestBytes(ingest.limits.maxBatchBytes);
  const deadlines = createDeadlines<UnaryCall>({
    tickMs: deadlineTickMs,
    now: Date.now,
    after: (ms, callback) => {
      const timer = setTimeout(callback, ms).unref();
      return () => clearTimeout(timer);
    },
    expired: (call) => call.expired(),
  });
  const { lookup, authorize, callOf } = createCallers(options);

  const unary: UnaryOptions = {
    authorize,
    call: (headers, connection, deadlineAt) =>
      callOf(headers, lookup(headers), connection, deadlineAt, publishPath.slice(1)),
    publish,
    gate,
    deadlines,
    unfinished,
    maxMessageBytes,
    buffers,
    onRefused: metrics.failed,
  };

  const shared = {
    limits: encodeLimits(create(LimitsSchema, { ...ingest.limits, contract: contractRevision })),
    maxBytesInFlight: ingest.limits.maxStreamBytesInFlight,
    maxUncommitted: ingest.limits.maxStreamUncommitted,
    publish,
    room: ingest.room,
    commits: ingest.commits,
    onFailed: metrics.failed,
    onRefused: metrics.failed,
    maxMessageBytes,
    buffers,
    unfinished,
  };

  const streaming = (
    stream: ServerHttp2Stream,
    headers: IncomingHttpHeaders,
    connection: Connection,
    protocol: Protocol,
    timeout: number | undefined,
    answer: AnswerOptions,
  ): (() => void) => {
    let caller: Caller;
    let leave: () => void;
    try {
      caller = authorize(headers, connection);
      leave = streams.take(caller.keyId);
    } catch (reason) {
      refuseStream(stream, protocol, answer, reason, metrics.failed);
      return ignore;
    }
    const deadlineAt = timeout === undefined ? undefined : Date.now() + timeout;
    const closed = serveStream(stream, {
      ...shared,
      protocol,
      answer,
      timeout,
      call: callOf(headers, caller, connection, deadlineAt, publishStreamPath.slice(1)),
      connection,
      onRevoked: (listener) => keys.onRevoked(caller.keyId, listener),
    });
    return () => {
      leave();
      closed();
    };
  };

  return (stream, headers, connection) => {
    const path = headers[':path'];
    const single = path === publishPath;
    if (!single && path !== publishStreamPath) return undefined;
    const protocol = (single ? unaryProtocols : streamProtocols)[headers['content-type'] ?? ''];
    if (protocol === undefined || !isPlain(headers, protocol)) return undefined;
    const wait = headers[protocol.timeout];
    const timeout = wait === undefined ? undefined : timeoutOf(wait, protocol, single);
    if (wait !== undefined && timeout === undefined) return undefined;

    // Resets are everyday life; 'close' follows.
    stream.on('error', ignore);
    const answer = answerOf(headers, protocol, options.cors);
    if (!single) return { closed: streaming(stream, headers, connection, protocol, timeout, answer) };
    const call = new UnaryCall(stream, headers, connection, protocol, timeout, answer, unary);
    call.arrive();
    return call;
  };
}

/** Who calls, and what is known of the call. */
function createCallers({ tenants, facts }: HotOptions) {
  const lookup = (headers: IncomingHttpHeaders): Caller => tenants.lookup(headers.authorization);
  /** The refusal that is one too many is answered, too; calls behind it are not begun. */
  const authorize = (headers: IncomingHttpHeaders, connection: Connection): Caller => {
    try {
      const caller = lookup(headers);
      connection.known();
      return caller;
    } catch (reason) {
      if (isStrangers(reason)) connection.refused();
      throw reason;
    }
  };

  const callOf = (
    headers: IncomingHttpHeaders,
    caller: Caller,
    connection: Connection,
    deadlineAt: number | undefined,
    name: string,
  ): BatchCall => ({
    caller,
    facts: factsOf(headers, connection.remoteAddress, facts),
    openedAt: connection.openedAt,
    resent: wasResent((name) => textOf(headers[name])),
    deadlineAt,
    name,
  });

  return { lookup, authorize, callOf };
}

function refuseStream(
  stream: ServerHttp2Stream,
  protocol: Protocol,
  answer: AnswerOptions,
  reason: unknown,
  onRefused: GatewayMetrics['failed'],
): void {
  const { rpc, row } = classify(reason);
  if (row !== undefined) onRefused(row.code);
  resetWhenAnswered(stream);
  begin(stream, protocol, answer);
  end(stream, protocol, undefined, rpc);
}

/** A request without anything unusual: the library serves the others. */
function isPlain(headers: IncomingHttpHeaders, protocol: Protocol): boolean {
  if (headers[':method'] !== 'POST' || headers.expect !== undefined) return false;
  if (!isAuthority(headers[':authority'])) return false;
  const encoding = headers[protocol.encoding];
  if (encoding !== undefined && encoding !== 'identity') return false;
  return isTrimmed(headers.authorization) && isTrimmed(headers['user-agent']);
}

/** ms; undefined: the library's to judge. */
function timeoutOf(wait: string | readonly string[], protocol: Protocol, single: boolean): number | undefined {
  const timeout = typeof wait === 'string' ? protocol.timeoutOf(wait) : undefined;
  if (timeout === undefined || (timeout === 0 && !single) || timeout > farthestTimeout) return undefined;
  return timeout;
}

function answerOf(headers: IncomingHttpHeaders, protocol: Protocol, cors: HotOptions['cors']): AnswerOptions {
  const accepted = protocol.acceptEncoding === undefined ? undefined : headers[protocol.acceptEncoding];
  const { origin } = headers;
  if (accepted === undefined && origin === undefined) return plainAnswer;
  return { gzip: knowsGzip(accepted), cors: origin === undefined ? undefined : cors(origin) };
}

const maxAuthorities = 1_000;
const authorities = new Set<string>();

/** The library makes a URL of it, and fails on one that is none. */
function isAuthority(authority: string | undefined): boolean {
  if (authority === undefined) return false;
  if (authorities.has(authority)) return true;
  if (!URL.canParse(`http://${authority}/`)) return false;
  if (authorities.size >= maxAuthorities) authorities.clear();
  authorities.add(authority);
  return true;
}

const plainAnswer: AnswerOptions = { gzip: false, cors: undefined };

function ignore(): void {}

const knowsGzip = (accepted: string | readonly string[] | undefined): boolean =>
  typeof accepted === 'string' && accepted.split(',').some((name) => name.trim() === 'gzip');

/** The library's headers lose the white space around a value. */
const isTrimmed = (value: string | undefined): boolean =>
  value === undefined || value === '' || (value.charCodeAt(0) > 32 && value.charCodeAt(value.length - 1) > 32);

const textOf = (value: string | readonly string[] | undefined): string | undefined =>
  typeof value === 'string' ? value : undefined;

const noFacts: RequestFacts = {
  traceparent: undefined,
  client: undefined,
  userAgent: undefined,
  clientAddress: undefined,
};
/** Facts that hang on the user agent alone: most calls have no other. */
const byUserAgent = new Map<string, RequestFacts>();
const maxUserAgents = 1_000;

function factsOf(headers: IncomingHttpHeaders, remoteAddress: string | undefined, options: FactOptions): RequestFacts {
  const agent = headers['user-agent'];
  if (
    options.storeClientAddress ||
    options.storeUserAgent ||
    headers.traceparent !== undefined ||
    headers['x-user-agent'] !== undefined
  ) {
    return readFacts((name) => textOf(headers[name]), remoteAddress, options);
  }
  if (agent === undefined) return noFacts;
  let facts = byUserAgent.get(agent);
  if (facts === undefined) {
    facts = readFacts((name) => (name === 'user-agent' ? agent : undefined), undefined, options);
    if (byUserAgent.size >= maxUserAgents) byUserAgent.clear();
    byUserAgent.set(agent, facts);
  }
  return facts;
}

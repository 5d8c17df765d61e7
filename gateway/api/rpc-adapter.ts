/**
 * Passes a Node request to the RPC library's handler, and the answer back. It replaces connect-node's adapter, which writes to the
 * console, throws on a request without an authority, and lets a distant deadline wrap around (call-timeout.ts).
 */
import { Code, ConnectError, createContextValues } from '@connectrpc/connect';
import type { UniversalServerRequest, UniversalServerResponse } from '@connectrpc/connect/protocol';
import { universalRequestFromNodeRequest, universalResponseToNodeResponse } from '@connectrpc/connect-node';
import { IngestService } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { type ErrorName, SluiceError } from '../../lib/errors.js';
import type { Logger } from '../../lib/logger.js';
import { authenticate, plainGrpcMessage, toConnectError, toHttpAnswer } from '../errors/rpc-errors.js';
import { knownFlags } from '../held/envelope-flags.js';
import type { MessageBuffers } from '../held/message-buffers.js';
import { admittedKey, type RequestInput } from '../held/request-input.js';
import { wholeMessages } from '../held/whole-messages.js';
import { type Connection, connectionKey, exchangeKey } from '../listener/connection.js';
import { inviteBody } from '../listener/expect-continue.js';
import type { NodeRequest, NodeResponse } from '../listener/node-request.js';
import { cancelStream } from '../listener/reset-stream.js';
import { unreadMs } from '../listener/unread-calls.js';
import { roundTimeout } from './call-timeout.js';
import { fromText } from './grpc-web-text.js';
import { normalizeNames, rpcTypes } from './media-types.js';
import { maxJsonBytes, maxRequestBytes } from './routes.js';
import type { RpcRoute } from './rpc-route.js';

export type RequestHandler = (
  request: NodeRequest,
  response: NodeResponse,
  connection: Connection,
  input: RequestInput,
) => void;

export interface RpcAdapterOptions {
  /** Handlers by path. */
  readonly routes: ReadonlyMap<string, RpcRoute>;
  /** Of other paths. */
  readonly fallback: RequestHandler;
  /** As the setting says. */
  readonly maxBatchBytes: number;
  readonly buffers: MessageBuffers;
  readonly isRoomy: () => boolean;
  readonly onRefused: (name: ErrorName) => void;
  readonly logger: Logger;
}

export function createRpcAdapter(options: RpcAdapterOptions): RequestHandler {
  const { routes, fallback, logger } = options;
  return (request, response, connection, input) => {
    const url = request.url ?? '';
    const query = url.indexOf('?');
    const handler = routes.get(query < 0 ? url : url.slice(0, query));
    if (handler === undefined) return fallback(request, response, connection, input);
    const run = async (): Promise<void> => {
      normalizeNames(request.headers);
      roundTimeout(request.headers);
      makeAuthorityPlain(request);
      const values = createContextValues()
        .set(connectionKey, connection)
        .set(admittedKey, () => input.admitted());
      const universal = universalRequestFromNodeRequest(request, response as never, undefined, values);
      values.set(exchangeKey, { closed: universal.signal, cancel: () => cancelExchange(response) });
      const asked = { ...universal, body: bodyOf(input, response) };
      const answer = await serve(handler, asked, input, options);
      await universalResponseToNodeResponse(inTime(answer, response, options), response as never);
    };
    run().catch((reason: unknown) => {
      // Callers go away at any time; that is no news.
      const code = ConnectError.from(reason).code;
      if (code !== Code.Aborted && code !== Code.Canceled) logger.debug({ err: reason, url }, 'call ended badly');
      if (!response.headersSent) response.writeHead(400);
      if (!response.writableEnded) response.end();
    });
  };
}

function cancelExchange(response: NodeResponse): void {
  if ('stream' in response) cancelStream(response.stream);
  else response.destroy();
}

/** The library makes a URL of the authority, and fails on one that is missing or fits into none. Nothing here reads it. */
function makeAuthorityPlain(request: NodeRequest): void {
  const authority = 'authority' in request ? request.authority : request.headers.host;
  if (authority !== undefined && URL.canParse(`http://${authority}`)) return;
  if ('authority' in request) Object.defineProperty(request, 'authority', { value: 'localhost' });
  else request.headers.host = 'localhost';
}

/** The body, which the client is asked for when it is read. */
async function* bodyOf(input: RequestInput, response: NodeResponse): AsyncGenerator<Uint8Array> {
  inviteBody(response);
  for (;;) {
    let chunk: Buffer | undefined;
    try {
      chunk = await input.next();
    } catch (reason) {
      throw reason instanceof SluiceError ? toConnectError(reason) : reason;
    }
    if (chunk === undefined) return;
    yield chunk;
  }
}

async function serve(
  handler: RpcRoute,
  request: UniversalServerRequest,
  input: RequestInput,
  { maxBatchBytes, buffers, isRoomy }: RpcAdapterOptions,
): Promise<UniversalServerResponse> {
  const text = fromText(request);
  const plain = text?.request ?? request;
  const type = plain.header.get('content-type') ?? '';
  const known = knownFlags(type);
  const max = (/[/+]json\b/i.test(type) ? maxJsonBytes : maxRequestBytes)(maxBatchBytes);
  const header = new Headers(plain.header);
  // The library would take memory for it at once. Node holds the body to it.
  if (known === undefined && Number(header.get('content-length') ?? 0) <= max) header.delete('content-length');
  const body = wholeMessages(plain.body as AsyncIterable<Uint8Array>, {
    known,
    // A single call has one message, and is refused for whatever its body holds beyond.
    streams: request.url.endsWith(`/${IngestService.method.publishStream.name}`),
    max,
    buffers,
    isRoomy,
    keep: (bytes) => input.keep(bytes),
  });
  const checked = { ...plain, header, body };
  const answer = readable(explained(await handler(checked), handler, request));
  return text === undefined ? answer : text.toText(answer);
}

/** The answer, which ends with its stream or connection when the client does not read on. */
function inTime(
  answer: UniversalServerResponse,
  response: NodeResponse,
  { onRefused }: RpcAdapterOptions,
): UniversalServerResponse {
  const { body } = answer;
  if (body === undefined) return answer;
  const end = (): void => {
    onRefused('answers_unread');
    cancelExchange(response);
  };
  let timer: NodeJS.Timeout | undefined;
  let closed = false;
  // A write to a stream that is reset may never settle. Then the generator below stands still, and its timer would hold the call.
  response.once('close', () => {
    closed = true;
    clearTimeout(timer);
  });
  async function* watched(): AsyncGenerator<Uint8Array> {
    for await (const chunk of body as AsyncIterable<Uint8Array>) {
      // The next one is asked for when the transport has room for it.
      if (!closed) timer = setTimeout(end, unreadMs).unref();
      try {
        yield chunk;
      } finally {
        clearTimeout(timer);
      }
    }
  }
  return { ...answer, body: watched() };
}

/** An answer of gRPC, whose trailers the library writes once its body has ended. */
function readable(answer: UniversalServerResponse): UniversalServerResponse {
  const { body, trailer } = answer;
  if (trailer === undefined || body === undefined) return answer;
  async function* whole(): AsyncGenerator<Uint8Array> {
    yield* body as AsyncIterable<Uint8Array>;
    const message = (trailer as Headers).get('grpc-message');
    if (message !== null) (trailer as Headers).set('grpc-message', plainGrpcMessage(message));
  }
  return { ...answer, body: whole() };
}

/** What the library refuses by a bare status, with the headers that belong to it and a body that says what to do. */
function explained(
  answer: UniversalServerResponse,
  { allowedMethods }: RpcRoute,
  { method, header }: UniversalServerRequest,
): UniversalServerResponse {
  const more = new Headers(answer.header);
  nameEncodings(more, header);
  if (answer.status === 401) more.set('www-authenticate', authenticate);
  if (answer.status === 405) {
    more.set('allow', [...allowedMethods, 'OPTIONS'].join(', '));
    if (method === 'OPTIONS') return { ...answer, status: 204, header: more };
  }
  const error = bareRefusal(answer.status, method, header.get('content-type') ?? '');
  if (error === undefined || answer.body !== undefined) return { ...answer, header: more };
  if (error.code === 'media_type') more.set('accept-post', rpcTypes.join(', '));
  const bytes = Buffer.from(`${JSON.stringify(toHttpAnswer(error).body)}\n`);
  more.set('content-type', 'application/json');
  more.set('content-length', String(bytes.length));
  return { ...answer, status: error.row.http, header: more, body: once(bytes) };
}

/** Which encodings would do, where the request has another one: the library says so in the trailers, which is too late for some. */
function nameEncodings(answer: Headers, request: Headers): void {
  const type = request.get('content-type') ?? '';
  const prefix = type.startsWith('application/grpc')
    ? 'grpc-'
    : type.startsWith('application/connect')
      ? 'connect-'
      : '';
  const used = request.get(prefix === 'connect-' ? 'connect-content-encoding' : `${prefix || 'content-'}encoding`);
  if (used !== null && used !== 'gzip' && used !== 'identity') answer.set(`${prefix}accept-encoding`, 'gzip');
}

function bareRefusal(status: number, method: string, contentType: string): SluiceError | undefined {
  switch (status) {
    case 405:
      return new SluiceError('method_not_allowed', `${method.slice(0, 20)} is not allowed here.`);
    case 415:
      if (method === 'GET') {
        return new SluiceError(
          'request_malformed',
          'A GET needs its message in the query, such as "?connect=v1&encoding=json&message=%7B%7D", with "json" or "proto" as encoding.',
        );
      }
      return new SluiceError('media_type', `The content type is "${contentType.slice(0, 100)}".`);
    case 505:
      return new SluiceError('http_version', 'This call needs HTTP/2, and the request came over HTTP/1.1.');
    default:
      return undefined;
  }
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

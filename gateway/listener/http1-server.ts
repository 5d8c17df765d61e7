/** Node's HTTP/1.1 server, which listens nowhere itself: sockets are handed to it. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';
import { SluiceError } from '../../lib/errors.js';
import { answerError } from '../errors/http-answers.js';
import { lastWordsMs } from './answered-early.js';
import type { Connection } from './connection.js';
import { type ConnectionEntry, connectionKey, countPayload, type OnConnection } from './connection-entry.js';
import type { ConnectionTable } from './connection-table.js';
import { expectsContinue } from './expect-continue.js';
import { maxHeaderBytes } from './header-limits.js';
import { goesOn, noteBegin } from './late-request.js';
import { unreadMs } from './unread-calls.js';
import { closeOwed, incompleteOn, owe, refuseUnreadable } from './unreadable-http1.js';

export interface Http1Options {
  readonly connections: Pick<ConnectionTable, 'begin' | 'finish' | 'forwards' | 'sentAhead'>;
  readonly onRequest: (request: IncomingMessage, response: ServerResponse, connection: Connection) => void;
  /** ms for a whole request; one whose body flows may take longer (late-request.ts). */
  readonly requestTimeout: number;
  /** A peer has sent too many requests ahead, and its connection ends. */
  readonly onPipelined: () => void;
}

export interface Http1Server {
  serve(entry: ConnectionEntry): void;
  closeIdleConnections(): void;
  close(): void;
}

const headersTimeout = 10_000;
const keepAliveTimeout = 75_000;
/** Requests of one connection that have no complete answer: clients that send ahead at all send a few. */
const maxPipelined = 64;
/** Further ones that came before the answer that refuses them, and are not served. No client does that by mistake. */
const maxIgnored = 64;
/** ms for the answers to those that were taken, before the connection is destroyed. */
const lastAnswersMs = 10_000;

export function createHttp1Server({ connections, onRequest, requestTimeout, onPipelined }: Http1Options): Http1Server {
  const server: Server = createServer({
    headersTimeout: Math.min(headersTimeout, requestTimeout),
    requestTimeout,
    keepAliveTimeout,
    maxHeaderSize: maxHeaderBytes,
    connectionsCheckingInterval: Math.min(2_000, requestTimeout / 4),
  });
  server.maxRequestsPerSocket = 0;
  // All are passed on, within the bytes: by default node drops those past 2,000 without a word.
  server.maxHeadersCount = 0;

  function onClosed(this: ServerResponse & OnConnection): void {
    const entry = this[connectionKey];
    if (entry !== undefined) connections.finish(entry, true);
  }
  const serve = (request: IncomingMessage & OnConnection, response: ServerResponse & OnConnection): void => {
    const entry = (request.socket as OnConnection)[connectionKey];
    if (entry === undefined || entry.phase === 'gone') return void request.socket.destroy();
    // The connection ends behind the answer to the first one too many: those after it were not taken.
    if (entry.open > maxPipelined) {
      if (++entry.ignored > maxIgnored) connections.sentAhead(entry);
      return;
    }
    if (entry.calls === 0 && isForwarded(request.headers)) connections.forwards(entry);
    request.url = originForm(request.url ?? '');
    owe(response, request.socket);
    connections.begin(entry);
    noteBegin(request, entry);
    countPayload(request, entry);
    response[connectionKey] = entry;
    // 'finish' may not come, 'close' does (FACT-9).
    response.once('close', onClosed);
    if (entry.open > maxPipelined) {
      onPipelined();
      refusePipelined(request, response);
      setTimeout(() => entry.raw.destroy(), lastAnswersMs).unref();
      return;
    }
    if (entry.control.ending !== undefined) response.shouldKeepAlive = false;
    if (hasBody(request)) closeWhenAnsweredEarly(request, response, entry);
    onRequest(request, response, entry.control);
  };
  server.on('request', serve);
  server.on('checkContinue', (request: IncomingMessage, response: ServerResponse) => {
    expectsContinue(response);
    serve(request, response);
  });
  // Others may be ignored (RFC 9110, 10.1.1); node refuses them without a word.
  server.on('checkExpectation', serve);
  server.on('clientError', (error: NodeJS.ErrnoException, socket: Duplex & OnConnection) => {
    const refuse = (): void => refuseUnreadable(error, socket);
    const entry = socket[connectionKey];
    const late = error.code === 'ERR_HTTP_REQUEST_TIMEOUT' ? incompleteOn(socket) : undefined;
    if (late === undefined || entry === undefined || !goesOn(late, entry, requestTimeout, refuse)) refuse();
  });
  // Neither reads nor takes a byte: nothing is wrong, unless an answer waits for it.
  server.setTimeout(unreadMs, (socket) => {
    if (socket.writableLength > 0) socket.destroy();
  });
  // A server that does not listen itself starts its timeout checks on this event only.
  server.emit('listening');

  return {
    serve(entry) {
      (entry.socket as OnConnection)[connectionKey] = entry;
      // After node has told the answer that is on the socket.
      entry.socket.once('close', () => setImmediate(closeOwed, entry.socket));
      server.emit('connection', entry.socket);
    },
    closeIdleConnections: () => server.closeIdleConnections(),
    close: () => void server.close(),
  };
}

function refusePipelined({ socket }: IncomingMessage, response: ServerResponse): void {
  socket.pause();
  response.shouldKeepAlive = false;
  const text = `This connection has ${maxPipelined} requests without an answer, which is the most.`;
  answerError(response, new SluiceError('overloaded', text, { retryAfterMs: 1_000 }));
}

/** Whether a proxy has passed the request on. */
export const isForwarded = (headers: { readonly [name: string]: unknown }): boolean =>
  headers['x-forwarded-for'] !== undefined || headers.forwarded !== undefined;

/** The target of an HTTP/1.1 request as it is without a proxy: "http://host/path" is "/path" (RFC 9112, 3.2.2). */
function originForm(target: string): string {
  if (!/^https?:\/\//i.test(target)) return target;
  const path = target.indexOf('/', target.indexOf('//') + 2);
  return path < 0 ? '/' : target.slice(path);
}

const hasBody = ({ headers }: IncomingMessage): boolean =>
  headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;

/**
 * An HTTP/1.1 answer that comes before the end of the request, e.g. "too large": some clients then stop sending and use
 * the connection again, so it has to end. It ends gently, because closing a socket with unread bytes resets it, and the
 * reset may overtake the answer.
 */
function closeWhenAnsweredEarly(request: IncomingMessage, response: ServerResponse, entry: ConnectionEntry): void {
  const writeHead = response.writeHead.bind(response) as (...args: unknown[]) => ServerResponse;
  response.writeHead = (...args: unknown[]) => {
    const { socket } = response;
    if (!request.complete && socket !== null) {
      response.shouldKeepAlive = false;
      // What still comes of the body is dropped, and is no abuse.
      if (entry.phase === 'serving') entry.phase = 'ending';
      socket.destroySoon = () => {
        socket.end();
        setTimeout(() => socket.destroy(), lastWordsMs).unref();
      };
    }
    return writeHead(...args);
  };
}

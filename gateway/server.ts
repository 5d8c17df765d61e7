/**
 * The listener: one port for HTTP/1.1 and HTTP/2, in the clear or with TLS.
 *
 *   S1  Without TLS the first bytes tell the protocol; they are put back, and the socket goes to an HTTP/2 or HTTP/1.1
 *       server that listens nowhere itself. With TLS, ALPN tells.
 *   S2  Everything a peer can hold is bounded: connections, streams, header bytes, window bytes, and time (first bytes,
 *       handshake, headers, a whole HTTP/1.1 request, a silent HTTP/2 peer).
 *   S3  A connection ends on two occasions, its age and the drain, and always the same way: handlers are told, HTTP/2
 *       peers get GOAWAY, requests in flight are answered, then it closes; what remains after the grace is cut.
 */
import { createServer as createHttp1, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import {
  constants,
  createServer as createHttp2,
  type Http2Server,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type IncomingHttpHeaders,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { Socket } from 'node:net';
import { UsageError } from '../lib/errors.js';
import { lastWordsMs, resetWhenAnswered } from './answered-early.js';
import { type Connection, type ConnectionControl, createConnection } from './connection.js';
import { expectsContinue } from './expect-continue.js';
import { hardHeaderListBytes, maxHeaderBytes, maxHeaders } from './header-limits.js';
import { createListener, type ListenerOptions } from './listener.js';
import { sniffProtocol } from './sniff-protocol.js';
import { keepThroughStreamFaults } from './stream-faults.js';
import { owe, refuseUnreadable } from './unreadable-http1.js';

export type NodeRequest = IncomingMessage | Http2ServerRequest;
export type NodeResponse = ServerResponse | Http2ServerResponse;

export interface FrontServerOptions extends ListenerOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  /** Further connections are refused. */
  readonly maxConnections: number;
  /** ms, ±10 %. */
  readonly maxConnectionAge: number;
  /** ms that requests in flight get when a connection has reached its age. */
  readonly grace: number;
  /** ms without a byte after which an HTTP/2 peer is asked whether it lives. @default 30 s */
  readonly silenceTimeout?: number;
  readonly onRequest: (request: NodeRequest, response: NodeResponse, connection: Connection) => void;
  /** May serve an HTTP/2 request on its bare stream. What it leaves alone (undefined) becomes a request. @default none */
  readonly onStream?:
    | ((
        stream: ServerHttp2Stream,
        headers: IncomingHttpHeaders,
        connection: Connection,
        rawHeaders: readonly string[],
      ) => ServedStream | undefined)
    | undefined;
}

/** Who serves a bare stream. */
export interface ServedStream {
  /** The stream is over. */
  closed(): void;
}

export interface FrontServer {
  readonly port: number;
  readonly connections: number;
  /** Requests that have no complete answer yet. */
  readonly requests: number;
  /** Stops listening, ends connections (S3), and resolves when all are gone: at the latest a moment after graceMs. */
  drain(reason: string, graceMs: number): Promise<void>;
}

/** The other end of an HTTP/2 connection. */
interface Http2Peer {
  readonly connection: Connection;
  /** Streams now. */
  open: number;
  /** When the last stream ended. */
  idleSince: number;
}

const peerKey = Symbol('peer');
const servedKey = Symbol('served');
interface PeerStream {
  [peerKey]?: Http2Peer;
  [servedKey]?: ServedStream;
}

const headersTimeout = 10_000;
const requestTimeout = 60_000;
const keepAliveTimeout = 75_000;
/** After this long without a byte, an HTTP/2 peer must answer a ping, in a third of that time again. */
const silenceTimeout = 30_000;
/** An HTTP/2 connection without a call is let go after this time. */
const idleTimeout = 5 * 60_000;
const maxStreamsPerConnection = 256;
/** F9: the default of 64 KiB makes a batch of 1 MiB wait for 16 round trips. */
const streamWindow = 1024 * 1024;
const connectionWindow = 4 * 1024 * 1024;

/** Starts to listen. @throws UsageError when the port or the certificate cannot be used */
export async function listen(options: FrontServerOptions): Promise<FrontServer> {
  const { log, onRequest } = options;
  const sockets = new Map<Socket, { connection: ConnectionControl; session: ServerHttp2Session | undefined }>();
  let requests = 0;
  let onQuiet: (() => void) | undefined;

  const leave = (): void => {
    requests--;
    if (requests === 0) onQuiet?.();
  };

  const track = (request: NodeRequest, response: NodeResponse, connection: Connection): void => {
    requests++;
    // 'finish' is not for sure, 'close' is (F9).
    response.once('close', leave);
    if ('shouldKeepAlive' in response) {
      if (connection.ending !== undefined) response.shouldKeepAlive = false;
      if (hasBody(request)) closeWhenAnsweredEarly(request, response);
    }
    onRequest(request, response, connection);
  };

  // Sockets are handed over synchronously, so this is the one that is being handed over when a session is born.
  let handingOver: Socket | undefined;
  const peers = new WeakMap<object, Http2Peer>();
  const peerOf = ({ session }: ServerHttp2Stream): Http2Peer | undefined =>
    session === undefined ? undefined : peers.get(session);

  const http1: Server = createHttp1({
    headersTimeout,
    requestTimeout,
    keepAliveTimeout,
    maxHeaderSize: maxHeaderBytes,
    connectionsCheckingInterval: 2_000,
  });
  http1.maxRequestsPerSocket = 0;
  // All are passed on, within the bytes: by default node drops those past 2,000 without a word.
  http1.maxHeadersCount = 0;
  const onRequest1 = (request: IncomingMessage, response: ServerResponse): void => {
    const known = sockets.get(request.socket);
    if (known === undefined) return void request.socket.destroy();
    request.url = originForm(request.url ?? '');
    owe(response, request.socket);
    track(request, response, known.connection);
  };
  http1.on('request', onRequest1);
  http1.on('checkContinue', (request: IncomingMessage, response: ServerResponse) => {
    expectsContinue(response);
    onRequest1(request, response);
  });
  // Others may be ignored (RFC 9110, 10.1.1); node refuses them without a word.
  http1.on('checkExpectation', onRequest1);
  http1.on('clientError', refuseUnreadable);
  // A server that does not listen itself starts its timeout checks on this event only.
  http1.emit('listening');

  const http2: Http2Server = createHttp2({
    settings: {
      maxConcurrentStreams: maxStreamsPerConnection,
      initialWindowSize: streamWindow,
      maxHeaderListSize: hardHeaderListBytes,
    },
    maxHeaderListPairs: 2 * maxHeaders,
    maxSessionInvalidFrames: 100,
  });
  http2.on('session', (session: ServerHttp2Session) => {
    const socket = handingOver;
    const known = socket === undefined ? undefined : sockets.get(socket);
    if (socket === undefined || known === undefined) return session.destroy();
    // A session that failed ends its socket and waits for the peer to do so too, who may have done it before.
    session.once('close', () => setTimeout(() => socket.destroy(), lastWordsMs).unref());
    known.session = session;
    const peer: Http2Peer = { connection: known.connection, open: 0, idleSince: Date.now() };
    peers.set(session, peer);
    keepThroughStreamFaults(session, () => log.debug('an HTTP/2 stream broke the protocol, and was reset'));
    session.setLocalWindowSize(connectionWindow);
    watchSilence(session, peer, options.silenceTimeout ?? silenceTimeout);
  });
  http2.on('stream', (stream: ServerHttp2Stream & PeerStream, headers: IncomingHttpHeaders, ...more: unknown[]) => {
    const peer = peerOf(stream);
    if (peer === undefined) {
      // Its connection has ended before this was called, perhaps with an error, which is then the stream's too.
      stream.on('error', () => {});
      return stream.close(constants.NGHTTP2_INTERNAL_ERROR);
    }
    peer.open++;
    stream[peerKey] = peer;
    stream.on('close', onStreamClosed);
    const served = options.onStream?.(stream, headers, peer.connection, more[1] as readonly string[]);
    if (served === undefined) {
      compatible.emit('stream', stream, headers, ...more);
    } else {
      requests++;
      stream[servedKey] = served;
    }
  });
  // One listener for all streams: a closure for each costs more than what it does.
  function onStreamClosed(this: PeerStream): void {
    const peer = this[peerKey];
    if (peer !== undefined && --peer.open === 0) peer.idleSince = Date.now();
    const served = this[servedKey];
    if (served === undefined) return;
    served.closed();
    leave();
  }
  // Makes requests of streams, and nothing else: node does it for all streams of a server that has this listener.
  const compatible = createHttp2();
  const onRequest2 = (request: Http2ServerRequest, response: Http2ServerResponse): void => {
    const peer = peerOf(request.stream);
    if (peer === undefined) return void request.stream.close(constants.NGHTTP2_INTERNAL_ERROR);
    resetWhenAnsweredEarly(request.stream, response);
    endWithLastByte(request.stream);
    track(request, response, peer.connection);
  };
  compatible.on('request', onRequest2);
  compatible.on('checkContinue', (request, response) => {
    expectsContinue(response);
    onRequest2(request, response);
  });
  http2.on('sessionError', (error: Error) => log.debug({ error: error.message }, 'HTTP/2 connection failed'));

  const serve = (socket: Socket, protocol: 'h1' | 'h2'): void => {
    handingOver = socket;
    (protocol === 'h2' ? http2 : http1).emit('connection', socket);
    handingOver = undefined;
  };

  const accept = (socket: Socket): boolean => {
    if (sockets.size >= options.maxConnections) {
      log.warn({ maxConnections: options.maxConnections }, 'connection refused: too many');
      socket.destroy();
      return false;
    }
    const connection = createConnection(socket.remoteAddress);
    sockets.set(socket, { connection, session: undefined });
    const age = setTimeout(
      () => endConnection(socket, 'This connection has reached its greatest age.', options.grace),
      options.maxConnectionAge * (0.9 + Math.random() * 0.2),
    );
    age.unref();
    socket.once('close', () => {
      clearTimeout(age);
      sockets.delete(socket);
      // Handlers of streams that are still busy hear it from their own abort signal; others need not know.
    });
    // Resets are everyday life; whoever uses the socket hears of them by its own listener.
    socket.on('error', () => {});
    return true;
  };

  const endConnection = (socket: Socket, reason: string, graceMs: number): void => {
    const known = sockets.get(socket);
    if (known === undefined || known.connection.ending !== undefined) return;
    const { connection, session } = known;
    connection.end({ reason, graceMs });
    if (session !== undefined) {
      // GOAWAY; the session closes itself after its last stream.
      session.close();
    } else if (socket.bytesRead === 0) {
      socket.destroy();
    }
    setTimeout(() => {
      if (session !== undefined && !session.destroyed) session.destroy();
      socket.destroy();
    }, graceMs + lastWordsMs).unref();
  };

  const server = createListener(options, (socket, protocol) => {
    if (!accept(socket)) return;
    if (protocol !== undefined) return serve(socket, protocol);
    sniffProtocol(socket, (found) => serve(socket, found));
  });

  const port = await new Promise<number>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => {
      reject(
        new UsageError(
          error.code === 'EADDRINUSE'
            ? `Port ${options.port} on ${options.host} is in use: end the program that has it, or choose another with --port.`
            : `Cannot listen on ${options.host}:${options.port} (${error.code ?? error.message}): choose others with --host and --port.`,
        ),
      );
    });
    server.listen(options.port, options.host, () => {
      const address = server.address();
      resolve(typeof address === 'object' && address !== null ? address.port : options.port);
    });
  });

  return {
    port,
    get connections() {
      return sockets.size;
    },
    get requests() {
      return requests;
    },
    async drain(reason, graceMs) {
      server.close();
      for (const socket of sockets.keys()) endConnection(socket, reason, graceMs);
      http1.closeIdleConnections();
      if (requests > 0) {
        await new Promise<void>((resolve) => {
          const timer = setTimeout(resolve, graceMs + lastWordsMs);
          onQuiet = () => {
            clearTimeout(timer);
            // The last answer may still be on its way to the socket.
            setImmediate(resolve);
          };
        });
      }
      http1.closeIdleConnections();
      const until = Date.now() + lastWordsMs;
      while (sockets.size > 0 && Date.now() < until) await new Promise((resolve) => setTimeout(resolve, 10));
      for (const [socket, { session }] of sockets) {
        session?.destroy();
        socket.destroy();
      }
      http1.close();
    },
  };
}

/** The target of an HTTP/1.1 request as it is without a proxy: "http://host/path" is "/path" (RFC 9112, 3.2.2). */
function originForm(target: string): string {
  if (!/^https?:\/\//i.test(target)) return target;
  const path = target.indexOf('/', target.indexOf('//') + 2);
  return path < 0 ? '/' : target.slice(path);
}

const hasBody = ({ headers }: NodeRequest): boolean =>
  headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;

/**
 * An HTTP/1.1 answer that comes before the end of the request, e.g. "too large": some clients then stop sending and use
 * the connection again, so it has to end. It ends gently, because closing a socket with unread bytes resets it, and the
 * reset may overtake the answer.
 */
function closeWhenAnsweredEarly(request: NodeRequest, response: ServerResponse): void {
  const writeHead = response.writeHead.bind(response) as (...args: unknown[]) => ServerResponse;
  response.writeHead = (...args: unknown[]) => {
    const { socket } = response;
    if (!request.complete && socket !== null) {
      response.shouldKeepAlive = false;
      socket.destroySoon = () => {
        socket.end();
        setTimeout(() => socket.destroy(), lastWordsMs).unref();
      };
    }
    return writeHead(...args);
  };
}

/**
 * Node's compatibility API waits for trailers with every answer, and ends it in a frame of its own, a turn after the last byte. okhttp
 * counts a call as over when it has all bytes of the content-length, and begins another one too early (see answered-early.ts).
 */
function endWithLastByte(stream: ServerHttp2Stream): void {
  const respond = stream.respond.bind(stream);
  stream.respond = (headers, options) =>
    respond(headers, headers?.['content-length'] === undefined ? options : { ...options, waitForTrailers: false });
}

/** The same on HTTP/2, where only the stream ends. */
function resetWhenAnsweredEarly(stream: ServerHttp2Stream, response: Http2ServerResponse): void {
  if (stream.endAfterHeaders) return;
  const end = response.end.bind(response) as (...args: unknown[]) => Http2ServerResponse;
  response.end = (...args: unknown[]) => {
    resetWhenAnswered(stream);
    return end(...args);
  };
}

/**
 * Lets go of HTTP/2 peers that have nothing open for long, and of those that do not answer (S2): gone without a word, or
 * refused by nghttp2 for a broken frame, after which node reads no more and would not see even the end of the connection.
 */
function watchSilence(session: ServerHttp2Session, peer: Http2Peer, silence: number): void {
  session.setTimeout(silence, () => {
    if (peer.open === 0 && Date.now() - peer.idleSince > idleTimeout) return session.close();
    const dead = setTimeout(() => session.destroy(), silence / 3);
    dead.unref();
    const sent = session.ping((error) => {
      clearTimeout(dead);
      // Not within the session's own callback.
      if (error !== null) setImmediate(() => session.destroy());
    });
    if (!sent) {
      clearTimeout(dead);
      session.destroy();
    }
  });
}

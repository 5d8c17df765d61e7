/** Node's HTTP/2 server, which listens nowhere itself: sockets are handed to it. */
import {
  constants,
  createServer,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type IncomingHttpHeaders,
  type Http2Server as NodeHttp2Server,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2';
import type { Socket } from 'node:net';
import type { Logger } from '../../lib/logger.js';
import { MiB } from '../../lib/units.js';
import { lastWordsMs, resetWhenAnswered } from './answered-early.js';
import type { Connection } from './connection.js';
import {
  type ConnectionEntry,
  connectionKey,
  countCutShort,
  countPayload,
  isTakenOver,
  type OnConnection,
} from './connection-entry.js';
import type { ConnectionTable } from './connection-table.js';
import { expectsContinue, isContinue } from './expect-continue.js';
import { hardHeaderListBytes, maxHeaders } from './header-limits.js';
import { isForwarded } from './http1-server.js';
import { resetLateOnes } from './late-reset.js';
import { keepThroughStreamFaults } from './stream-faults.js';
import { narrowWindow } from './stream-windows.js';

/** Who serves a bare stream. */
export interface ServedStream {
  /** The stream is over. */
  closed(): void;
}

export interface Http2Options {
  readonly connections: Pick<ConnectionTable, 'begin' | 'finish' | 'forwards' | 'flooded'>;
  readonly onRequest: (request: Http2ServerRequest, response: Http2ServerResponse, connection: Connection) => void;
  /** May serve a request on its bare stream. What it leaves alone (undefined) becomes a request. */
  readonly onStream:
    | ((
        stream: ServerHttp2Stream,
        headers: IncomingHttpHeaders,
        connection: Connection,
        rawHeaders: readonly string[],
      ) => ServedStream | undefined)
    | undefined;
  /** ms without a byte after which a peer must answer a ping, in a third of that time again. */
  readonly silenceTimeout: number;
  readonly logger: Logger;
}

export interface Http2Server {
  serve(entry: ConnectionEntry): void;
}

const servedKey = Symbol('served');
const beganKey = Symbol('began');
/** A turn of the event loop. One object for all of its streams, which would else need a number each. */
interface Turn {
  readonly number: number;
  /** When its first stream began. Monotonic, ms. */
  readonly at: number;
}
interface StreamMarks extends OnConnection {
  [servedKey]?: ServedStream;
  [beganKey]?: Turn;
}
type Stream = ServerHttp2Stream & StreamMarks;

/**
 * Node reports a stream while it still reads what came with it. A call that is refused at once is over in the same turn, and so is one
 * whose reset lies right behind it: they look the same. After so many of them in a row a connection's calls wait for the end of the turn,
 * and those that are closed by then are neither served nor counted as answered.
 */
const maxHasty = 16;

/** In the time after which a silent peer is asked whether it lives. */
const silenceLooks = 4;
const maxStreamsPerConnection = 256;
/** Node gives it back as bytes come, so it bounds nothing. What a stream may have under way does (stream-windows.ts). */
const connectionWindow = 4 * MiB;
/**
 * nghttp2's own bound on resets ends a connection with 1,000 at once, as many as one read may hold, and by default with more than 33 a
 * second from then on, answered calls among them. A second's 33 is too few for a proxy; reset-budget.ts counts those that matter.
 * Node 20 does not know these options and stays with the default.
 */
const resets = { streamResetBurst: 1_000, streamResetRate: 1_000 };

/** NGHTTP2_ERR_FLOODED. */
const floodedError = -904;

/** Counts turns of the event loop in which streams begin. */
class Turns {
  /** That are over. */
  over = 0;
  #current: Turn | undefined;
  readonly #end = (): void => {
    this.over++;
    this.#current = undefined;
  };

  current(): Turn {
    if (this.#current === undefined) {
      setImmediate(this.#end);
      this.#current = { number: this.over, at: performance.now() };
    }
    return this.#current;
  }
}

export function createHttp2Server({
  connections,
  onRequest,
  onStream,
  silenceTimeout,
  logger,
}: Http2Options): Http2Server {
  // Sockets are handed over synchronously, so this is the one that is being handed over when a session is born.
  let handingOver: ConnectionEntry | undefined;

  const server: NodeHttp2Server = createServer({
    settings: {
      maxConcurrentStreams: maxStreamsPerConnection,
      initialWindowSize: narrowWindow,
      maxHeaderListSize: hardHeaderListBytes,
    },
    maxHeaderListPairs: 2 * maxHeaders,
    maxSessionInvalidFrames: 100,
    ...resets,
  });
  server.on('session', (session: ServerHttp2Session) => {
    const entry = handingOver;
    if (entry === undefined) return session.destroy();
    // A session that failed ends its socket and waits for the peer to do so too, who may have done it before.
    session.once('close', () => setTimeout(() => entry.socket.destroy(), lastWordsMs).unref());
    entry.session = session;
    (session as OnConnection)[connectionKey] = entry;
    session.on('stream', onNewStream as () => void);
    keepThroughStreamFaults(session, () => logger.debug('an HTTP/2 stream broke the protocol, and was reset'));
    session.setLocalWindowSize(connectionWindow);
    watchSilence(session, entry.socket, silenceTimeout);
  });

  const turns = new Turns();

  // One listener for all sessions: a stream that is closed already knows its session no more.
  function onNewStream(this: OnConnection, stream: Stream, headers: IncomingHttpHeaders, ...more: unknown[]): void {
    const entry = this[connectionKey];
    // Its connection has ended before this was called, perhaps with an error, which is then the stream's too.
    if (entry === undefined || entry.phase === 'gone' || entry.session?.destroyed === true) {
      stream.on('error', ignore);
      return;
    }
    if (entry.calls === 0 && isForwarded(headers)) connections.forwards(entry);
    connections.begin(entry);
    resetLateOnes(entry);
    stream[beganKey] = turns.current();
    if (entry.hasty < maxHasty) {
      serve(entry, stream, headers, more);
    } else {
      stream.on('error', ignore);
      setImmediate(serve, entry, stream, headers, more);
    }
  }
  const serve = (entry: ConnectionEntry, stream: Stream, headers: IncomingHttpHeaders, more: unknown[]): void => {
    if (stream.closed || stream.destroyed) {
      stream.on('error', ignore);
      if (!stream.endAfterHeaders) entry.cutShort++;
      connections.finish(entry, entry.session?.destroyed === true, stream[beganKey]?.at);
      return;
    }
    countPayload(stream, entry);
    stream.on('close', onStreamClosed);
    const served = onStream?.(stream, headers, entry.control, more[1] as readonly string[]);
    if (served === undefined) compatible.emit('stream', stream, headers, ...more);
    else stream[servedKey] = served;
  };
  // One listener for all streams: a closure for each costs more than what it does.
  function onStreamClosed(this: Stream): void {
    const entry = this[connectionKey];
    if (entry === undefined) return;
    this[servedKey]?.closed();
    if (!this.readableEnded && !this.endAfterHeaders) countCutShort(this);
    const began = this[beganKey];
    // Node may put the end of a stream off to the next turn.
    entry.hasty = turns.over - (began?.number ?? 0) <= 1 ? entry.hasty + 1 : 0;
    // 'finish' may not come (FACT-9), and with the session all of its streams end, whichever side ended it.
    const whole = this.rstCode === constants.NGHTTP2_NO_ERROR ? !this.aborted : this.writableFinished;
    const answered = (this.headersSent && whole) || entry.session?.destroyed === true || isTakenOver(this);
    connections.finish(entry, answered, began?.at);
  }

  const compatible = createRequestMaker((request, response) => {
    const entry = (request.stream as OnConnection)[connectionKey];
    if (entry === undefined) return void request.stream.close(constants.NGHTTP2_INTERNAL_ERROR);
    resetWhenAnsweredEarly(request.stream, response);
    endWithLastByte(request.stream);
    onRequest(request, response, entry.control);
  });
  server.on('sessionError', (error: NodeJS.ErrnoException, session: OnConnection) => {
    letGoOfFrames(error);
    logger.debug({ error: error.message }, 'HTTP/2 connection failed');
    const entry = session[connectionKey];
    if (entry !== undefined && isFlood(error)) connections.flooded(entry);
  });

  return {
    serve(entry) {
      handingOver = entry;
      server.emit('connection', entry.socket);
      handingOver = undefined;
    },
  };
}

/** Makes requests of streams, and nothing else: node does it for all streams of a server that has a listener for requests. */
function createRequestMaker(
  serve: (request: Http2ServerRequest, response: Http2ServerResponse) => void,
): NodeHttp2Server {
  const maker = createServer();
  maker.on('request', serve);
  maker.on('checkContinue', (request, response) => {
    expectsContinue(response);
    serve(request, response);
  });
  // Node would answer these two itself, past all limits. Expectations may be ignored (RFC 9110, 10.1.1), and are the same in any case.
  maker.on('checkExpectation', (request, response) => {
    if (isContinue(request.headers.expect)) expectsContinue(response);
    serve(request, response);
  });
  // It has no path, and this is no proxy: there is nothing at it.
  maker.on('connect', (request: Http2ServerRequest, response: Http2ServerResponse) => {
    request.url = '';
    serve(request, response);
  });
  return maker;
}

function ignore(): void {}

/**
 * An error keeps the receivers of its stack frames until its stack is read as text. Here that is Node's native session: it keeps its
 * settings until the peer acknowledges them, they keep the session's socket, and that keeps this error. 30 KB would stay forever.
 */
function letGoOfFrames(error: Error): void {
  void error.stack;
}

/** Pings, settings, empty frames: what Node and nghttp2 count themselves. */
const isFlood = ({ code, errno }: NodeJS.ErrnoException): boolean =>
  errno === floodedError || code === 'ERR_HTTP2_TOO_MANY_INVALID_FRAMES';

/**
 * Node's compatibility API waits for trailers with every answer, and ends it in a frame of its own, a turn after the last byte. okhttp
 * counts a call as over when it has all bytes of the content-length, and begins another one too early (see answered-early.ts).
 */
function endWithLastByte(stream: ServerHttp2Stream): void {
  const respond = stream.respond.bind(stream);
  stream.respond = (headers, options) =>
    respond(headers, headers?.['content-length'] === undefined ? options : { ...options, waitForTrailers: false });
}

/** An answer that comes before the end of the request ends the stream, and not the connection. */
function resetWhenAnsweredEarly(stream: ServerHttp2Stream, response: Http2ServerResponse): void {
  const end = response.end.bind(response) as (...args: unknown[]) => Http2ServerResponse;
  response.end = (...args: unknown[]) => {
    resetWhenAnswered(stream);
    return end(...args);
  };
}

/**
 * Lets go of peers that do not answer: gone without a word, or refused by nghttp2 for a broken frame, after which node reads no
 * more and would not see even the end of the connection. The timer is our own: that of `session.setTimeout` outlives a session that is
 * destroyed, and keeps it in memory until it is due.
 */
function watchSilence(session: ServerHttp2Session, socket: Socket, silence: number): void {
  let read = socket.bytesRead;
  let quiet = 0;
  const looking = setInterval(() => {
    const { bytesRead } = socket;
    quiet = bytesRead === read ? quiet + 1 : 0;
    read = bytesRead;
    if (quiet >= silenceLooks) {
      quiet = 0;
      askWhetherAlive(session, silence / 3);
    }
  }, silence / silenceLooks);
  looking.unref();
  session.once('close', () => clearInterval(looking));
}

function askWhetherAlive(session: ServerHttp2Session, patienceMs: number): void {
  const dead = setTimeout(() => session.destroy(), patienceMs);
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
}

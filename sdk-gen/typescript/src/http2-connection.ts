/**
 * One HTTP/2 connection for one call: it opens a socket, makes one request on it, and finds out when the other end is gone.
 *
 * Every 'error' event of the socket, the session and the stream has a listener for as long as these exist, also for late
 * faults: an event without one would end the host's process. The first fault is kept, because it says more than those that follow from it.
 */
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  connect as connectHttp2,
  constants,
  type IncomingHttpHeaders,
  type IncomingHttpStatusHeader,
  type OutgoingHttpHeaders,
} from 'node:http2';
import { connect as connectTcp, isIP, type Socket } from 'node:net';
import { connect as connectTls, type TLSSocket } from 'node:tls';
import type { Clock } from './clock.js';
import type { ClientTls } from './options.js';

export interface Http2ConnectionOptions {
  /** `http:` or `https:`; a path is not used. */
  readonly url: string;
  /** For `https:`. @default Node's authorities, and no certificate */
  readonly tls?: ClientTls | undefined;
  readonly clock: Clock;
  /** A connection on which nothing came for so long is sent a PING, ms. */
  readonly pingIntervalMs: number;
  /** Without an answer to it for so long, the other end is taken for gone, ms. */
  readonly pingTimeoutMs: number;
  /** The stream or the connection is over: nothing more comes. Called once, never after `close`. */
  readonly onOver: () => void;
}

export type AnswerHeaders = IncomingHttpHeaders & IncomingHttpStatusHeader;

export interface Http2Connection {
  /** Origin that requests must have. */
  readonly authority: string;
  /** What went wrong first; undefined: nothing. */
  readonly fault: Error | undefined;
  /** Headers of the answer, once there is one. */
  readonly answer: AnswerHeaders | undefined;
  /** Connects and makes the one request. Rejects with the fault. */
  request(method: string, path: string, headers: OutgoingHttpHeaders, options: object): Promise<ClientHttp2Stream>;
  notifyResponseByteRead(): void;
  /** Ends the connection at once. */
  close(): void;
}

const ignore = (): void => {};

export function openHttp2Connection(options: Http2ConnectionOptions): Http2Connection {
  const url = new URL(options.url);
  const socket = openSocket(url, options.tls);
  let session: ClientHttp2Session | undefined;
  let fault: Error | undefined;
  let answer: AnswerHeaders | undefined;
  let understood = false;
  let state: 'open' | 'over' | 'closed' = 'open';
  let refuse: (reason: Error) => void = ignore;
  const ready = new Promise<void>((resolve, reject) => {
    refuse = reject;
    socket.once(url.protocol === 'http:' ? 'connect' : 'secureConnect', resolve);
  });
  // `request` hears of it; before that nothing waits.
  ready.catch(ignore);
  let keepAlive: KeepAlive | undefined;

  const end = (): void => {
    keepAlive?.stop();
    // Not within an event of the session: destroying one inside its own callback is what Node handles worst.
    setImmediate(() => {
      session?.destroy();
      socket.destroy();
    });
  };
  const over = (): void => {
    if (state !== 'open') return;
    state = 'over';
    refuse(fault ?? new Error('The connection is over.'));
    end();
    options.onOver();
  };
  const keep = (error: Error): void => {
    if (state === 'closed') return;
    fault ??= isProtocolError(error) && !understood ? new Error(`${url.origin} does not speak HTTP/2.`) : error;
  };
  const fail = (error: Error): void => {
    keep(error);
    over();
  };
  const closed = (): void =>
    fail(new Error(`${url.origin} closed the connection${understood ? '' : ' before it spoke HTTP/2'}.`));
  socket.on('error', fail);
  socket.on('close', closed);

  const start = (): ClientHttp2Session => {
    const opened = connectHttp2(url.origin, { createConnection: () => socket, settings: { enablePush: false } });
    session = opened;
    opened.on('error', fail);
    // A stream that the other end pushes, before it has read that it may not, is one whose 'error' would have no listener.
    opened.on('stream', (pushed) => {
      pushed.on('error', ignore);
      pushed.close(constants.NGHTTP2_REFUSED_STREAM);
    });
    opened.on('close', closed);
    opened.once('remoteSettings', () => {
      understood = true;
    });
    keepAlive = startKeepAlive(options, opened, () => fail(new Error('The other end does not answer a PING.')));
    return opened;
  };

  return {
    authority: url.origin,
    get fault() {
      return fault;
    },
    get answer() {
      return answer;
    },
    async request(method, path, headers, requestOptions) {
      await ready;
      if (state !== 'open') throw fault ?? new Error('The connection is closed.');
      if (url.protocol === 'https:' && (socket as TLSSocket).alpnProtocol !== 'h2') {
        fail(new Error(`${url.origin} speaks TLS, but not HTTP/2: its ALPN does not choose "h2".`));
        throw fault;
      }
      const stream = start().request({ ...headers, ':method': method, ':path': path }, requestOptions);
      stream.on('error', keep);
      stream.on('response', (received) => {
        answer = received;
      });
      stream.on('close', over);
      return stream;
    },
    notifyResponseByteRead() {
      keepAlive?.heard();
    },
    close() {
      if (state === 'closed') return;
      const wasOpen = state === 'open';
      state = 'closed';
      if (!wasOpen) return;
      refuse(new Error('The connection is closed.'));
      end();
    },
  };
}

function openSocket({ protocol, hostname, port }: URL, tls: ClientTls | undefined): Socket {
  const host = hostname.replace(/^\[|\]$/g, '');
  if (protocol === 'http:') return connectTcp({ host, port: Number(port || 80) });
  return connectTls({
    host,
    port: Number(port || 443),
    ALPNProtocols: ['h2'],
    ...tls,
    ...(isIP(host) === 0 ? { servername: host } : {}),
  });
}

const isProtocolError = (error: Error): boolean => (error as NodeJS.ErrnoException).code === 'ERR_HTTP2_ERROR';

interface KeepAlive {
  /** Something came. */
  heard(): void;
  stop(): void;
}

function startKeepAlive(options: Http2ConnectionOptions, session: ClientHttp2Session, onDead: () => void): KeepAlive {
  const { clock, pingIntervalMs, pingTimeoutMs } = options;
  let heardAt = clock.now();
  let cancel = ignore;
  const wait = (): void => {
    cancel = clock.after(heardAt + pingIntervalMs - clock.now(), () => {
      if (clock.now() < heardAt + pingIntervalMs) wait();
      else ping();
    });
  };
  const ping = (): void => {
    const askedAt = clock.now();
    if (session.destroyed) return;
    session.ping((error) => {
      if (error === null) heardAt = Math.max(heardAt, clock.now());
    });
    cancel = clock.after(pingTimeoutMs, () => {
      if (heardAt >= askedAt) wait();
      else onDead();
    });
  };
  wait();
  return {
    heard() {
      heardAt = clock.now();
    },
    stop() {
      cancel();
    },
  };
}

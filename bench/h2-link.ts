/**
 * One HTTP/2 connection of the load on node:http2, replaced whenever it is lost or the server asks it to go.
 */
import { type ClientHttp2Session, connect } from 'node:http2';
import { backOff, jittered } from '../lib/back-off.js';
import { MiB } from '../lib/units.js';

export interface Link {
  /** The connection that takes new calls; undefined while there is none. */
  readonly session: ClientHttp2Session | undefined;
  /** Makes no new call on this connection: it ends with its last call, and another one follows at once. */
  leave(session: ClientHttp2Session): void;
  /** Waits for calls in flight, but no longer than a moment. */
  close(): Promise<void>;
}

export interface LinkEvents {
  connected(): void;
  /** The server asks this connection to go, or `leave` was called: its streams should take no more. */
  left?(session: ClientHttp2Session): void;
  /** There has been no connection for half a minute. */
  failed(error: Error): void;
}

const waits = { first: 25, last: 1_000 };
const patienceMs = 30_000;
const window = MiB;
/** How long calls in flight may take when the load ends. */
const farewellMs = 200;

export function keepLinked(url: string, events: LinkEvents): Link {
  let live: ClientHttp2Session | undefined;
  let closed = false;
  let failures = 0;
  let lastGood = performance.now();
  let timer: NodeJS.Timeout | undefined;
  const replaced = new WeakSet<ClientHttp2Session>();

  /** Each connection is followed by one other, be it for GOAWAY, an error or its end. */
  const replace = (session: ClientHttp2Session, reason: string, waitMs: number): void => {
    if (live === session) live = undefined;
    if (replaced.has(session) || closed) return;
    replaced.add(session);
    if (performance.now() - lastGood > patienceMs) {
      events.failed(new Error(`no connection to ${url} for ${patienceMs / 1000} s: ${reason}`));
      return;
    }
    timer = setTimeout(open, waitMs);
  };
  const lose = (session: ClientHttp2Session, reason: string): void =>
    replace(session, reason, jittered(backOff(waits, ++failures)));
  const leave = (session: ClientHttp2Session): void => {
    replace(session, 'going away', 0);
    events.left?.(session);
    // Calls in flight may end; not from within the session's own callback.
    setImmediate(() => session.close());
  };

  const open = (): void => {
    if (closed) return;
    const session = connect(url, { settings: { initialWindowSize: window, enablePush: false } });
    session.setMaxListeners(0);
    session.on('error', (error) => lose(session, error.message));
    session.on('close', () => lose(session, 'connection closed'));
    session.on('goaway', () => leave(session));
    session.on('connect', () => {
      session.setLocalWindowSize(window);
      failures = 0;
      lastGood = performance.now();
      live = session;
      events.connected();
    });
  };
  open();

  return {
    get session() {
      return live === undefined || live.closed || live.destroyed ? undefined : live;
    },
    leave,
    async close() {
      closed = true;
      clearTimeout(timer);
      const session = live;
      if (session === undefined || session.destroyed) return;
      await new Promise<void>((resolve) => {
        session.once('close', resolve).close();
        setTimeout(() => session.destroy(), farewellMs);
      });
    },
  };
}

export type CallProtocol = 'grpc' | 'connect';
export type CallHeaders = Readonly<Record<string, string>>;

/** @param path `/package.Service/Method` */
export function callHeaders(path: string, key: string, protocol: CallProtocol): CallHeaders {
  const kind =
    protocol === 'grpc'
      ? { 'content-type': 'application/grpc+proto', te: 'trailers' }
      : { 'content-type': 'application/proto', 'connect-protocol-version': '1' };
  const head = { ':method': 'POST', ':path': path, 'user-agent': 'sluice-bench/0.1.0' };
  return { ...head, ...kind, authorization: `Bearer ${key}` };
}

/**
 * The listener: one port for HTTP/1.1 and HTTP/2, and all connections on it.
 *
 *   listener.ts          accepts TCP and TLS; sniff-protocol.ts finds out which HTTP a client without TLS speaks
 *   tls-files.ts         certificate, key and client CA, read again when they change
 *   open-files.ts        how many connections the process can have
 *
 *   connection-table.ts  how many connections there are, and when each ends
 *   connection-entry.ts  one connection, from accept to end; connection.ts is what handlers see of it
 *   address-limits.ts    connections of one address; trusted-proxies.ts where the client is behind proxies
 *   call-budget.ts       calls that bring nothing; reset-budget.ts calls that are taken back; useless-bytes.ts bytes that do nothing
 *   ended-session.ts     sessions that have ended although Node does not say so
 *
 *   http1-server.ts      requests over HTTP/1.1; late-request.ts those that are not whole in time; unreadable-http1.ts bytes that are no request
 *   http2-server.ts      requests over HTTP/2
 *   stream-windows.ts    how many bytes a client may send ahead on an HTTP/2 stream
 *   stream-faults.ts     a connection outlives the faults of its streams
 *   reset-stream.ts      the one safe way to reset a stream; late-reset.ts waits a moment before that
 *   answered-early.ts    answers before the end of their request; unread-calls.ts answers that no client reads, unread-owners.ts whose they are
 *
 *   node-request.ts      requests and responses as Node has them
 *   header-limits.ts     how many headers a request may have; expect-continue.ts when the client may send the body
 *   cors.ts              cross-origin calls of browsers
 */
import { UsageError } from '../../lib/errors.js';
import type { EndedConnection, RefusedConnection } from '../metrics.js';
import { lastWordsMs } from './answered-early.js';
import type { Connection } from './connection.js';
import { ConnectionTable } from './connection-table.js';
import { createHttp1Server } from './http1-server.js';
import { createHttp2Server, type Http2Options } from './http2-server.js';
import { createListener, type ListenerOptions } from './listener.js';
import type { NodeRequest, NodeResponse } from './node-request.js';
import { StreamWindows } from './stream-windows.js';

export type { ServedStream } from './http2-server.js';

export interface FrontServerOptions extends ListenerOptions {
  readonly host: string;
  /** 0: any free port. */
  readonly port: number;
  /** Beyond them the idlest makes room. */
  readonly maxConnections: number;
  /** The same for each address that is not trusted; 0: no limit. @default 0 */
  readonly maxConnectionsPerAddress?: number;
  /** A second, for each address that is not trusted; 0: no limit. @default 0 */
  readonly newConnectionsPerAddress?: number;
  /** Addresses that speak for many clients. @default none */
  readonly isTrusted?: (address: string) => boolean;
  /** ms, ±10 %. */
  readonly maxConnectionAge: number;
  /** ms that requests in flight get when a connection has reached its age. */
  readonly grace: number;
  /** ms without a byte after which an HTTP/2 peer is asked whether it lives. @default 30 s */
  readonly silenceTimeout?: number;
  /** ms that a connection is kept after its last call, whatever its peer sends. @default 5 min */
  readonly idleTimeout?: number;
  /** ms that a connection is kept without a first call. @default 30 s */
  readonly firstCallTimeout?: number;
  /** ms for a whole request over HTTP/1.1; one whose body flows may take longer (late-request.ts). @default 60 s */
  readonly requestTimeout?: number;
  /** @default narrow ones */
  readonly windows?: StreamWindows;
  readonly onRequest: (request: NodeRequest, response: NodeResponse, connection: Connection) => void;
  /** May serve an HTTP/2 request on its bare stream. What it leaves alone (undefined) becomes a request. @default none */
  readonly onStream?: Http2Options['onStream'];
  /** @default none */
  readonly onRefusedConnection?: (why: RefusedConnection) => void;
  /** @default none */
  readonly onEndedConnection?: (why: EndedConnection) => void;
}

export interface FrontServer {
  readonly port: number;
  readonly connections: number;
  /** Requests that have no complete answer yet. */
  readonly requests: number;
  /** Stops listening, ends connections (CONN-5), and resolves when all are gone: at the latest a moment after graceMs. */
  drain(reason: string, graceMs: number): Promise<void>;
}

const silenceTimeout = 30_000;
const idleTimeout = 5 * 60_000;
const firstCallTimeout = 30_000;
const requestTimeout = 60_000;

/** Starts to listen. @throws UsageError when the port or the certificate cannot be used */
export async function listen(options: FrontServerOptions): Promise<FrontServer> {
  const { logger, onRequest, onStream } = options;
  const connections = new ConnectionTable({
    ...options,
    maxConnectionsPerAddress: options.maxConnectionsPerAddress ?? 0,
    newConnectionsPerAddress: options.newConnectionsPerAddress ?? 0,
    isTrusted: options.isTrusted ?? (() => false),
    idleTimeout: options.idleTimeout ?? idleTimeout,
    firstCallTimeout: options.firstCallTimeout ?? firstCallTimeout,
    windows: options.windows ?? new StreamWindows({ maxBytes: 0, isCrowded: () => false }),
    onRefused: options.onRefusedConnection ?? (() => {}),
    onEnded: options.onEndedConnection ?? (() => {}),
  });
  const http1 = createHttp1Server({
    connections,
    onRequest,
    requestTimeout: options.requestTimeout ?? requestTimeout,
    onPipelined: () => options.onEndedConnection?.('pipelining'),
  });
  const http2 = createHttp2Server({
    connections,
    onRequest,
    onStream,
    silenceTimeout: options.silenceTimeout ?? silenceTimeout,
    logger,
  });
  const server = createListener(options, {
    admit: (raw) => connections.admit(raw),
    ready(entry, protocol) {
      if (entry.phase === 'gone') return void entry.socket.destroy();
      if (entry.phase === 'opening') entry.phase = 'serving';
      (protocol === 'h2' ? http2 : http1).serve(entry);
    },
  });

  const port = await new Promise<number>((resolve, reject) => {
    server.once('error', (error: NodeJS.ErrnoException) => reject(cannotListen(options, error)));
    server.listen(options.port, options.host, () => {
      const address = server.address();
      resolve(typeof address === 'object' && address !== null ? address.port : options.port);
    });
  });

  return {
    port,
    get connections() {
      return connections.size;
    },
    get requests() {
      return connections.calls;
    },
    async drain(reason, graceMs) {
      server.close();
      connections.endAll(reason, graceMs);
      http1.closeIdleConnections();
      await connections.quiet(graceMs + lastWordsMs);
      http1.closeIdleConnections();
      await connections.close(lastWordsMs);
      http1.close();
    },
  };
}

function cannotListen({ host, port }: FrontServerOptions, { code, message }: NodeJS.ErrnoException): UsageError {
  return new UsageError(
    code === 'EADDRINUSE'
      ? `Port ${port} on ${host} is in use: end the program that has it, or choose another with --port.`
      : `Cannot listen on ${host}:${port} (${code ?? message}): choose others with --host and --port.`,
  );
}

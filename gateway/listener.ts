/**
 * What listens: a plain TCP server, or one that speaks TLS. It gives sockets that are ready to be read, and knows nothing of HTTP.
 */
import { createServer as createNet, type Server as NetServer, type Socket } from 'node:net';
import { createServer as createTls, type TLSSocket } from 'node:tls';
import { UsageError } from '../lib/errors.js';
import type { Log } from '../lib/log.js';

export interface ListenerOptions {
  /** PEM texts. @default no TLS */
  readonly tls?: { readonly cert: string; readonly key: string } | undefined;
  readonly log: Log;
}

/** ms for a TLS handshake. */
const handshakeTimeout = 10_000;

/** A net or TLS server that gives ready sockets, with their protocol when ALPN has told it. */
export function createListener(
  options: ListenerOptions,
  onSocket: (socket: Socket, protocol: 'h1' | 'h2' | undefined) => void,
): NetServer {
  const common = { noDelay: true, keepAlive: true, keepAliveInitialDelay: 60_000 };
  if (options.tls === undefined) return createNet(common, (socket) => onSocket(socket, undefined));
  const { cert, key } = options.tls;
  try {
    const server = createTls({
      ...common,
      cert,
      key,
      minVersion: 'TLSv1.2',
      ALPNProtocols: ['h2', 'http/1.1'],
      handshakeTimeout,
    });
    server.on('secureConnection', (socket: TLSSocket) => onSocket(socket, socket.alpnProtocol === 'h2' ? 'h2' : 'h1'));
    server.on('tlsClientError', (error) => options.log.debug({ error: error.message }, 'TLS handshake failed'));
    return server;
  } catch (error) {
    throw new UsageError(
      `The TLS certificate or key cannot be used (${String(error)}): give PEM files with --tls-cert and --tls-key.`,
    );
  }
}

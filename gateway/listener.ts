/**
 * What listens: a plain TCP server, or one that speaks TLS. It gives sockets that are ready to be read, and knows nothing of HTTP.
 */
import { constants } from 'node:crypto';
import { createServer as createNet, type Server as NetServer, type Socket } from 'node:net';
import { createSecureContext, createServer as createTls, type SecureContextOptions, type TLSSocket } from 'node:tls';
import { UsageError } from '../lib/errors.js';
import type { Log } from '../lib/log.js';

/** PEM texts. */
export interface TlsMaterial {
  /** The chain, the server's own certificate first. */
  readonly cert: string;
  readonly key: string;
  /** Clients must have a certificate that one of these authorities signed. @default clients need none */
  readonly clientCa?: string | undefined;
}

export interface ListenerOptions {
  /** @default no TLS */
  readonly tls?: (TlsMaterial & Partial<TlsChanges>) | undefined;
  /** A handshake failed. @default nobody is told */
  readonly onRefused?: ((reason: TlsRefusal) => void) | undefined;
  readonly log: Log;
}

/** Later files in place of the first (tls-files.ts). */
export interface TlsChanges {
  onChange(listener: (material: TlsMaterial) => void): void;
}

/**
 * - `no_certificate`: the client has to show a certificate, and has none
 * - `bad_certificate`: its certificate is not one that the client CA signed, or is not valid now
 * - `handshake`: all else: no TLS, a version or protocol that is not spoken here, a peer that left or was slow
 */
export type TlsRefusal = 'no_certificate' | 'bad_certificate' | 'handshake';

/** ms for a TLS handshake. */
const handshakeTimeout = 10_000;

const contextOptions = ({ cert, key, clientCa }: TlsMaterial): SecureContextOptions => ({
  cert,
  key,
  ...(clientCa === undefined ? {} : { ca: clientCa }),
  minVersion: 'TLSv1.2',
  // In TLS 1.2 each renegotiation costs the server far more than the client; HTTP/2 forbids it (RFC 9113, 9.2.1).
  secureOptions: constants.SSL_OP_NO_RENEGOTIATION,
});

/** What a handshake is made with. @throws Error when the certificate or the key cannot be used */
export const secureContext = (material: TlsMaterial) => createSecureContext(contextOptions(material));

/** A net or TLS server that gives ready sockets, with their protocol when ALPN has told it. */
export function createListener(
  options: ListenerOptions,
  onSocket: (socket: Socket, protocol: 'h1' | 'h2' | undefined) => void,
): NetServer {
  const common = { noDelay: true, keepAlive: true, keepAliveInitialDelay: 60_000 };
  const { tls, log } = options;
  if (tls === undefined) return createNet(common, (socket) => onSocket(socket, undefined));
  try {
    const server = createTls({
      ...common,
      ...contextOptions(tls),
      requestCert: tls.clientCa !== undefined,
      rejectUnauthorized: tls.clientCa !== undefined,
      ALPNProtocols: ['h2', 'http/1.1'],
      handshakeTimeout,
    });
    // It draws new keys for session tickets: what an authority vouched for that is gone is not taken up again.
    tls.onChange?.((material) => server.setSecureContext(contextOptions(material)));
    server.on('secureConnection', (socket: TLSSocket) => onSocket(socket, socket.alpnProtocol === 'h2' ? 'h2' : 'h1'));
    server.on('tlsClientError', (error, socket) => {
      const reason = refusalOf(error, socket);
      options.onRefused?.(reason);
      log.debug({ reason, error: error.message, certificate: socket.authorizationError }, 'TLS handshake failed');
    });
    return server;
  } catch (error) {
    throw new UsageError(
      `The TLS certificate or key cannot be used (${String(error)}): give PEM files with --tls-cert and --tls-key.`,
    );
  }
}

function refusalOf(error: NodeJS.ErrnoException, socket: TLSSocket): TlsRefusal {
  if (error.code === 'ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE') return 'no_certificate';
  // Node ends the connection after the handshake, and names the reason there.
  return socket.authorizationError ? 'bad_certificate' : 'handshake';
}

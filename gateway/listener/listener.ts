/**
 * What listens: TCP, with TLS above it where there is a certificate. It gives connections that are ready to be read, and knows nothing
 * of HTTP. A connection is admitted before the first byte of its handshake.
 */
import { constants } from 'node:crypto';
import { createServer as createNet, type Server as NetServer, type Socket } from 'node:net';
import {
  createSecureContext,
  createServer as createTls,
  type SecureContextOptions,
  type TLSSocket,
  type Server as TlsServer,
} from 'node:tls';
import { UsageError } from '../../lib/errors.js';
import type { Logger } from '../../lib/logger.js';
import type { TlsRefusal } from '../metrics.js';
import type { ConnectionEntry } from './connection-entry.js';
import { sniffProtocol } from './sniff-protocol.js';

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
  /** A handshake failed. @default not reported */
  readonly onRefused?: ((reason: TlsRefusal) => void) | undefined;
  /** ms for a TLS handshake. @default 10 s */
  readonly handshakeTimeout?: number;
  readonly logger: Logger;
}

/** Later files in place of the first (tls-files.ts). */
export interface TlsChanges {
  onChange(listener: (material: TlsMaterial) => void): void;
}

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

/** What becomes of connections. */
export interface ConnectionStages {
  /** TCP is there. Undefined: it was refused, and is closed. */
  readonly admit: (raw: Socket) => ConnectionEntry | undefined;
  /** The first bytes were seen, or the handshake is done. */
  readonly ready: (entry: ConnectionEntry, protocol: 'h1' | 'h2') => void;
}

/** A TCP server that does not listen yet. @throws UsageError when the certificate or key cannot be used */
export function createListener(options: ListenerOptions, { admit, ready }: ConnectionStages): NetServer {
  const shake = options.tls === undefined ? undefined : createHandshakes(options, options.tls, ready);
  return createNet({ noDelay: true, keepAlive: true, keepAliveInitialDelay: 60_000 }, (raw) => {
    const entry = admit(raw);
    if (entry === undefined) return;
    if (shake !== undefined) shake(entry);
    else sniffProtocol(raw, (protocol) => ready(entry, protocol));
  });
}

/** Begins the handshake on connections that it is given. */
function createHandshakes(
  { logger, onRefused, handshakeTimeout: handshakeMs = handshakeTimeout }: ListenerOptions,
  tls: TlsMaterial & Partial<TlsChanges>,
  ready: ConnectionStages['ready'],
): (entry: ConnectionEntry) => void {
  const server = createTlsServer(tls, handshakeMs);
  // It draws new keys for session tickets: what an authority vouched for that is gone is not taken up again.
  tls.onChange?.((material) => server.setSecureContext(contextOptions(material)));
  // Node does not say which connection a TLS socket lies on; address and port of the peer do.
  const shaking = new Map<string, ConnectionEntry>();
  server.on('secureConnection', (socket: TLSSocket) => {
    const entry = shaking.get(peerOf(socket));
    if (entry === undefined) return void socket.destroy();
    entry.socket = socket;
    socket.on('error', () => {});
    ready(entry, socket.alpnProtocol === 'h2' ? 'h2' : 'h1');
  });
  server.on('tlsClientError', (error, socket) => {
    const reason = refusalOf(error, socket);
    onRefused?.(reason);
    logger.debug({ reason, error: error.message, certificate: socket.authorizationError }, 'TLS handshake failed');
    // Node ends the connection after every other error, and leaves this one to us.
    if (isLate(error)) socket.destroy();
  });
  return (entry) => {
    const { raw } = entry;
    const peer = peerOf(raw);
    shaking.set(peer, entry);
    raw.once('close', () => {
      if (shaking.get(peer) === entry) shaking.delete(peer);
    });
    server.emit('connection', raw);
  };
}

const peerOf = ({ remoteAddress, remotePort }: Socket): string => `${remoteAddress} ${remotePort}`;

/** It listens nowhere itself. */
function createTlsServer(tls: TlsMaterial, handshakeMs: number): TlsServer {
  try {
    return createTls({
      ...contextOptions(tls),
      requestCert: tls.clientCa !== undefined,
      rejectUnauthorized: tls.clientCa !== undefined,
      ALPNProtocols: ['h2', 'http/1.1'],
      handshakeTimeout: handshakeMs,
    });
  } catch (error) {
    throw new UsageError(
      `The TLS certificate or key cannot be used (${String(error)}): give PEM files with --tls-cert and --tls-key.`,
    );
  }
}

const isLate = ({ code }: NodeJS.ErrnoException): boolean => code === 'ERR_TLS_HANDSHAKE_TIMEOUT';

function refusalOf(error: NodeJS.ErrnoException, socket: TLSSocket): TlsRefusal {
  if (error.code === 'ERR_SSL_PEER_DID_NOT_RETURN_A_CERTIFICATE') return 'no_certificate';
  // Node ends the connection after the handshake, and names the reason there.
  return socket.authorizationError ? 'bad_certificate' : 'handshake';
}

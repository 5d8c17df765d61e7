/**
 * TLS between a process and nats-server. The library reads the files at each connect, so that new ones are used without a restart.
 */
import { X509Certificate } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { TlsOptions } from '@nats-io/nats-core';
import { UsageError } from './errors.js';

/** Paths of PEM files; '' for none. */
export interface NatsTlsFiles {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
  /** The handshake comes before the server's first word. */
  readonly first: boolean;
}

/**
 * What the library is given. Whatever is given makes TLS a must: it refuses a server that does not offer it, before it logs in.
 * @returns undefined: TLS if the server wants it
 * @throws UsageError when a file cannot be used, or one of two is missing
 */
export function natsTls(files: NatsTlsFiles | undefined, servers: readonly string[]): TlsOptions | undefined {
  const { ca = '', cert = '', key = '', first = false } = files ?? {};
  if ((cert === '') !== (key === '')) {
    throw new UsageError('--nats-tls-cert and --nats-tls-key go together: give both or none.');
  }
  if (ca === '' && cert === '' && !first && !servers.some((server) => server.startsWith('tls://'))) return undefined;
  if (ca !== '') readCertificate('--nats-tls-ca', ca);
  if (cert !== '') readCertificate('--nats-tls-cert', cert);
  if (key !== '') readText('--nats-tls-key', key);
  return {
    ...(ca === '' ? {} : { caFile: ca }),
    ...(cert === '' ? {} : { certFile: cert, keyFile: key }),
    ...(first ? { handshakeFirst: true } : {}),
  };
}

function readText(flag: string, path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    throw new UsageError(`${flag}: the file ${path} cannot be read (${(error as Error).message}).`);
  }
}

function readCertificate(flag: string, path: string): void {
  try {
    new X509Certificate(readText(flag, path));
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`${flag}: the file ${path} holds no certificate that can be read; give a PEM file.`);
  }
}

/** Errors of Node and OpenSSL that say that the two sides do not trust each other. */
const untrusted =
  /^(?:ERR_TLS_|ERR_SSL_|CERT_|SELF_SIGNED_|DEPTH_ZERO_|UNABLE_TO_|HOSTNAME_MISMATCH|INVALID_CA|INVALID_PURPOSE)/;

/**
 * What is wrong with TLS, and what to do; undefined when the error has another cause.
 * @param asked this process makes TLS a must
 */
export function tlsRefusal(servers: readonly string[], error: unknown, asked: boolean): string | undefined {
  // In TLS 1.3 a server refuses a client's certificate when the client is done with its handshake, and the library waits on.
  if (asked && (error as Error).name === 'TimeoutError') {
    return (
      `NATS at ${servers.join(',')} says nothing over TLS: a server that verifies clients wants --nats-tls-cert and --nats-tls-key, valid now and ` +
      'signed by an authority that it knows; one with handshake_first wants --nats-tls-first.'
    );
  }
  for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
    const { code = '', message } = cause as NodeJS.ErrnoException;
    if (message === "server does not support 'tls'") {
      return `NATS at ${servers.join(',')} offers no TLS: set tls in its configuration, or leave --nats-tls-ca and tls:// out.`;
    }
    if (untrusted.test(code)) {
      return (
        `TLS with NATS at ${servers.join(',')} fails (${message}): --nats-tls-ca must have signed its certificate, which must be valid now and name ` +
        'this address. A server that verifies clients wants --nats-tls-cert and --nats-tls-key.'
      );
    }
  }
  return undefined;
}

/**
 * The credentials of a process for nats-server: from a file, or from the addresses themselves.
 */
import {
  type Authenticator,
  credsAuthenticator,
  nkeyAuthenticator,
  tokenAuthenticator,
  usernamePasswordAuthenticator,
} from '@nats-io/nats-core';
import type { NatsClientConfig } from './config/index.js';
import { UsageError } from './errors.js';
import type { NatsTlsFiles } from './nats-tls.js';
import { readSecret } from './secret-file.js';

export interface NatsAddress {
  /** Comma-separated `host:port` or `nats://` addresses; `nats://user:password@host:port` and `nats://token@host:port` log in. */
  readonly servers: string;
  /** Path of the credentials file; empty or absent: none. */
  readonly credentials?: string;
  /** @default only when the server wants it, with the system's authorities */
  readonly tls?: NatsTlsFiles;
}

/** How a role's settings say where NATS is. */
export const natsAt = (config: NatsClientConfig): NatsAddress => ({
  servers: config.natsUrl,
  credentials: config.natsCredentials,
  tls: { ca: config.natsTlsCa, cert: config.natsTlsCert, key: config.natsTlsKey, first: config.natsTlsFirst },
});

export interface NatsLogin {
  /** Addresses without credentials: these may be logged. */
  readonly servers: readonly string[];
  /** Undefined: none are given. It never throws. */
  readonly authenticator: Authenticator | undefined;
}

const setting = '--nats-credentials';

/** `user:password` or a token, as they stand in a URL. */
function ofLine(line: string): Authenticator {
  const colon = line.indexOf(':');
  return colon < 0
    ? tokenAuthenticator(line)
    : usernamePasswordAuthenticator(line.slice(0, colon), line.slice(colon + 1));
}

/** What a credentials file holds: a .creds file, an nkey seed, `user:password`, or a token. */
function ofText(text: string): Authenticator {
  const bytes = new TextEncoder().encode(text);
  if (text.includes('-BEGIN NATS USER JWT-')) return credsAuthenticator(bytes);
  if (/^SU[A-Z2-7]{56}$/.test(text)) return nkeyAuthenticator(bytes);
  return ofLine(text);
}

/** Reads the file at each log-in, so that a new secret in it is used without a restart. */
function ofFile(file: string): Authenticator {
  let text = readSecret(file, setting);
  try {
    ofText(text)('nonce');
  } catch {
    throw new UsageError(`${setting}: the file ${file} is not a .creds file that NATS can use.`);
  }
  return (nonce) => {
    try {
      const now = readSecret(file, setting);
      const shown = ofText(now)(nonce);
      text = now;
      return shown;
    } catch {
      // While it is replaced; the library would close the connection and not open it again.
      return ofText(text)(nonce);
    }
  };
}

/** An address and what stands before its last "@". */
function apart(server: string): { readonly bare: string; readonly login: string | undefined } {
  const at = server.lastIndexOf('@');
  if (at < 0) return { bare: server, login: undefined };
  const scheme = /^\w+:\/\//.exec(server)?.[0] ?? '';
  return { bare: scheme + server.slice(at + 1), login: server.slice(scheme.length, at) };
}

/** Addresses as they may be shown: without credentials. */
export const withoutCredentials = (servers: string): string =>
  servers
    .split(',')
    .map((server) => apart(server.trim()).bare)
    .join(',');

function decoded(login: string): Authenticator {
  const colon = login.indexOf(':');
  try {
    return colon < 0
      ? tokenAuthenticator(decodeURIComponent(login))
      : usernamePasswordAuthenticator(
          decodeURIComponent(login.slice(0, colon)),
          decodeURIComponent(login.slice(colon + 1)),
        );
  } catch {
    throw new UsageError('--nats-url: write a "%" of the credentials as %25, or give them by --nats-credentials.');
  }
}

/**
 * Sorts addresses from credentials.
 * @throws UsageError the file cannot be used, or credentials are given twice
 */
export function natsLogin({ servers, credentials = '' }: NatsAddress): NatsLogin {
  const parts = servers.split(',').map((server) => apart(server.trim()));
  const logins = new Set(parts.map(({ login }) => login).filter((login) => login !== undefined));
  if (logins.size > 1)
    throw new UsageError('--nats-url: the addresses name different credentials; all servers must take the same.');
  if (logins.size > 0 && credentials !== '')
    throw new UsageError(`Credentials of NATS are given twice, by --nats-url and by ${setting}: leave one out.`);
  const [login] = logins;
  return {
    servers: parts.map(({ bare }) => bare),
    authenticator: credentials !== '' ? ofFile(credentials) : login === undefined ? undefined : decoded(login),
  };
}

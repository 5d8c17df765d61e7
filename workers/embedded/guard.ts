/**
 * Decides who may send statements, before anything of a request is held.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import { isOwnHost } from '../../lib/own-host.js';

export interface GuardOptions {
  /** Address that the server listens on. */
  readonly host: string;
  /** What clients must show as the user `default`; undefined: nothing. */
  readonly password: string | undefined;
}

export interface Refusal {
  readonly status: number;
  /** ClickHouse's number, where it has one. */
  readonly code?: number;
  readonly text: string;
}

const user = 'default';

/** A page in a browser says where it comes from: with each POST, and with each request that another site makes. */
const isFromPage = ({ headers }: IncomingMessage): boolean =>
  headers.origin !== undefined || !['none', 'same-origin', undefined].includes(headers['sec-fetch-site'] as string);

interface Shown {
  readonly user: string;
  readonly password: string;
}

/** `authorization: Basic …`, else ClickHouse's headers, else the URL. */
function shownBy({ headers }: IncomingMessage, parameters: URLSearchParams): Shown {
  const basic = /^Basic ([\w+/=-]+)$/i.exec(headers.authorization ?? '')?.[1];
  if (basic !== undefined) {
    const text = Buffer.from(basic, 'base64').toString();
    const colon = text.indexOf(':');
    return { user: colon < 0 ? text : text.slice(0, colon), password: colon < 0 ? '' : text.slice(colon + 1) };
  }
  const header = (name: string): string | undefined => headers[name]?.toString();
  return {
    user: header('x-clickhouse-user') ?? parameters.get('user') ?? user,
    password: header('x-clickhouse-key') ?? parameters.get('password') ?? '',
  };
}

const digest = (text: string): Buffer => createHash('sha256').update(text).digest();

/** Takes the same time for every password. */
const isSame = (one: string, other: string): boolean => timingSafeEqual(digest(one), digest(other));

/** Why a request is refused that browsers could have been made to send; undefined: it is not. */
export function refusePage(request: IncomingMessage, { host }: GuardOptions): Refusal | undefined {
  if (!isOwnHost(request.headers.host, host)) {
    return {
      status: 403,
      text: `The name in the Host header is not one of this server: call it as ${[...new Set(['127.0.0.1', 'localhost', '[::1]', host])].join(', ')}.`,
    };
  }
  return isFromPage(request) ? { status: 403, text: 'Web pages may not use this server.' } : undefined;
}

/** Why a request is refused that may send no statements; undefined: it may. */
export function refuseStranger(
  request: IncomingMessage,
  parameters: URLSearchParams,
  { password }: GuardOptions,
): Refusal | undefined {
  if (password === undefined) return undefined;
  const shown = shownBy(request, parameters);
  if (isSame(shown.password, password) && shown.user === user) return undefined;
  return {
    status: 403,
    code: 516,
    text:
      `${user}: Authentication failed: this server asks for its password, which lies in the file of --clickhouse-password-file ` +
      '(`npm start` keeps it in the data folder as clickhouse-password). (AUTHENTICATION_FAILED)',
  };
}

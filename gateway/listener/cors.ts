/**
 * Cross-origin calls from browsers: only from the origins on the list, for Connect, gRPC-Web and the plain HTTP routes
 * alike. Keys travel in a header, never in cookies, so credentials are not allowed.
 */
import { cors } from '@connectrpc/connect';
import { UsageError } from '../../lib/errors.js';
import type { NodeRequest, NodeResponse } from './node-request.js';

const allowedMethods = cors.allowedMethods.join(', ');
const allowedHeaders = [
  ...cors.allowedHeaders,
  'Authorization',
  'Content-Encoding',
  'Idempotency-Key',
  'Sluice-Unknown-Fields',
  'Traceparent',
  'Tracestate',
].join(', ');
const exposedHeaders = [...cors.exposedHeaders, 'Retry-After'].join(', ');
const preflightSeconds = '7200';

export interface Cors {
  /** Whether `answer` will answer the request. */
  isPreflight(request: NodeRequest): boolean;
  /** Puts headers on the answer. Returns true when the request was a preflight and has been answered. */
  answer(request: NodeRequest, response: NodeResponse): boolean;
  /** Of the answer to a call, not to a preflight. */
  headers(origin: string): Readonly<Record<string, string>>;
}

/**
 * An origin as browsers send it: scheme and host in lower case, no default port, no slash at the end.
 * @throws UsageError when it is none, or has more than an origin
 */
function serialized(text: string): string {
  // What pages from files and sandboxes send.
  if (text === 'null') return text;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const more = url === undefined ? '' : url.pathname.replace(/^\/$/, '') + url.search + url.hash + url.username;
  if (url === undefined || url.hostname.includes('*') || !/^[a-z][a-z0-9+.-]*:\/\/./i.test(text) || more !== '') {
    throw new UsageError(
      `--cors-origins: "${text}" is no origin. Give scheme, host and port alone, e.g. https://shop.example or http://127.0.0.1:3000.`,
    );
  }
  // Of schemes that are not the web's own (apps) the standard keeps no origin, and browsers send scheme and host.
  return url.origin === 'null' ? `${url.protocol}//${url.host.toLowerCase()}` : url.origin;
}

/** @param origins e.g. "https://shop.example"; "*" allows all; none turns CORS off */
export function createCors(origins: readonly string[]): Cors {
  const all = origins.includes('*');
  const allowed = new Set(origins.filter((origin) => origin !== '*').map(serialized));
  // Also when refused: a cache must not give one origin's answer to another.
  const vary: Readonly<Record<string, string>> = all ? {} : { vary: 'Origin' };
  if (origins.length === 0) return { isPreflight: () => false, answer: () => false, headers: () => ({}) };
  const isAllowed = (origin: string): boolean => all || allowed.has(origin);
  const headers = (origin: string): Readonly<Record<string, string>> =>
    isAllowed(origin)
      ? {
          ...vary,
          'access-control-allow-origin': all ? '*' : origin,
          'access-control-expose-headers': exposedHeaders,
        }
      : vary;
  const preflight = (origin: string): Readonly<Record<string, string>> =>
    isAllowed(origin)
      ? {
          ...vary,
          'access-control-allow-origin': all ? '*' : origin,
          'access-control-allow-methods': allowedMethods,
          'access-control-allow-headers': allowedHeaders,
          'access-control-max-age': preflightSeconds,
        }
      : vary;
  const isPreflight = ({ method, headers }: NodeRequest): boolean =>
    method === 'OPTIONS' && headers.origin !== undefined && headers['access-control-request-method'] !== undefined;
  return {
    isPreflight,
    headers,
    answer(request, response) {
      const { origin } = request.headers;
      if (origin === undefined) return false;
      const asked = isPreflight(request);
      for (const [name, value] of Object.entries((asked ? preflight : headers)(origin))) {
        response.setHeader(name, value);
      }
      if (!asked) return false;
      response.writeHead(204);
      response.end();
      return true;
    },
  };
}

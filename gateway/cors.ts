/**
 * Cross-origin calls from browsers: only from the origins on the list, for Connect, gRPC-Web and the plain HTTP routes
 * alike. Keys travel in a header, never in cookies, so credentials are not allowed.
 */
import { cors } from '@connectrpc/connect';
import type { NodeRequest, NodeResponse } from './server.js';

const allowedMethods = cors.allowedMethods.join(', ');
const allowedHeaders = [
  ...cors.allowedHeaders,
  'Authorization',
  'Content-Encoding',
  'Idempotency-Key',
  'Traceparent',
  'Tracestate',
].join(', ');
const exposedHeaders = [...cors.exposedHeaders, 'Retry-After'].join(', ');
const preflightSeconds = '7200';

/** Returns true when the request was a preflight and has been answered. */
export type Cors = (request: NodeRequest, response: NodeResponse) => boolean;

/** @param origins e.g. "https://shop.example"; "*" allows all; none turns CORS off */
export function createCors(origins: readonly string[]): Cors {
  const all = origins.includes('*');
  const allowed = new Set(origins);
  if (origins.length === 0) return () => false;
  return (request, response) => {
    const { origin } = request.headers;
    if (origin === undefined) return false;
    // Also when refused: a cache must not give one origin's answer to another.
    if (!all) response.setHeader('vary', 'Origin');
    const preflight = request.method === 'OPTIONS' && request.headers['access-control-request-method'] !== undefined;
    if (all || allowed.has(origin)) {
      response.setHeader('access-control-allow-origin', all ? '*' : origin);
      if (preflight) {
        response.setHeader('access-control-allow-methods', allowedMethods);
        response.setHeader('access-control-allow-headers', allowedHeaders);
        response.setHeader('access-control-max-age', preflightSeconds);
      } else {
        response.setHeader('access-control-expose-headers', exposedHeaders);
      }
    }
    if (!preflight) return false;
    response.writeHead(204);
    response.end();
    return true;
  };
}

/**
 * Names in request headers, in the one spelling that the RPC library knows. Other servers take `application/grpc;charset=utf-8` and
 * `GZIP`, so clients send them.
 */
import type { IncomingHttpHeaders } from 'node:http';

const rpcType = /^\s*(application\/(?:grpc(?:-web(?:-text)?)?|connect)?\+?(?:json|proto)?)\s*(?:;(.*))?$/i;
const charset = /(?:^|;)\s*charset\s*=\s*"?([^";\s]*)/i;
const encodings = ['content-encoding', 'grpc-encoding', 'connect-content-encoding'] as const;

/** What the RPC routes take, for `accept-post`. */
export const rpcTypes: readonly string[] = [
  'application/grpc',
  'application/grpc-web',
  'application/grpc-web-text',
  'application/proto',
  'application/json',
  'application/connect+proto',
  'application/connect+json',
];

/** The media type in lower case and without parameters; unchanged when it is none of the RPCs', or not of UTF-8. */
function plainType(value: string): string {
  const [, type, parameters = ''] = rpcType.exec(value) ?? [];
  if (type === undefined) return value;
  const named = charset.exec(parameters)?.[1]?.toLowerCase();
  // Protobuf has no character set, so what a client says of it does not matter.
  const fits = named === undefined || /^utf-?8$/.test(named) || !/json/i.test(type);
  return fits ? type.toLowerCase() : value;
}

/** A content encoding's registered name: "GZIP" and "x-gzip" are gzip (RFC 9110, 8.4.1). */
export function plainEncoding(value: string): string {
  const name = value.trim().toLowerCase();
  return name === 'x-gzip' ? 'gzip' : name;
}

/** Changes the headers in place. */
export function normalizeNames(headers: IncomingHttpHeaders): void {
  const type = headers['content-type'];
  if (type !== undefined) headers['content-type'] = plainType(type);
  for (const name of encodings) {
    const value = headers[name];
    if (typeof value === 'string') headers[name] = plainEncoding(value);
  }
}

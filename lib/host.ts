/**
 * Addresses in URLs and in `host:port`.
 */
import { isIPv6 } from 'node:net';

/** As it stands in a URL: IPv6 in brackets (RFC 3986, 3.2.2). */
export const urlHost = (host: string): string => (isIPv6(host) ? `[${host}]` : host);

/** Where a client reaches a server that listens on this address: one that listens everywhere is here, too. */
export function reachable(host: string): string {
  if (host === '0.0.0.0') return '127.0.0.1';
  return isIPv6(host) && /^[0:]+$/.test(host) ? '::1' : host;
}

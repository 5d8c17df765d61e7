/**
 * Checks and bounds what request headers say about a caller, because it is stored with every batch.
 */
import { isIPv4, isIPv6 } from 'node:net';
import type { ClientAddress } from '../listener/trusted-proxies.js';

export interface RequestFacts {
  /** W3C trace context, valid. */
  readonly traceparent: string | undefined;
  /** Name and version of the client library: at most 64 bytes of ASCII. */
  readonly client: string | undefined;
  /** At most 512 bytes of printable ASCII; undefined unless it is to be stored. */
  readonly userAgent: string | undefined;
  /** 4 or 16 bytes; undefined unless it is to be stored. */
  readonly clientAddress: Uint8Array | undefined;
}

export interface FactOptions {
  readonly storeClientAddress: boolean;
  readonly storeUserAgent: boolean;
  readonly clientAddress: ClientAddress;
}

type ReadHeader = (name: string) => string | null | undefined;

const product = /^[A-Za-z0-9._-]{1,40}\/[A-Za-z0-9._+-]{1,23}(?=$|[\s;(])/;
const traceContext = /^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/;

/** The first product of a user agent, "sluice-node/0.1.0", when it has that form. */
export function clientOf(userAgent: string | null | undefined): string | undefined {
  return userAgent == null ? undefined : product.exec(userAgent)?.[0];
}

/** The header, when it is valid W3C trace context of version 00: anything else is as good as none. */
export function traceparentOf(header: string | null | undefined): string | undefined {
  if (header == null || !header.startsWith('00-') || !traceContext.test(header)) return undefined;
  // All zeros mean "invalid" in both ids.
  return header.includes('-00000000000000000000000000000000-') || header.includes('-0000000000000000-')
    ? undefined
    : header;
}

/** 4 bytes for IPv4 (also when mapped into IPv6), 16 for IPv6. */
export function addressBytes(address: string | undefined): Uint8Array | undefined {
  if (address === undefined) return undefined;
  const plain = address.startsWith('::ffff:') ? address.slice(7) : (address.split('%')[0] as string);
  if (isIPv4(plain)) return Uint8Array.from(plain.split('.'), Number);
  if (!isIPv6(plain)) return undefined;
  const [head = '', tail] = plain.split('::') as [string, string?];
  const groups = (text: string): string[] => (text === '' ? [] : text.split(':'));
  const left = groups(head);
  const right = tail === undefined ? [] : groups(tail);
  const all = [...left, ...Array<string>(8 - left.length - right.length).fill('0'), ...right];
  return Uint8Array.from(all.flatMap((group) => [Number.parseInt(group, 16) >> 8, Number.parseInt(group, 16) & 255]));
}

/**
 * Whether something between the application and the gateway says that it has sent this call before: gRPC's own retryPolicy and
 * hedging (grpc-previous-rpc-attempts, gRFC A6), or Envoy and the meshes that are built on it (x-envoy-attempt-count). They send the
 * same bytes again, so `attempt` still says 1. A value that is no number counts as "yes": a doubt costs a look-up, never an event.
 */
export function wasResent(header: ReadHeader): boolean {
  const previous = header('grpc-previous-rpc-attempts');
  const count = header('x-envoy-attempt-count');
  return (previous != null && !/^0+$/.test(previous)) || (count != null && !/^0*[01]$/.test(count));
}

export function readFacts(header: ReadHeader, remoteAddress: string | undefined, options: FactOptions): RequestFacts {
  const userAgent = header('user-agent');
  return {
    traceparent: traceparentOf(header('traceparent')),
    // Browsers do not let a library set user-agent, so the gRPC-Web convention has a second header.
    client: clientOf(header('x-user-agent')) ?? clientOf(userAgent),
    userAgent: options.storeUserAgent && userAgent != null ? userAgent.replace(/[^ -~]/g, '').slice(0, 512) : undefined,
    clientAddress: options.storeClientAddress ? addressBytes(options.clientAddress(header, remoteAddress)) : undefined,
  };
}

/**
 * Finds the address of a client behind proxies. Each proxy adds the address that it saw to the end of X-Forwarded-For, or of Forwarded
 * (RFC 7239). A client can write these headers as well. So they are read from the right, and only as far as the addresses belong to
 * proxies that the operator trusts.
 */
import { BlockList, isIPv4, isIPv6 } from 'node:net';
import { UsageError } from '../../lib/errors.js';

type ReadHeader = (name: string) => string | null | undefined;

/** The client's address; undefined when the proxies do not know it. */
export type ClientAddress = (header: ReadHeader, remote: string | undefined) => string | undefined;

/** As an IPv4 address when it is one that is mapped into IPv6. */
const unmapped = (address: string): string => (/^::ffff:\d+\./i.test(address) ? address.slice(7) : address);

const family = (address: string): 'ipv4' | 'ipv6' | undefined =>
  isIPv4(address) ? 'ipv4' : isIPv6(address) ? 'ipv6' : undefined;

function networks(trusted: readonly string[]): BlockList {
  const list = new BlockList();
  for (const entry of trusted) {
    const [address = '', bits, ...rest] = entry.split('/');
    const kind = family(address);
    const max = kind === 'ipv4' ? 32 : 128;
    const fits = bits === undefined || (/^\d{1,3}$/.test(bits) && Number(bits) <= max);
    if (kind === undefined || !fits || rest.length > 0) {
      throw new UsageError(`--trusted-proxies: "${entry}" is neither an address nor a network such as 10.0.0.0/8.`);
    }
    list.addSubnet(address, bits === undefined ? max : Number(bits), kind);
  }
  return list;
}

/** The addresses of X-Forwarded-For, in order; some proxies add the port. */
const ofForwardedFor = (value: string): string[] =>
  value.split(',').map((item) => {
    const text = item.trim();
    return /^\[(.+)\](?::\d+)?$/.exec(text)?.[1] ?? /^(\d+(?:\.\d+){3}):\d+$/.exec(text)?.[1] ?? text;
  });

/** The `for` of each element of Forwarded, in order; empty where an element has none. */
const ofForwarded = (value: string): string[] =>
  (value.match(/(?:"(?:\\.|[^"\\])*"|[^,"])+/g) ?? []).map((element) => {
    const node = /(?:^|;)\s*for\s*=\s*("(?:\\.|[^"\\])*"|[^;\s]*)/i.exec(element)?.[1] ?? '';
    return ofForwardedFor(node.replace(/^"|"$/g, ''))[0] ?? '';
  });

/**
 * Whether an address is that of a proxy, also when it is one of IPv4 that is mapped into IPv6.
 * @param trusted addresses and networks
 * @throws UsageError that names the entry at fault
 */
export function createIsTrusted(trusted: readonly string[]): (address: string) => boolean {
  if (trusted.length === 0) return () => false;
  const list = networks(trusted);
  return (text) => {
    const address = unmapped(text);
    const kind = family(address);
    return kind !== undefined && list.check(address, kind);
  };
}

/** @param isTrusted of createIsTrusted */
export function createClientAddress(isTrusted: (address: string) => boolean): ClientAddress {
  return (header, remote) => {
    if (remote === undefined || !isTrusted(remote)) return remote;
    const [forwarded, forwardedFor] = [header('forwarded'), header('x-forwarded-for')];
    const hops = forwarded != null ? ofForwarded(forwarded) : forwardedFor != null ? ofForwardedFor(forwardedFor) : [];
    let client: string = remote;
    for (const hop of hops.reverse()) {
      const address = unmapped(hop);
      // "unknown", or a name that hides it: nothing vouches for what is further left.
      if (family(address) === undefined) return undefined;
      client = address;
      if (!isTrusted(address)) break;
    }
    return client;
  };
}

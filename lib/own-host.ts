/**
 * Checks whether a request was meant for this machine. A web page can let its own name resolve to 127.0.0.1 (DNS rebinding), and then
 * counts as the same site as a server here. The name that it calls is in the Host header.
 */
import { isIPv6 } from 'node:net';

const loopback = /^(?:127(?:\.\d{1,3}){3}|::1|localhost)$/i;

/** Host name of a Host header: without port, brackets and a last dot. */
function nameOf(header: string): string {
  const bracketed = /^\[([^\]]*)\](?::\d*)?$/.exec(header)?.[1];
  if (bracketed !== undefined) return isIPv6(bracketed) ? bracketed : '';
  return header.replace(/:\d*$/, '').replace(/\.$/, '');
}

/**
 * A server on a loopback address takes loopback addresses, `localhost` and the name that it listens on. A server on another address
 * is called by names that it cannot know, so there every name is taken.
 * @param header the Host header; undefined in HTTP/1.0, which browsers do not speak
 * @param listensOn address or name that the server listens on
 */
export function isOwnHost(header: string | undefined, listensOn: string): boolean {
  if (header === undefined) return true;
  const name = nameOf(header.trim()).toLowerCase();
  if (loopback.test(name) || name === listensOn.toLowerCase()) return true;
  return !loopback.test(listensOn) && name !== '';
}

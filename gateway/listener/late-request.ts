/**
 * Requests over HTTP/1.1 that are not whole in time. Node reports such a request once, and would end it, even a large one on a slow
 * line, such as 4 MiB from a phone. So a request whose body flows continues: each further period must bring `slowBytes` for each
 * second. A period in which the gateway does not read the body does not count. Another check finds earlier that no byte comes at all.
 */
import type { IncomingMessage } from 'node:http';
import type { ConnectionEntry } from './connection-entry.js';

/** What a body has to bring in a second, where it keeps others waiting. */
export const slowBytes = 1024;

const payloadKey = Symbol('payload');
type LateRequest = IncomingMessage & { [payloadKey]?: number };

/** To be called with each request: what the connection had brought of bodies before it. */
export function noteBegin(request: LateRequest, { payload }: ConnectionEntry): void {
  request[payloadKey] = payload;
}

/**
 * Whether a request that Node has reported goes on. It is looked at again after each period.
 * @param periodMs that has passed since its begin
 * @param refuse is called when it is too slow later
 */
export function goesOn(request: LateRequest, entry: ConnectionEntry, periodMs: number, refuse: () => void): boolean {
  const { payload } = entry;
  const came = payload - (request[payloadKey] ?? payload);
  if (!request.isPaused() && came * 1_000 < slowBytes * periodMs) return false;
  request[payloadKey] = payload;
  const timer = setTimeout(() => {
    if (!request.complete && !request.destroyed && !goesOn(request, entry, periodMs, refuse)) refuse();
  }, periodMs);
  timer.unref();
  request.once('close', () => clearTimeout(timer));
  return true;
}

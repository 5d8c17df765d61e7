/**
 * Calls on HTTP/2 that have their whole answer, and whose client takes none of it: its flow control window is closed, or its socket is
 * full. Such a stream takes about 6 KiB and its answer, and the seat of its call is free already.
 *
 *   UNREAD-1  A stream whose request has ended, and whose answer the client does not read, is gone 30 s after the answer.
 *   UNREAD-2  When more than `maxUnread` wait, or more than `maxUnreadBytes`, streams are reset: of the owner that has most, and there of the
 *       connection that has most, the eldest. An owner is a tenant, or the address where no key is known here. So one caller cannot end the
 *       calls of others. A client may repeat such a call, like any whose outcome it does not know.
 *   UNREAD-3  Streams that have waited for less than `sweepMs` are spared: they may only wait for this turn of the event loop to end.
 *       Beyond twice `maxUnreadBytes` none is spared.
 */
import type { ServerHttp2Stream } from 'node:http2';
import { KiB, MiB } from '../../lib/units.js';
import { connectionKey, type OnConnection, takeOver } from './connection-entry.js';
import { cancelStream } from './reset-stream.js';
import { type UnreadCall, UnreadCalls } from './unread-owners.js';

/** How long a client may leave an answer unread, or a stream of answers while it is due to read them. */
export const unreadMs = 30_000;
/** Of the process. */
export const maxUnread = 2_048;
export const maxUnreadBytes = 14 * MiB;
/** What a stream takes beyond its answer. */
const streamBytes = 6 * KiB;
const sweepMs = 250;

type Stream = ServerHttp2Stream & OnConnection;

interface Waiting extends UnreadCall {
  readonly stream: Stream;
  /** Time is counted in sweeps: when the process stands still, no client is late by that. */
  readonly since: number;
  onReset: () => void;
}

/** In order of age. */
const waiting = new Map<Stream, Waiting>();
const calls = new UnreadCalls<Waiting>();
let sweeps = 0;
let timer: NodeJS.Timeout | undefined;

/**
 * To be called when a call is answered. A second time, by a caller that knows more, tenant and `onReset` take the place of those before.
 * @param tenant undefined or empty: no key is known here, as where the library serves the call
 * @param onReset the client has not read the answer, and the stream is reset
 */
export function endWhenUnread(stream: ServerHttp2Stream, tenant?: string, onReset: () => void = () => {}): void {
  const connection = (stream as Stream)[connectionKey];
  const owner = tenant ? `tenant ${tenant}` : (connection?.network ?? connection);
  const before = waiting.get(stream);
  if (before !== undefined) {
    before.onReset = onReset;
    if (tenant) calls.move(before, owner);
    return;
  }
  const one: Waiting = {
    stream,
    owner,
    connection,
    bytes: streamBytes + stream.writableLength,
    since: sweeps,
    onReset,
  };
  waiting.set(stream, one);
  calls.add(one);
  stream.once('close', forget);
  while (calls.bytes > 2 * maxUnreadBytes) reset(calls.next() as Waiting);
  if (timer === undefined) timer = setTimeout(sweep, sweepMs).unref();
}

function forget(this: Stream): void {
  const one = waiting.get(this);
  if (one !== undefined) remove(one);
}

function remove(one: Waiting): void {
  waiting.delete(one.stream);
  calls.delete(one);
}

function sweep(): void {
  sweeps++;
  for (const one of waiting.values()) {
    if ((sweeps - one.since) * sweepMs < unreadMs) break;
    reset(one);
  }
  while (waiting.size > maxUnread || calls.bytes > maxUnreadBytes) {
    const next = calls.next();
    if (next === undefined || sweeps - next.since < 2) break;
    reset(next);
  }
  timer = waiting.size > 0 ? setTimeout(sweep, sweepMs).unref() : undefined;
}

function reset(one: Waiting): void {
  // Node may need a turn to close it.
  remove(one);
  // It is answered, and the gateway resets it: the client has not taken it back.
  takeOver(one.stream);
  cancelStream(one.stream);
  one.onReset();
}

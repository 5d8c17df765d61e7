/**
 * Calls on HTTP/2 that have their whole answer, and whose client takes none of it: its flow control window is closed, or its socket is
 * full. Such a stream takes about 6 KiB, and the seat of its call is free already.
 *
 *   UNREAD-1  A stream whose request has ended, and whose answer the client does not read, is gone 30 s after the answer.
 *   UNREAD-2  When more than `maxUnread` wait, the eldest are reset: first those of connections with more than `fewUnread`. A client may repeat
 *       such a call, like any whose outcome it does not know. Streams that have waited for less than `sweepMs` are spared: they may only
 *       wait for this turn of the event loop to end.
 */
import type { ServerHttp2Stream } from 'node:http2';
import { connectionKey, type OnConnection, takeOver } from './connection-entry.js';
import { cancelStream } from './reset-stream.js';

/** How long a client may leave an answer unread, or a stream of answers while it is due to read them. */
export const unreadMs = 30_000;
/** Of the process. */
export const maxUnread = 2_048;
const fewUnread = 32;
const sweepMs = 250;

type Stream = ServerHttp2Stream & OnConnection;

interface Waiting {
  /** Time is counted in sweeps: when the process stands still, no client is late by that. */
  readonly since: number;
  readonly onReset: () => void;
}

/** In order of age. */
const waiting = new Map<Stream, Waiting>();
let sweeps = 0;
let timer: NodeJS.Timeout | undefined;

/**
 * To be called when a call is answered. A second time changes `onReset` only.
 * @param onReset the client has not read the answer, and the stream is reset
 */
export function endWhenUnread(stream: ServerHttp2Stream, onReset: () => void = () => {}): void {
  const before = waiting.get(stream);
  waiting.set(stream, { since: before?.since ?? sweeps, onReset });
  if (before === undefined) stream.once('close', forget);
  if (timer === undefined) timer = setTimeout(sweep, sweepMs).unref();
}

function forget(this: Stream): void {
  waiting.delete(this);
}

function sweep(): void {
  sweeps++;
  for (const [stream, { since }] of waiting) {
    if ((sweeps - since) * sweepMs < unreadMs) break;
    reset(stream);
  }
  if (waiting.size > maxUnread && resetGreedy()) resetEldest();
  timer = waiting.size > 0 ? setTimeout(sweep, sweepMs).unref() : undefined;
}

const isSpared = ({ since }: Waiting): boolean => sweeps - since < 2;

/** UNREAD-2, connections with many. @returns that was not enough, and none is spared that would be next */
function resetGreedy(): boolean {
  const counts = new Map<unknown, number>();
  for (const stream of waiting.keys()) counts.set(stream[connectionKey], (counts.get(stream[connectionKey]) ?? 0) + 1);
  for (const [stream, one] of waiting) {
    if (waiting.size <= maxUnread || isSpared(one)) return false;
    const left = counts.get(stream[connectionKey]) ?? 0;
    if (left <= fewUnread) continue;
    counts.set(stream[connectionKey], left - 1);
    reset(stream);
  }
  return waiting.size > maxUnread;
}

/** UNREAD-2, all the others. */
function resetEldest(): void {
  for (const stream of waiting.keys()) {
    if (waiting.size <= maxUnread) return;
    reset(stream);
  }
}

function reset(stream: Stream): void {
  // Node may need a turn to close it.
  const one = waiting.get(stream);
  waiting.delete(stream);
  // It is answered, and the gateway resets it: the client has not taken it back.
  takeOver(stream);
  cancelStream(stream);
  one?.onReset();
}

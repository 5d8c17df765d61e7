/**
 * Answers that come before the end of their request: "too large", no key, a passed deadline, the end of a drain.
 *
 * On HTTP/2 such a stream is half open: it takes one of the connection's places until the client ends it. grpc-go and okhttp end
 * nothing. They count the call as over when they have its answer, and begin the next one in its place. Then one stream too many is
 * open, which nghttp2 takes for a broken connection and ends with all its calls. So:
 *
 *   EARLY-1  The reset (RST_STREAM with NO_ERROR, RFC 9113 8.1) follows the answer in the same turn of the event loop. Half a second
 *       later is too late: by then the client has begun other calls. Never before the answer: nghttp2 would drop the rest of it.
 *       Where it does no harm, it waits for clients that lose the answer by it (late-reset.ts, LATE-1 and LATE-2).
 *   EARLY-2  What still comes of the request is read and dropped; no other reader gets it.
 *   EARLY-3  A stream is gone 500 ms after such an answer, whether the client reads or not.
 *   EARLY-4  A stream whose request has ended is left to unread-calls.ts.
 *   EARLY-5  Where a connection has more calls open than may wait for their reset (LATE-2), nothing is read of it from such an answer to the end of its stream,
 *       for about 50 ms at most. Node hands the answer to the socket when the reset is asked for, and the reset a turn later. In between
 *       comes a read, which may bring the next call. A client that resets the stream itself, in front of its next call, would be too early as
 *       well: Node forgets a stream after the read.
 */
import type { ServerHttp2Stream } from 'node:http2';
import { connectionKey, countCutShort, type OnConnection } from './connection-entry.js';
import { maxCalls, resetLate } from './late-reset.js';
import { cancelStream } from './reset-stream.js';
import { endWhenUnread } from './unread-calls.js';

/** Between an answer and the end of its stream or connection, for the answer to arrive. */
export const lastWordsMs = 500;
/**
 * EARLY-5. An answer and its reset take two or three turns of the event loop, unless the client does not read. Each pause is a turn at least,
 * however long that takes: one with 256 answers takes 50 ms on a busy machine.
 */
const pauseMs = 10;
const maxPauses = 5;
/** While the socket takes no more, for the end of the answer to be written. */
const unwrittenMs = 10;

/** To be called in the turn in which an answer is ended. Only EARLY-4 is left to do when the request has ended. */
export function resetWhenAnswered(stream: ServerHttp2Stream): void {
  if (stream.closed || stream.destroyed) return;
  if (stream.readableEnded || stream.endAfterHeaders) {
    endWhenUnread(stream);
    return;
  }
  countCutShort(stream as OnConnection);
  stopReadingUntilClosed(stream);
  // Node's compatibility API stops the stream when its own buffer is full, and then no code would read on (EARLY-2).
  stream.removeAllListeners('data');
  stream.resume();
  stream.once('finish', onFinish);
  stream.once('wantTrailers', onTrailers);
  setTimeout(waitOn, lastWordsMs / 2, stream).unref();
}

/** EARLY-5. */
function stopReadingUntilClosed(stream: ServerHttp2Stream & OnConnection): void {
  const entry = stream[connectionKey];
  if (entry === undefined || entry.open <= maxCalls) return;
  let pauses = 0;
  const goOn = (): void => {
    clearTimeout(timer);
    entry.goOnReading(stream);
  };
  const timer = setTimeout(() => {
    if (++pauses < maxPauses) timer.refresh();
    else goOn();
  }, pauseMs);
  entry.stopReading(stream);
  stream.once('close', goOn);
}

// Functions that all streams share: `this` or an argument says which stream.

/**
 * EARLY-3, in two halves. When the process stands still for longer, a timer comes before the callbacks that write the end of the answer. The
 * second half begins after the standstill, so they run before it is over.
 */
function waitOn(stream: ServerHttp2Stream): void {
  if (!stream.destroyed) setTimeout(cancelStream, lastWordsMs / 2, stream).unref();
}

/** All is handed over, but for the trailers. The end goes out in this turn, before its immediates. */
function onFinish(this: ServerHttp2Stream): void {
  setImmediate(resetWhenEnded, this);
}

/** Node submits the trailers in an immediate that is set by another listener, before or after this one. */
function onTrailers(this: ServerHttp2Stream): void {
  process.nextTick(setImmediate, resetLate, this);
}

function resetWhenEnded(stream: ServerHttp2Stream): void {
  if (stream.closed || stream.destroyed) return;
  if (stream.state.localClose === 1) resetLate(stream);
  else setTimeout(resetWhenEnded, unwrittenMs, stream).unref();
}

/**
 * Answers that come before the end of their request: "too large", no key, the end of a drain.
 */
import type { ServerHttp2Stream } from 'node:http2';
import { resetStream } from './reset-stream.js';

/** Between an answer and the end of its stream or connection, for the answer to arrive. */
export const lastWordsMs = 500;

/**
 * Without a word an HTTP/2 stream would stay half open for as long as the client likes. Not at once, because node's own clients
 * take a reset that follows the trailers for a failure. (The compatibility API's 'finish' comes when all is over: too late.)
 */
export function closeWhenAnswered(stream: ServerHttp2Stream): void {
  stream.once('finish', onFinish);
}

// One function for all streams: it is told which by `this`.
function onFinish(this: ServerHttp2Stream): void {
  if (this.closed || this.readableEnded) return;
  // What still comes is thrown away.
  this.resume();
  setTimeout(resetStream, lastWordsMs, this).unref();
}

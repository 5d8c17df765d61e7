/**
 * Resets HTTP/2 streams in the one way that is safe in every version of Node.
 *
 * `stream.close(NO_ERROR)` between `end()` and 'finish' puts the reset off until 'finish'. When the stream is destroyed before (Node
 * does it itself when the other side has ended, and a destroyed session does it to all of its streams), the reset is never sent. Then
 * nghttp2 still asks for the rest of a stream that Node has forgotten, gets nothing, and writes empty DATA frames forever: the
 * process spins in SendPendingData and takes 300 MB a second until it dies. Seen in Node 20.20, 22.23 and 24.21.
 */
import { constants, type ServerHttp2Stream } from 'node:http2';

/** Resets the stream without an error, once its answer is with nghttp2. */
export function resetStream(stream: ServerHttp2Stream): void {
  if (stream.closed || stream.destroyed) return;
  if (stream.writableEnded && !stream.writableFinished) stream.once('finish', onFinish);
  else stream.close(constants.NGHTTP2_NO_ERROR);
}

// One function for all streams. Not during 'finish' itself: other listeners of it may destroy the stream.
function onFinish(this: ServerHttp2Stream): void {
  setImmediate(resetStream, this);
}

/**
 * Resets the stream at once, whatever of its answer has left. Not `destroy`: while a write is under way that forgets the reset, too.
 * Unless the peer has reset it without an error before its answer was written. Then nghttp2 knows it no more, and Node would wait for
 * the end of that write until the connection ends.
 */
export function cancelStream(stream: ServerHttp2Stream): void {
  if (stream.destroyed) return;
  if (!stream.closed) stream.close(constants.NGHTTP2_CANCEL);
  else if (stream.rstCode === constants.NGHTTP2_NO_ERROR && !stream.writableFinished) stream.destroy();
}

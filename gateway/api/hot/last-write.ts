/**
 * The last bytes of a stream, without the error that Node makes behind them.
 *
 * Node's HTTP/2 reports a write when the socket has its bytes. The stream has often closed by then, and Node's streams make an error
 * for callers that wait for the end, also where there are none. In Node 20, 22 and 24 that costs 4 to 5 µs, a tenth of a call.
 * So the report of a write stops at a stream that is closed already: nothing waits for it there.
 */
import type { ServerHttp2Stream } from 'node:http2';

type Written = (error?: Error | null) => void;

/** In place of `_write` on a stream: one function for all of them. */
function writeLast(this: ServerHttp2Stream, chunk: unknown, encoding: BufferEncoding, written: Written): void {
  Object.getPrototypeOf(this)._write.call(this, chunk, encoding, (error?: Error | null) => {
    if (error != null || !this.destroyed) written(error);
  });
}

/** Ends a stream. Do not wait for what is written from now on by a callback of `end`: use 'close'. */
export function endWithBytes(stream: ServerHttp2Stream, bytes: Buffer | undefined): void {
  if (bytes !== undefined) stream._write = writeLast;
  stream.end(bytes);
}

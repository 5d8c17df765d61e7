/**
 * A call on a bare HTTP/2 stream, byte by byte as a test wants it, and the whole answer.
 */
import {
  type ClientHttp2Session,
  connect,
  constants,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
} from 'node:http2';

/** Bytes to send, as DATA frames of their own; a number waits until so many envelopes have been answered. */
export type Piece = Uint8Array | number;

export interface BareCall {
  readonly headers: OutgoingHttpHeaders;
  readonly pieces: readonly Piece[];
  /** The request is not ended. */
  readonly open?: boolean;
}

export interface BareAnswer {
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
  readonly trailers: IncomingHttpHeaders;
  /** Of the stream's reset. */
  readonly code: number;
}

/** A message in its envelope, plain. @param size that its head states */
export function enveloped(bytes: Uint8Array, size = bytes.length): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(size, 1);
  return Buffer.concat([head, bytes]);
}

/** Cuts bytes into envelopes: [flags, content]. What is left over is one more, with flags -1. */
export function envelopesOf(body: Buffer): [number, Buffer][] {
  const all: [number, Buffer][] = [];
  let at = 0;
  while (at < body.length) {
    const size = at + 5 <= body.length ? body.readUInt32BE(at + 1) : Number.POSITIVE_INFINITY;
    if (at + 5 + size > body.length) return [...all, [-1, body.subarray(at)]];
    all.push([body[at] as number, body.subarray(at + 5, at + 5 + size)]);
    at += 5 + size;
  }
  return all;
}

export async function withSession<T>(url: string, use: (session: ClientHttp2Session) => Promise<T>): Promise<T> {
  const session = connect(url);
  session.on('error', () => {});
  try {
    return await use(session);
  } finally {
    session.destroy();
  }
}

/** @throws Error when there is no answer within the time */
export async function bareCall(session: ClientHttp2Session, call: BareCall, ms = 10_000): Promise<BareAnswer> {
  const bodiless = call.pieces.length === 0 && call.open !== true;
  const stream = session.request({ ':method': 'POST', ...call.headers }, { endStream: bodiless });
  const chunks: Buffer[] = [];
  let headers: IncomingHttpHeaders = {};
  let trailers: IncomingHttpHeaders = {};
  let wake = (): void => {};
  let over = false;
  stream.on('response', (all) => {
    headers = all;
  });
  stream.on('trailers', (all) => {
    trailers = all;
  });
  stream.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    wake();
  });
  stream.on('error', () => {});
  const closed = new Promise<void>((resolve) => {
    const end = (): void => {
      over = true;
      wake();
      resolve();
    };
    stream.on('end', end);
    stream.on('close', end);
  });
  const timer = setTimeout(() => stream.destroy(new Error('no answer')), ms);
  for (const piece of call.pieces) {
    if (over) break;
    if (typeof piece !== 'number') {
      await new Promise<void>((resolve) => {
        // Called back in any case, with an error when the stream is gone.
        stream.write(piece, () => resolve());
      });
      continue;
    }
    while (!over && envelopesOf(Buffer.concat(chunks)).length < piece) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
  }
  if (call.open !== true && !stream.destroyed) stream.end();
  await closed;
  clearTimeout(timer);
  if (stream.errored?.message === 'no answer') throw new Error(`no answer to ${JSON.stringify(call.headers)}`);
  const answer = { headers, body: Buffer.concat(chunks), trailers, code: stream.rstCode ?? 0 };
  // The request may not be out yet: a code other than 0 is sent at once (gateway/listener/reset-stream.ts says why).
  if (!stream.destroyed) stream.close(constants.NGHTTP2_CANCEL);
  return answer;
}

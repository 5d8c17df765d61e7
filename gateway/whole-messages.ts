/**
 * What the RPC library gets of a request: messages that are whole. The library joins each chunk to all before it, so that a message in
 * frames of one byte would cost the square of its size, and what it gathers nobody counts. Here parts gather in one
 * buffer, which is counted. Flags of envelopes are checked on the way.
 */
import { reservedFlags } from './envelope-flags.js';
import { detached } from './held-bytes.js';
import { GrowingMessage, type MessageBuffers } from './message-buffers.js';

export interface MessageOptions {
  /** The bits that have a meaning in the flags of an envelope; undefined: the body has no envelopes. */
  readonly known: number | undefined;
  /** A call with many messages: each is passed on by itself, since the library forgets those before one that is too large. */
  readonly streams: boolean;
  /** Most bytes of a message. The head of a larger one is passed on, for the library to refuse. */
  readonly most: number;
  readonly buffers: MessageBuffers;
  readonly isRoomy: () => boolean;
  /** So many bytes are kept here, or by the library. */
  readonly keep: (bytes: number) => void;
}

/** @throws SluiceError request_malformed, when all before the odd envelope is passed on */
export function wholeMessages(chunks: AsyncIterable<Uint8Array>, options: MessageOptions): AsyncGenerator<Uint8Array> {
  return options.known === undefined ? pieces(chunks, options) : messages(chunks, options, options.known);
}

/** Of a body without envelopes the library keeps a list of pieces: smaller ones are joined up to `pieceBytes`. */
const smallBytes = 4 * 1024;
const pieceBytes = 64 * 1024;

async function* pieces(
  chunks: AsyncIterable<Uint8Array>,
  { buffers, keep }: MessageOptions,
): AsyncGenerator<Uint8Array> {
  let passed = 0;
  const joined = new GrowingMessage(buffers, pieceBytes, () => false);
  for await (const chunk of chunks as AsyncIterable<Buffer>) {
    const small = chunk.length < smallBytes;
    passed += chunk.length;
    keep(passed);
    if (joined.filled > 0 && (!small || joined.filled + chunk.length > pieceBytes)) yield joined.take().bytes;
    if (small) joined.append(chunk, 0, chunk.length);
    else yield detached(chunk);
  }
  if (joined.filled > 0) yield joined.take().bytes;
}

const headSize = 5;

async function* messages(
  chunks: AsyncIterable<Uint8Array>,
  { streams, most, buffers, isRoomy, keep }: MessageOptions,
  known: number,
): AsyncGenerator<Uint8Array> {
  /** Of the head that is being read. */
  let headFilled = 0;
  let unknown = 0;
  let size = 0;
  /** Due of the message whose head is read. */
  let left = 0;
  /** Its bytes, when it is not whole in the chunk of its head. */
  let message: GrowingMessage | undefined;
  /** The library keeps the messages of a single call until its end. */
  let passed = 0;
  try {
    for await (const chunk of chunks as AsyncIterable<Buffer>) {
      /** What is passed on of this chunk. */
      let from = 0;
      for (let at = 0; at < chunk.length; ) {
        if (left > 0) {
          const part = Math.min(left, chunk.length - at);
          left -= part;
          at += part;
          if (message !== undefined) {
            message.append(chunk, at - part, at);
            from = at;
            if (left > 0) continue;
            const { bytes } = message.take();
            message = undefined;
            if (!streams) passed += bytes.length;
            keep(streams ? bytes.length : passed);
            yield bytes;
          }
        } else {
          const byte = chunk[at++] as number;
          if (headFilled === 0) {
            unknown = byte & ~known;
            size = 0;
          } else {
            size = size * 256 + byte;
          }
          if (++headFilled < headSize) continue;
          if (unknown !== 0) throw reservedFlags(unknown);
          headFilled = 0;
          left = size;
          // The rest comes later. The head goes ahead: the library refuses some sizes by it.
          if (size <= most && size > chunk.length - at) {
            message = new GrowingMessage(buffers, size, isRoomy);
            yield chunk.subarray(from, at);
            from = at;
          }
        }
        if (left > 0 || !streams || from === at) continue;
        keep(at - from);
        yield detached(chunk.subarray(from, at));
        from = at;
      }
      if (from < chunk.length) {
        if (!streams) passed += chunk.length - from;
        yield detached(chunk.subarray(from));
      }
      keep(passed + (message?.held ?? 0));
    }
    // The library says what is wrong with a message that ends early.
    if (message !== undefined && message.filled > 0) yield message.take().bytes;
  } finally {
    message?.close();
  }
}

/**
 * Cuts length-prefixed messages (gRPC, gRPC-Web and Connect streams have the same five bytes in front) out of the chunks that
 * HTTP/2 delivers. A message that lies within one chunk is not copied, unless it would keep a much larger chunk alive; one that
 * spans chunks (75 kB come as five) is joined into a buffer that is used again (message-buffers.ts).
 */
import { Code, ConnectError } from '@connectrpc/connect';
import type { MessageBuffers } from './message-buffers.js';

export interface Envelope {
  readonly flags: number;
  readonly bytes: Buffer;
  /** To be called when `bytes` are needed no more. */
  readonly release: (() => void) | undefined;
}

export interface Envelopes {
  push(chunk: Buffer): void;
  /** The next whole message. @throws ConnectError when it is longer than allowed, in the library's words */
  next(): Envelope | undefined;
  /** The bytes so far end within a message. */
  readonly incomplete: boolean;
  /** Gives the memory of an unfinished message back. */
  close(): void;
}

const headSize = 5;
/** A message may keep a chunk of at most so many times its size alive; smaller ones are copied. */
const mostKept = 4;

export function createEnvelopes(maxBytes: number, buffers: MessageBuffers): Envelopes {
  const head = Buffer.allocUnsafe(headSize);
  let headFilled = 0;
  let size = 0;
  let body: Buffer | undefined;
  let filled = 0;
  let chunk: Buffer | undefined;
  let at = 0;
  /** Chunks after `chunk`; there are none while the reader keeps up. */
  let waiting: Buffer[] | undefined;

  const whole = (bytes: Buffer, release: Envelope['release']): Envelope => {
    headFilled = 0;
    body = undefined;
    return { flags: head[0] as number, bytes, release };
  };

  return {
    push(more) {
      if (chunk === undefined) {
        chunk = more;
        at = 0;
      } else {
        waiting ??= [];
        waiting.push(more);
      }
    },
    next() {
      while (chunk !== undefined) {
        if (headFilled < headSize) {
          while (headFilled < headSize && at < chunk.length) head[headFilled++] = chunk[at++] as number;
          if (headFilled === headSize) {
            size = head.readUInt32BE(1);
            if (size > maxBytes) {
              throw new ConnectError(
                `message size ${size} is larger than configured readMaxBytes ${maxBytes}`,
                Code.ResourceExhausted,
              );
            }
            filled = 0;
          }
        }
        if (headFilled === headSize) {
          const left = chunk.length - at;
          if (body === undefined && left >= size) {
            const bytes = chunk.subarray(at, at + size);
            at += size;
            return whole(size * mostKept < chunk.buffer.byteLength ? Buffer.from(bytes) : bytes, undefined);
          }
          // Not before there is a byte to put in: a head alone costs nobody memory.
          if (left > 0) {
            body ??= buffers.take(size);
            const part = Math.min(left, size - filled);
            chunk.copy(body, filled, at, at + part);
            at += part;
            filled += part;
            if (filled === size) {
              const joined = body;
              return whole(joined, () => buffers.give(joined));
            }
          }
        }
        // Used up.
        chunk = waiting?.shift();
        at = 0;
      }
      return undefined;
    },
    // As the library counts: a head without a single byte of its message passes for an end.
    get incomplete() {
      return headFilled === headSize ? filled > 0 : headFilled > 0;
    },
    close() {
      if (body !== undefined) buffers.give(body);
      body = undefined;
      chunk = undefined;
      waiting = undefined;
    },
  };
}

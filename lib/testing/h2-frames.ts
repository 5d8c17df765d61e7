/**
 * Frames of HTTP/2 (RFC 9113) over bytes, for clients that send what no library would: attacks, mutated requests. Header blocks of
 * answers: h2-header-blocks.ts.
 */
import { MiB } from '../units.js';

export const frameType = {
  data: 0,
  headers: 1,
  priority: 2,
  reset: 3,
  settings: 4,
  ping: 6,
  goaway: 7,
  windowUpdate: 8,
  continuation: 9,
} as const;
export const flag = { endStream: 1, ack: 1, endHeaders: 4, padded: 8, priority: 32 } as const;

export const preface = Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n');
export const frameHead = 9;

/** Writes a frame's nine bytes. */
function putHead(to: Uint8Array, at: number, length: number, type: number, flags: number, stream: number): void {
  to[at] = length >>> 16;
  to[at + 1] = length >>> 8;
  to[at + 2] = length;
  to[at + 3] = type;
  to[at + 4] = flags;
  putStream(to, at, stream);
}

/** Changes the stream of a frame that is there. */
export function putStream(to: Uint8Array, at: number, stream: number): void {
  to[at + 5] = stream >>> 24;
  to[at + 6] = stream >>> 16;
  to[at + 7] = stream >>> 8;
  to[at + 8] = stream;
}

export function frame(type: number, flags: number, stream: number, payload: Uint8Array = new Uint8Array()): Buffer {
  const bytes = Buffer.alloc(frameHead + payload.length);
  putHead(bytes, 0, payload.length, type, flags, stream);
  bytes.set(payload, frameHead);
  return bytes;
}

/** Calls `each` for every whole frame of a byte stream; parts of frames are kept until the rest comes. */
export class FrameSplitter {
  private rest: Buffer = Buffer.alloc(0);

  /** @throws Error on a frame above 1 MiB, which no answer to this client is */
  push(chunk: Buffer, each: (type: number, flags: number, stream: number, payload: Buffer) => void): void {
    const bytes = this.rest.length === 0 ? chunk : Buffer.concat([this.rest, chunk]);
    let at = 0;
    while (bytes.length - at >= frameHead) {
      const length = bytes.readUIntBE(at, 3);
      if (length > MiB) throw new Error('not HTTP/2, or a frame that is too large');
      const end = at + frameHead + length;
      if (end > bytes.length) break;
      const stream = bytes.readUInt32BE(at + 5) & 0x7fffffff;
      each(bytes[at + 3]!, bytes[at + 4]!, stream, bytes.subarray(at + frameHead, end));
      at = end;
    }
    this.rest = bytes.subarray(at);
  }
}

/** Text in a header block, with its length before it, without Huffman coding: bytes as the characters of latin1. */
export function literalText(text: string): string {
  if (text.length < 127) return String.fromCharCode(text.length) + text;
  const length = [127];
  let rest = text.length - 127;
  for (; rest > 127; rest >>>= 7) length.push((rest & 127) | 128);
  return String.fromCharCode(...length, rest) + text;
}

/**
 * As much of HTTP/2 as a client of unary calls needs, over bytes: frames (RFC 9113) and the headers of a request (HPACK,
 * RFC 7541). node:http2 as a client costs about as much CPU a call as the gateway that is to be measured; this costs a few
 * microseconds. Header blocks of answers: h2-header-blocks.ts.
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
export function putHead(to: Uint8Array, at: number, length: number, type: number, flags: number, stream: number): void {
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
export class FrameCutter {
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

/** Places of HPACK's static table: the header and value, or the header alone. */
const known: Readonly<Record<string, number>> = {
  ':method: POST': 3,
  ':scheme: http': 6,
  ':authority': 1,
  ':path': 4,
  'content-type': 31,
  'user-agent': 58,
  authorization: 23,
};
const staticEntries = 61;

export interface RequestHeaders {
  /** For the first request of a connection: the headers go into the connection's table. */
  readonly first: Buffer;
  /** For each later one: a byte a header, as any client writes a request that it has made before. */
  readonly later: Buffer;
}

/** Header blocks of the same request made again and again. Nothing else may be sent on the connection. */
export function requestHeaders(headers: readonly (readonly [string, string])[]): RequestHeaders {
  const first: number[] = [];
  const later: number[] = [];
  const added = headers.filter(([name, value]) => known[`${name}: ${value}`] === undefined).length;
  let place = 0;
  for (const [name, value] of headers) {
    const whole = known[`${name}: ${value}`];
    if (whole !== undefined) {
      first.push(0x80 | whole);
      later.push(0x80 | whole);
      continue;
    }
    const index = known[name];
    // A literal that is added to the table; the newest entry of it comes right after the static ones.
    if (index === undefined) first.push(0x40, ...literal(name));
    else first.push(0x40 | index);
    first.push(...literal(value));
    later.push(0x80 | (staticEntries + added - place));
    place++;
  }
  return { first: Buffer.from(first), later: Buffer.from(later) };
}

/** Text in a header block, with its length before it, without Huffman coding: bytes as the characters of latin1. */
export function literalText(text: string): string {
  if (text.length < 127) return String.fromCharCode(text.length) + text;
  const length = [127];
  let rest = text.length - 127;
  for (; rest > 127; rest >>>= 7) length.push((rest & 127) | 128);
  return String.fromCharCode(...length, rest) + text;
}

/** The same as bytes. */
export const literal = (text: string): Buffer => Buffer.from(literalText(text), 'latin1');

/** HTTP/2 frame by frame, for tests of what no client library sends. */

import { FrameSplitter } from '../../lib/testing/h2-frames.js';

export { frame, frameType, preface } from '../../lib/testing/h2-frames.js';

/** Without Huffman and without the table: 0, length, name, length, value. */
export const header = (name: string, value: string): Buffer =>
  Buffer.from(`\0${String.fromCharCode(name.length)}${name}${String.fromCharCode(value.length)}${value}`, 'latin1');

/** A number of 32 bits. */
export function word(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

/** Frames out of bytes; what is left over is not shown. */
export function framesOf(bytes: Buffer): { type: number; flags: number; stream: number; payload: Buffer }[] {
  const all: ReturnType<typeof framesOf> = [];
  new FrameSplitter().push(bytes, (type, flags, stream, payload) => all.push({ type, flags, stream, payload }));
  return all;
}

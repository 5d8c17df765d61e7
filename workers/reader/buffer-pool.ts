/**
 * Memory that messages are read into. A buffer takes what a socket delivers, and messages are windows on it; when none of
 * them is held any more the buffer is filled again. So a worker that loads 150 MB/s allocates nothing for it: node's buffer for
 * every read and the library's for every message used to cost it more in copying, page faults and collections than all
 * its other work (docs/performance.md, Worker).
 */
import { KiB, MiB } from '../../lib/units.js';

/** Bytes of a buffer. A message that spans its end is moved to the next one: about 6 % of the bytes at 128 KiB each. */
const bufferBytes = MiB;
const firstBytes = 64 * KiB;

export interface ReadBuffer {
  readonly bytes: Buffer;
  /** Messages in it that somebody holds. */
  held: number;
  /** A socket may still write to it. */
  filling: boolean;
  /** Somebody may still read from it after its messages were let go: it is left to the collector. */
  spoiled: boolean;
}

export interface BufferPool {
  /** One that holds so many bytes at least. */
  take(bytes: number): ReadBuffer;
  /** A small one, to begin with: most shards of an installation may be quiet. */
  first(): ReadBuffer;
  /** Another message in the buffer is held. */
  hold(buffer: ReadBuffer): void;
  /** One of them is not held any more. `reusable`: and nothing can read its bytes from now on. */
  letGo(buffer: ReadBuffer, reusable: boolean): void;
  /** Nothing writes to it any more. */
  filled(buffer: ReadBuffer): void;
  /** Buffers that wait for use. */
  readonly free: number;
}

const made = (bytes: Buffer): ReadBuffer => ({ bytes, held: 0, filling: true, spoiled: false });

/** @param max bytes that are kept for later use */
export function createBufferPool(max: number): BufferPool {
  const free: Buffer[] = [];
  const done = (buffer: ReadBuffer): void => {
    if (buffer.filling || buffer.held > 0 || buffer.spoiled) return;
    // Never twice: a buffer object is over with its use, its buffer goes on in another one.
    buffer.spoiled = true;
    if (buffer.bytes.length === bufferBytes && (free.length + 1) * bufferBytes <= max) free.push(buffer.bytes);
  };
  return {
    take: (bytes) =>
      made((bytes <= bufferBytes ? free.pop() : undefined) ?? Buffer.allocUnsafeSlow(Math.max(bufferBytes, bytes))),
    first: () => made(Buffer.allocUnsafeSlow(firstBytes)),
    hold(buffer) {
      buffer.held++;
    },
    letGo(buffer, reusable) {
      buffer.held--;
      if (!reusable) buffer.spoiled = true;
      done(buffer);
    },
    filled(buffer) {
      buffer.filling = false;
      done(buffer);
    },
    get free() {
      return free.length;
    },
  };
}

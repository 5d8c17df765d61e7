/**
 * Buffers for messages that came in parts, used again: one made per message is memory outside the heap that drives the
 * collector, as in payload-pool.ts. Kept by size class, and bounded in all.
 */
import { heldBuffer } from '../held-bytes.js';

export interface MessageBuffers {
  /** Exactly `size` bytes of arbitrary content. */
  take(size: number): Buffer;
  /** Gives back what `take` gave; nobody may look at it any more. */
  give(buffer: Buffer): void;
}

/** Held memory may not be much more than the bytes that admission counts: fine steps, and small messages exactly. */
const classBytes = 4 * 1024;
const smallestKept = 8 * 1024;
/** Larger ones are made and forgotten. */
const largestKept = 256 * 1024;

/** @param mostBytes that are kept while nobody uses them */
export function createMessageBuffers(mostBytes: number): MessageBuffers {
  const free: Buffer[][] = Array.from({ length: largestKept / classBytes + 1 }, () => []);
  let kept = 0;
  return {
    take(size) {
      if (size < smallestKept) return heldBuffer(size);
      if (size > largestKept) return Buffer.allocUnsafeSlow(size);
      const index = Math.ceil(size / classBytes);
      const slab = free[index]?.pop();
      if (slab === undefined) return Buffer.allocUnsafeSlow(index * classBytes).subarray(0, size);
      kept -= slab.length;
      return slab.subarray(0, size);
    },
    give({ length, buffer }) {
      const bytes = buffer.byteLength;
      if (length < smallestKept || length > largestKept || kept + bytes > mostBytes) return;
      kept += bytes;
      free[bytes / classBytes]?.push(Buffer.from(buffer));
    },
  };
}

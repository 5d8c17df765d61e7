/**
 * Buffers for messages that came in parts, used again: one made per message is memory outside the heap that drives the
 * collector, as in payload-pool.ts. Kept by size class, and bounded in all.
 */
export interface MessageBuffers {
  /** Exactly `size` bytes of arbitrary content. */
  take(size: number): Buffer;
  /** Gives back what `take` gave; nobody may look at it any more. */
  give(buffer: Buffer): void;
}

const classBytes = 16 * 1024;
/** Larger ones are made and forgotten. */
const largestKept = 256 * 1024;

/** @param mostBytes that are kept while nobody uses them */
export function createMessageBuffers(mostBytes: number): MessageBuffers {
  const free: Buffer[][] = Array.from({ length: largestKept / classBytes + 1 }, () => []);
  let kept = 0;
  return {
    take(size) {
      if (size > largestKept) return Buffer.allocUnsafeSlow(size);
      const index = Math.ceil(size / classBytes);
      const slab = free[index]?.pop();
      if (slab === undefined) return Buffer.allocUnsafeSlow(index * classBytes).subarray(0, size);
      kept -= slab.length;
      return slab.subarray(0, size);
    },
    give({ buffer }) {
      const bytes = buffer.byteLength;
      if (bytes > largestKept || kept + bytes > mostBytes) return;
      kept += bytes;
      free[bytes / classBytes]?.push(Buffer.from(buffer));
    },
  };
}

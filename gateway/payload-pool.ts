/**
 * Buffers for messages, used again: without it half a gigabyte a second of short-lived memory outside the heap drives the
 * collector (bench/ingest-core.ts: it took a quarter of the core's CPU time).
 *
 * A buffer may come back only when JetStream has answered its message: that proves that the client library and the socket
 * need it no more. What gets no answer is left to the collector.
 */
export interface PayloadPool {
  /** A buffer of exactly `size` bytes with arbitrary content. */
  take(size: number): Buffer;
  /** Gives back what `take` gave. */
  give(buffer: Buffer): void;
}

/**
 * @param bytes size of the pooled buffers; larger ones are made and forgotten.
 * @param most how many are kept.
 */
export function createPayloadPool(bytes: number, most: number): PayloadPool {
  const free: Buffer[] = [];
  return {
    take(size) {
      if (size > bytes) return Buffer.allocUnsafeSlow(size);
      const slab = free.pop() ?? Buffer.allocUnsafeSlow(bytes);
      return slab.subarray(0, size);
    },
    give(buffer) {
      if (buffer.buffer.byteLength === bytes && free.length < most) free.push(Buffer.from(buffer.buffer, 0, bytes));
    },
  };
}

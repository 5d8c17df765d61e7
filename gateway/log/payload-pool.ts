/**
 * Reused buffers for messages. Without reuse, half a gigabyte a second of short-lived memory outside the heap drives the collector
 * (bench/ingest-core.ts: it took a quarter of the core's CPU time).
 *
 * A buffer may come back only when JetStream has answered its message: that proves that the client library and the socket
 * need it no more. A buffer without an answer is left to the collector.
 */
import { wireHeadBytes, wireTailBytes } from './log-wire.js';

export interface PayloadPool {
  /** A buffer of exactly `size` bytes with arbitrary content, and the room around it that log-wire.ts needs. */
  take(size: number): Buffer;
  /** Gives back what `take` gave. */
  give(buffer: Buffer): void;
}

/**
 * @param bytes size of the pooled buffers; larger ones are made and forgotten.
 * @param max how many are kept.
 */
export function createPayloadPool(bytes: number, max: number): PayloadPool {
  const free: ArrayBufferLike[] = [];
  const around = wireHeadBytes + wireTailBytes;
  return {
    take(size) {
      const slab = size > bytes ? undefined : free.pop();
      // allocUnsafeSlow, because a slab of its own is what comes back, and memory need not be zeroed.
      return Buffer.from(slab ?? Buffer.allocUnsafeSlow(Math.max(size, bytes) + around).buffer, wireHeadBytes, size);
    },
    give({ buffer }) {
      if (buffer.byteLength === bytes + around && free.length < max) free.push(buffer);
    },
  };
}

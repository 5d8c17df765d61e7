/**
 * Memory for small pieces that are held while a batch waits for its ack.
 *
 * Node takes small buffers from a shared pool, and each keeps its whole slab alive: 8 KiB in Node 20 and 22, 64 KiB since Node 24
 * (FACT-47). Then a message of 100 bytes costs six hundred times what admission counts. So held pieces come from a separate pool, with
 * slabs of 8 KiB in every version. It costs as much as Node's: 0.1 to 0.3 µs for 100 to 3,000 bytes, where an own ArrayBuffer costs 0.4
 * to 0.8 µs.
 */
import { KiB } from '../../lib/units.js';

/** A held piece keeps at most so many bytes alive, or its own size where that is more. */
const slabBytes = 8 * KiB;
/** Larger pieces get memory of their own. */
const largestShared = slabBytes / 2;

let slab = Buffer.allocUnsafeSlow(slabBytes);
let used = 0;

/** Exactly `size` bytes of arbitrary content. */
export function heldBuffer(size: number): Buffer {
  if (size > largestShared) return Buffer.allocUnsafeSlow(size);
  if (used + size > slabBytes) {
    slab = Buffer.allocUnsafeSlow(slabBytes);
    used = 0;
  }
  const start = used;
  // The next one begins at a multiple of eight: copies are faster.
  used = (start + size + 7) & ~7;
  return slab.subarray(start, start + size);
}

export function heldCopy(bytes: Uint8Array): Buffer {
  const copy = heldBuffer(bytes.length);
  copy.set(bytes);
  return copy;
}

/** Held bytes may keep memory of at most so many times their size alive. */
const maxKept = 2;

/** The bytes, or a copy when they are a small part of what they would keep alive. */
export function detached(bytes: Buffer): Buffer {
  return bytes.length * maxKept < bytes.buffer.byteLength ? heldCopy(bytes) : bytes;
}

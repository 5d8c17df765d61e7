/**
 * Reused buffers for messages that came in parts. A new buffer per message is memory outside the heap that drives the collector, as in
 * payload-pool.ts. They are kept by size class, and their total is bounded.
 */
import { KiB } from '../../lib/units.js';
import { heldBuffer } from './held-bytes.js';

export interface MessageBuffers {
  /** Exactly `size` bytes of arbitrary content. */
  take(size: number): Buffer;
  /** Gives back what `take` gave; the caller must not read it any more. */
  give(buffer: Buffer): void;
}

/** Held memory may not be much more than the bytes that admission counts: fine steps, and small messages exactly. */
const classBytes = 4 * KiB;
const smallestKept = 8 * KiB;
/** Larger ones come in coarser steps, an eighth of their size at most: else few would fit the next message. */
const largestFine = 256 * KiB;
const coarseBytes = 32 * KiB;
/**
 * A message of 1 MiB and what belongs to it fits. Larger ones, of JSON, are made and forgotten. A message that grows while memory is short
 * leaves three times its size behind, and V8 starts a collection only when 64 MiB of such memory wait for one.
 */
const largestKept = 1152 * KiB;

const slabSize = (size: number): number => {
  const step = size > largestFine ? coarseBytes : classBytes;
  return Math.ceil(size / step) * step;
};

/** @param maxBytes that are kept while they are not in use */
export function createMessageBuffers(maxBytes: number): MessageBuffers {
  const free: Buffer[][] = Array.from({ length: largestKept / classBytes + 1 }, () => []);
  let kept = 0;
  return {
    take(size) {
      if (size < smallestKept) return heldBuffer(size);
      if (size > largestKept) return Buffer.allocUnsafeSlow(size);
      const bytes = slabSize(size);
      const slab = free[bytes / classBytes]?.pop();
      if (slab === undefined) return Buffer.allocUnsafeSlow(bytes).subarray(0, size);
      kept -= slab.length;
      return slab.subarray(0, size);
    },
    give({ length, buffer }) {
      const bytes = buffer.byteLength;
      if (length < smallestKept) return;
      if (length > largestKept || kept + bytes > maxBytes) {
        letGo(buffer as ArrayBuffer);
        return;
      }
      kept += bytes;
      free[bytes / classBytes]?.push(Buffer.from(buffer));
    },
  };
}

/**
 * Takes the memory from a buffer that is used no more, while something may still refer to it: a generator keeps its last message until
 * it gets the next one, and each open call through the RPC library is a row of generators. Node 20 has no `transfer`; a clone there
 * takes the memory with it, and the young generation soon collects that.
 */
function letGo(buffer: ArrayBuffer & { transfer?: (size: number) => ArrayBuffer }): void {
  if (buffer.transfer !== undefined) buffer.transfer(0);
  else structuredClone(buffer, { transfer: [buffer] });
}

/** Taken at once while the gateway has room: what most messages that come in parts fit into. */
const aheadBytes = 128 * KiB;
/** While memory is short, by how much a buffer grows: bytes are copied more often. */
const tightGrowth = 1.25;
/** Else a message begins with so many times its first part. */
const aheadFactor = 2;

/**
 * A message that comes in parts, in one buffer. The buffer grows with what has come: a size that is stated and does not come costs at
 * most `aheadBytes`, and while memory is short, little more than its bytes.
 */
export class GrowingMessage {
  #body: Buffer | undefined;
  #filled = 0;

  /**
   * @param max bytes of the message: its size, or its limit
   * @param isRoomy whether memory may be taken ahead
   */
  constructor(
    private readonly buffers: MessageBuffers,
    private readonly max: number,
    private readonly isRoomy: () => boolean,
  ) {}

  get filled(): number {
    return this.#filled;
  }

  /** Memory that it takes, bytes. */
  get held(): number {
    return this.#body?.length ?? 0;
  }

  /** Not beyond `max`. */
  append(chunk: Buffer, from: number, to: number): void {
    const needed = this.#filled + to - from;
    let body = this.#body;
    if (body === undefined || needed > body.length) {
      const larger = this.buffers.take(Math.min(this.max, this.#sizeFor(needed, body?.length)));
      if (body !== undefined) {
        body.copy(larger, 0, 0, this.#filled);
        this.buffers.give(body);
      }
      body = larger;
      this.#body = body;
    }
    chunk.copy(body, this.#filled, from, to);
    this.#filled = needed;
  }

  #sizeFor(needed: number, before: number | undefined): number {
    const roomy = this.isRoomy();
    if (before === undefined) return roomy ? Math.max(needed, aheadBytes) : needed * aheadFactor;
    return Math.max(needed, Math.ceil(before * (roomy ? 2 : tightGrowth)));
  }

  /** All that has come. The memory is the caller's, who gives it back by `release`. */
  take(): { readonly bytes: Buffer; readonly release: (() => void) | undefined } {
    const body = this.#body ?? Buffer.alloc(0);
    const { buffers } = this;
    const bytes = body.subarray(0, this.#filled);
    this.#body = undefined;
    this.#filled = 0;
    return { bytes, release: () => buffers.give(body) };
  }

  /** Gives the memory of a message that does not come whole back. */
  close(): void {
    if (this.#body !== undefined) this.buffers.give(this.#body);
    this.#body = undefined;
    this.#filled = 0;
  }
}

/**
 * Protobuf bytes while they are written. The memory is used again for the next request; who stops in between keeps it until `done`.
 *
 * What does not fit is not written, but counted: `overflowed` says so, and the caller grows the memory and writes the event again.
 */
import { KiB, MiB } from '../../units.js';

const min = 64 * KiB;
const maxKept = 2 * MiB;
let kept = new Uint8Array(min);

const eight = new DataView(new ArrayBuffer(8));
const eightBytes = new Uint8Array(eight.buffer);

export class WireOutput {
  bytes = kept;
  q = 0;

  get overflowed(): boolean {
    return this.q > this.bytes.length;
  }

  /** Room for at least `size` bytes; what is written before `keep` stays. */
  grow(size: number, keep: number): void {
    const larger = new Uint8Array(Math.max(size, this.bytes.length * 2));
    larger.set(this.bytes.subarray(0, keep));
    this.bytes = larger;
    if (larger.length <= maxKept) kept = larger;
  }

  /** Others may write before this goes on. */
  pause(): void {
    if (kept === this.bytes) kept = new Uint8Array(min);
  }

  /** A copy of what was written; the memory is for others. */
  done(): Buffer {
    const written = Buffer.from(this.bytes.subarray(0, this.q));
    if (this.bytes.length <= maxKept) kept = this.bytes;
    return written;
  }

  byte(value: number): void {
    this.bytes[this.q++] = value;
  }

  /** Of a number from 0 to 2^53. */
  varint(value: number): void {
    let rest = value;
    while (rest >= 0x80) {
      this.bytes[this.q++] = (rest % 128) | 0x80;
      rest = Math.floor(rest / 128);
    }
    this.bytes[this.q++] = rest;
  }

  /** Of 64 bits, in two's complement. */
  varint64(value: bigint): void {
    let rest = BigInt.asUintN(64, value);
    while (rest >= 0x80n) {
      this.bytes[this.q++] = Number(rest & 0x7fn) | 0x80;
      rest >>= 7n;
    }
    this.bytes[this.q++] = Number(rest);
  }

  fixed32(value: number): void {
    eight.setUint32(0, value >>> 0, true);
    this.put(4);
  }

  fixed64(value: bigint): void {
    eight.setBigUint64(0, BigInt.asUintN(64, value), true);
    this.put(8);
  }

  float(value: number): void {
    eight.setFloat32(0, value, true);
    this.put(4);
  }

  double(value: number): void {
    eight.setFloat64(0, value, true);
    this.put(8);
  }

  private put(count: number): void {
    for (let i = 0; i < count; i++) this.bytes[this.q++] = eightBytes[i] as number;
  }

  /** Begins what is preceded by its length: returns what `close` wants to have. */
  open(): number {
    return this.q++;
  }

  /** Writes the length of everything since `open`. */
  close(at: number): void {
    const size = this.q - at - 1;
    if (size < 0x80) {
      this.bytes[at] = size;
      return;
    }
    const more = size < 0x4000 ? 1 : size < 0x200000 ? 2 : size < 0x10000000 ? 3 : 4;
    if (this.q <= this.bytes.length) this.bytes.copyWithin(at + 1 + more, at + 1, this.q);
    this.q = at;
    this.varint(size);
    this.q += size;
  }
}

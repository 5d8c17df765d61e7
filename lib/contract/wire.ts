/**
 * The wire reading that the compiled scanner calls when its inlined fast paths do not apply: long varints, lengths,
 * unknown fields, map keys. Nothing here allocates or throws; a negative answer means "not Protobuf of this contract".
 *
 * What is accepted is what protobuf-es and ClickHouse's own reader take for the same value (tried with engine 26.7):
 * - A varint may be longer than needed (some encoders pad lengths), up to 9 bytes. The tenth byte must be 1: with a
 *   padded 10-byte varint (last byte 0), or one above 64 bits, ClickHouse fails the whole INSERT.
 * - A length has at most 5 bytes, a tag is never padded: no encoder emits more.
 * - Groups are refused, also in unknown fields: ClickHouse fails on them.
 */

/** Where `varint` leaves the low and high 32 bits; `length` leaves the length in the first. */
export const varintParts = new Int32Array(2);

/** Reads the varint at p. Its bits are then in `varintParts`. Returns the position after it, -1 when it is bad. */
export function varint(bytes: Uint8Array, p: number, end: number): number {
  let low = 0;
  for (let shift = 0; shift < 28; shift += 7) {
    if (p >= end) return -1;
    const byte = bytes[p++]!;
    low |= (byte & 0x7f) << shift;
    if (byte < 0x80) {
      varintParts[0] = low;
      varintParts[1] = 0;
      return p;
    }
  }
  if (p >= end) return -1;
  let byte = bytes[p++]!;
  low |= byte << 28;
  let high = (byte & 0x7f) >>> 4;
  for (let shift = 3; byte >= 0x80 && shift < 31; shift += 7) {
    if (p >= end) return -1;
    byte = bytes[p++]!;
    high |= (byte & 0x7f) << shift;
  }
  if (byte >= 0x80) {
    if (p >= end || bytes[p++] !== 1) return -1;
    high |= 0x80000000;
  }
  varintParts[0] = low;
  varintParts[1] = high;
  return p;
}

/** Reads the length at p, which must fit before `end`. Returns the position after it, -1 when it is bad. */
export function length(bytes: Uint8Array, p: number, end: number): number {
  const start = p;
  p = varint(bytes, p, end);
  if (p < 0 || p - start > 5 || varintParts[1] !== 0) return -1;
  const size = varintParts[0]!;
  return size < 0 || size > end - p ? -1 : p;
}

/** Reads the tag at p, known to have more than one byte; it is then in `varintParts[0]` (unsigned: `>>> 0`). */
export function longTag(bytes: Uint8Array, p: number, end: number): number {
  const start = p;
  p = varint(bytes, p, end);
  // Its last byte 0 means that it is padded.
  return p < 0 || p - start > 5 || varintParts[1] !== 0 || bytes[p - 1] === 0 ? -1 : p;
}

/** Skips the value of an unknown field. Returns the position after it, -1 when it is bad. */
export function skip(bytes: Uint8Array, p: number, end: number, tag: number): number {
  if (tag >>> 3 === 0) return -1;
  switch (tag & 7) {
    case 0:
      return varint(bytes, p, end);
    case 1:
      return p + 8 <= end ? p + 8 : -1;
    case 2:
      p = length(bytes, p, end);
      return p < 0 ? -1 : p + varintParts[0]!;
    case 5:
      return p + 4 <= end ? p + 4 : -1;
    default:
      return -1;
  }
}

// Different in each process, so that keys that all collide cannot be prepared; the hash only saves comparisons.
const multiplier = (Math.floor(Math.random() * 2 ** 31) << 1) | 1;

/**
 * Notes the map key at p … p+size-1 as the `count`-th of its map in `slots` (three numbers a key: hash, start, size).
 * False when an earlier key of this map has the same bytes.
 */
export function newKey(bytes: Uint8Array, slots: Int32Array, count: number, p: number, size: number): boolean {
  let hash = size;
  for (let i = p, q = p + size; i < q; i++) hash = Math.imul(hash ^ bytes[i]!, multiplier);
  // Odd multipliers leave low bits weak, yet here the whole word is compared.
  const top = count * 3;
  for (let slot = 0; slot < top; slot += 3) {
    if (slots[slot] === hash && slots[slot + 2] === size && same(bytes, slots[slot + 1]!, p, size)) return false;
  }
  slots[top] = hash;
  slots[top + 1] = p;
  slots[top + 2] = size;
  return true;
}

function same(bytes: Uint8Array, a: number, b: number, size: number): boolean {
  for (let i = 0; i < size; i++) {
    if (bytes[a + i] !== bytes[b + i]) return false;
  }
  return true;
}

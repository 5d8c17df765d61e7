import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { length, longTag, newKey, skip, varint, varintParts } from './wire.js';

const bytesOf = (...bytes: number[]) => Uint8Array.from(bytes);

function encode(value: bigint, size: number): Uint8Array {
  const out: number[] = [];
  let rest = value;
  for (let i = 0; i < size; i++) {
    out.push(Number(rest & 0x7fn) | (i < size - 1 ? 0x80 : 0));
    rest >>= 7n;
  }
  assert.is(rest, 0n);
  return Uint8Array.from(out);
}

function decoded(): bigint {
  return (BigInt(varintParts[1]! >>> 0) << 32n) | BigInt(varintParts[0]! >>> 0);
}

test('a varint is read whole in every length, padded ones of up to 9 bytes too', () => {
  for (let bits = 0n; bits <= 64n; bits++) {
    for (const value of [(1n << bits) - 1n, (1n << bits) % (1n << 64n), 0x5555_5555_5555_5555n % (1n << bits)]) {
      const min = Math.max(1, Math.ceil(value.toString(2).length / 7));
      for (let size = min; size <= Math.max(9, min); size++) {
        const bytes = encode(value, size);
        assert.is(varint(bytes, 0, bytes.length), size);
        assert.is(decoded(), value, `${value} in ${size} bytes`);
        assert.is(varint(bytes, 0, size - 1), -1, 'cut short by its bound');
      }
    }
  }
});

test('the tenth byte of a varint is 1: ClickHouse fails on a padding 0 and on more than 64 bits', () => {
  const ff = new Array<number>(9).fill(0xff);
  assert.is(varint(bytesOf(...ff, 1), 0, 10), 10);
  assert.is(decoded(), 2n ** 64n - 1n);
  for (const last of [0, 2, 3, 0x7f, 0x80, 0x81, 0xff]) {
    assert.is(varint(bytesOf(...ff, last, 0), 0, 11), -1, `last byte ${last}`);
  }
});

test('a length fits into what is left, in at most 5 bytes', () => {
  assert.is(length(bytesOf(3, 0, 0, 0), 0, 4), 1);
  assert.is(length(bytesOf(4, 0, 0, 0), 0, 4), -1);
  assert.is(length(bytesOf(0x82, 0x80, 0x80, 0x80, 0, 9, 9), 0, 7), 5);
  assert.is(varintParts[0], 2);
  assert.is(length(bytesOf(0x82, 0x80, 0x80, 0x80, 0x80, 0, 9, 9), 0, 8), -1, '6 bytes');
  assert.is(length(bytesOf(0xff, 0xff, 0xff, 0xff, 0x07), 0, 5), -1, '2^31 - 1');
  assert.is(length(bytesOf(0xff, 0xff, 0xff, 0xff, 0x0f), 0, 5), -1, '2^32 - 1');
});

test('a tag is not padded and has 32 bits', () => {
  assert.is(longTag(bytesOf(0x80, 0x01), 0, 2), 2);
  assert.is(longTag(bytesOf(0x8a, 0x00), 0, 2), -1);
  assert.is(longTag(bytesOf(0xff, 0xff, 0xff, 0xff, 0x0f), 0, 5), 5);
  assert.is(varintParts[0]! >>> 0, 2 ** 32 - 1);
  assert.is(longTag(bytesOf(0x80, 0x80, 0x80, 0x80, 0x10), 0, 5), -1);
});

test('unknown fields are skipped by wire type; groups, wire types 6 and 7 and field number 0 are refused', () => {
  const bytes = new Uint8Array(10);
  bytes[0] = 4;
  assert.is(skip(bytes, 0, 10, 0x80 | 0), 1);
  assert.is(skip(bytes, 0, 10, 0x80 | 1), 8);
  assert.is(skip(bytes, 0, 7, 0x80 | 1), -1);
  assert.is(skip(bytes, 0, 10, 0x80 | 2), 5);
  assert.is(skip(bytes, 0, 4, 0x80 | 2), -1);
  assert.is(skip(bytes, 0, 10, 0x80 | 5), 4);
  assert.is(skip(bytes, 0, 3, 0x80 | 5), -1);
  for (const wireType of [3, 4, 6, 7]) assert.is(skip(bytes, 0, 10, 0x80 | wireType), -1);
  assert.is(skip(bytes, 0, 10, 0), -1);
});

test('a map key is new unless its very bytes came before', () => {
  const bytes = new TextEncoder().encode('planplanplotpla');
  const slots = new Int32Array(12);
  assert.ok(newKey(bytes, slots, 0, 0, 4));
  assert.not.ok(newKey(bytes, slots, 1, 4, 4));
  assert.ok(newKey(bytes, slots, 1, 8, 4));
  assert.ok(newKey(bytes, slots, 2, 12, 3));
  assert.not.ok(newKey(bytes, slots, 3, 0, 3));
});

test.run();

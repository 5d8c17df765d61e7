/** The scanner for contracts other than today's: every kind of field that the .proto may come to hold. */
import { create, type DescMessage, fromJson, type JsonValue, toBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { RejectionCode } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { contractOf, type FieldSpec, field } from '../testing/contracts.js';
import { encodeTree, type WireField } from '../testing/wire-tree.js';
import { compileScanner } from './compile.js';
import { explain } from './faults.js';
import { rulesOf } from './rules.js';

interface Answer {
  /** 0 valid, 1 valid with unknown fields. */
  (bytes: Uint8Array): number | string;
  readonly desc: DescMessage;
}

/** Scans a message; a refusal reads "path CODE". */
function scannerOf(...fields: FieldSpec[]): Answer {
  const desc = contractOf(...fields);
  const { scan, fault } = compileScanner(rulesOf(desc));
  const answer = (bytes: Uint8Array) => {
    const verdict = scan(bytes, new DataView(bytes.buffer, bytes.byteOffset, bytes.length), 0, bytes.length);
    if (verdict >= 0) return verdict;
    const { field: path, code } = explain(fault, bytes, 0, 0);
    return `${path} ${RejectionCode[code]}`;
  };
  return Object.assign(answer, { desc });
}

function encoded(desc: DescMessage, json: JsonValue): Uint8Array {
  return toBinary(desc, fromJson(desc, json));
}

const varint = (number: number, value: bigint): WireField => ({ number, wireType: 0, value });
const part = (number: number, wireType: number, ...bytes: number[]): WireField => ({
  number,
  wireType,
  value: Uint8Array.from(bytes),
});

/** A scanner of a field of every kind of number, with ranges. */
function numberScanner() {
  const bounds = { rules: { min: -5, max: 1000 } };
  return scannerOf(
    field('int32', 1, 'TYPE_INT32', bounds),
    field('uint32', 2, 'TYPE_UINT32', { rules: { max: 1000 } }),
    field('sint32', 3, 'TYPE_SINT32', bounds),
    field('int64', 4, 'TYPE_INT64', bounds),
    field('uint64', 5, 'TYPE_UINT64', { rules: { max: 1000 } }),
    field('sint64', 6, 'TYPE_SINT64', bounds),
    field('fixed32', 7, 'TYPE_FIXED32', { rules: { max: 1000 } }),
    field('sfixed32', 8, 'TYPE_SFIXED32', bounds),
    field('fixed64', 9, 'TYPE_FIXED64', { rules: { max: 1000 } }),
    field('sfixed64', 10, 'TYPE_SFIXED64', bounds),
    field('float', 11, 'TYPE_FLOAT', bounds),
    field('double', 12, 'TYPE_DOUBLE', bounds),
  );
}

test('every kind of number is scanned in its own width and range', () => {
  const scan = numberScanner();
  for (const { name } of scan.desc.fields) {
    const signed = !/^(uint|fixed)/.test(name);
    for (const value of [0, 1, 127, 128, 1000, ...(signed ? [-1, -5] : [])]) {
      assert.is(scan(encoded(scan.desc, { [name]: value })), 0, `${name} ${value}`);
    }
    const least = /32/.test(name) ? -(2 ** 31) : -(2 ** 62);
    const most = /32/.test(name) ? 2 ** 31 - 1 : 2 ** 62;
    for (const value of [1001, most, ...(signed ? [-6, least] : [])]) {
      const json = /64/.test(name) ? `${BigInt(value)}` : value;
      assert.is(scan(encoded(scan.desc, { [name]: json })), `${name} OUT_OF_RANGE`, `${name} ${value}`);
    }
  }
  assert.is(scan(encoded(scan.desc, { float: 'NaN' })), 'float NOT_FINITE');
  assert.is(scan(encoded(scan.desc, { float: '-Infinity' })), 'float NOT_FINITE');
  assert.is(scan(encoded(scan.desc, { double: 'Infinity' })), 'double NOT_FINITE');
});

test('a number of fixed width that is cut short is refused', () => {
  const scan = numberScanner();
  for (const wireType of [1, 5]) {
    for (const known of scan.desc.fields.filter((candidate) => candidate.number >= 7)) {
      const size = known.number === 7 || known.number === 8 || known.number === 11 ? 4 : 8;
      if ((size === 8) !== (wireType === 1)) continue;
      const cut = new Array<number>(size - 1).fill(0);
      assert.is(scan(encodeTree([part(known.number, wireType, ...cut)])), `${known.name} WIRE`);
    }
  }
});

test('numbers without a range take all of their width and no more', () => {
  const scan = scannerOf(
    field('int32', 1, 'TYPE_INT32'),
    field('uint32', 2, 'TYPE_UINT32'),
    field('uint64', 3, 'TYPE_UINT64'),
    field('bool', 4, 'TYPE_BOOL'),
  );
  assert.is(scan(encoded(scan.desc, { int32: -(2 ** 31), uint32: 2 ** 32 - 1, uint64: `${2n ** 64n - 1n}` })), 0);
  assert.is(scan(encodeTree([varint(1, 2n ** 31n)])), 'int32 OUT_OF_RANGE');
  assert.is(scan(encodeTree([varint(1, 2n ** 64n - 2n ** 31n - 1n)])), 'int32 OUT_OF_RANGE');
  assert.is(scan(encodeTree([varint(2, 2n ** 32n)])), 'uint32 OUT_OF_RANGE');
  for (const good of [0n, 1n]) assert.is(scan(encodeTree([varint(4, good)])), 0);
  assert.is(scan(encodeTree([{ ...varint(4, 1n), pad: 3 }])), 0);
  for (const bad of [2n, 127n, 128n, 2n ** 32n, 2n ** 63n]) {
    assert.is(scan(encodeTree([varint(4, bad)])), 'bool OUT_OF_RANGE');
  }
});

test('an optional number may be required: zero is then a value', () => {
  const scan = scannerOf(field('n', 1, 'TYPE_INT32', { optional: true, rules: { required: true } }));
  assert.is(scan(encodeTree([])), 'n REQUIRED');
  assert.is(scan(encodeTree([varint(1, 0n)])), 0);
});

test('an enum with gaps knows its own values only', () => {
  const scan = scannerOf(field('e', 1, '.test.Sparse'));
  for (const value of ['ZERO', 'FIVE', 'MINUS']) assert.is(scan(encoded(scan.desc, { e: value })), 0);
  for (const value of [1n, 4n, 6n, 2n ** 64n - 1n]) assert.is(scan(encodeTree([varint(1, value)])), 'e UNKNOWN_ENUM');
});

test('repeated strings and messages are counted, and a faulty one is named by its place', () => {
  const scan = scannerOf(
    field('tags', 1, 'TYPE_STRING', { repeated: true, rules: { maxItems: 3, maxBytes: 4 } }),
    field('items', 2, '.test.Inner', { repeated: true, rules: { maxItems: 2 } }),
  );
  assert.is(scan(encoded(scan.desc, { tags: ['a', 'a', ''], items: [{}, { name: 'x' }] })), 0);
  assert.is(scan(encoded(scan.desc, { tags: ['a', 'b', 'c', 'd'] })), 'tags[3] TOO_MANY');
  assert.is(scan(encoded(scan.desc, { tags: ['a', 'long!'] })), 'tags[1] TOO_LONG');
  assert.is(scan(encoded(scan.desc, { items: [{}, { name: 'too long!' }] })), 'items[1].name TOO_LONG');
  assert.is(scan(encoded(scan.desc, { items: [{}, {}, {}] })), 'items[2] TOO_MANY');
});

test('maps may hold messages and enums', () => {
  const scan = scannerOf(
    field('inner', 1, '.test.Inner', { map: true, rules: { maxItems: 3 } }),
    field('enums', 2, '.test.Sparse', { map: true, rules: { maxItems: 3 } }),
  );
  assert.is(scan(encoded(scan.desc, { inner: { a: {}, b: { name: 'x' } }, enums: { a: 'FIVE' } })), 0);
  assert.is(scan(encoded(scan.desc, { inner: { a: {}, b: { name: 'too long!' } } })), 'inner[b].name TOO_LONG');
  assert.is(scan(encoded(scan.desc, { enums: { a: 'FIVE', b: 4 } })), 'enums[b] UNKNOWN_ENUM');
});

test('fields above 15, and more than 31 of them, are scanned like the others', () => {
  const fields = Array.from({ length: 70 }, (_, i) =>
    field(`f${i}`, 1 + i * 40, 'TYPE_STRING', { rules: { maxBytes: 2 } }),
  );
  const last = { ...fields[69]!, extras: { rules: { maxBytes: 2, required: true } } };
  const scan = scannerOf(...fields.slice(0, 69), last);
  const all = Object.fromEntries(fields.map(({ name }) => [name, 'x']));
  assert.is(scan(encoded(scan.desc, all)), 0);
  assert.is(scan(encodeTree([part(last.number, 2, 0x78)])), 0);
  assert.is(scan(encodeTree([])), 'f69 REQUIRED');
  for (const { name, number } of fields) {
    assert.is(scan(encodeTree([part(number, 2, 0x78), part(number, 2, 0x78)])), `${name} REPEATED`);
    assert.is(scan(encodeTree([part(number, 5, 0, 0, 0, 0)])), `${name} WIRE`);
    assert.is(scan(encoded(scan.desc, { ...all, [name]: 'xyz' })), `${name} TOO_LONG`);
  }
  assert.is(scan(encodeTree([part(last.number, 2, 0x78), part(2, 2, 0x78)])), 1);
});

test('bytes are bounded and not held to UTF-8', () => {
  const scan = scannerOf(field('b', 1, 'TYPE_BYTES', { rules: { minBytes: 2, maxBytes: 3 } }));
  assert.is(scan(encodeTree([part(1, 2, 0xff, 0xfe)])), 0);
  assert.is(scan(encodeTree([part(1, 2)])), 0);
  assert.is(scan(encodeTree([part(1, 2, 1)])), 'b TOO_SHORT');
  assert.is(scan(encodeTree([part(1, 2, 1, 2, 3, 4)])), 'b TOO_LONG');
});

test('a field in the .proto out of its number order is scanned all the same', () => {
  const scan = scannerOf(field('late', 9, 'TYPE_STRING'), field('early', 2, 'TYPE_STRING'));
  assert.is(scan(encoded(scan.desc, { late: 'a', early: 'b' })), 0);
  assert.is(scan(encodeTree([part(9, 2), part(2, 2), part(9, 2)])), 'late REPEATED');
});

test('a message without a field is valid when nothing is required', () => {
  const scan = scannerOf(field('a', 1, 'TYPE_STRING'));
  assert.is(scan(toBinary(scan.desc, create(scan.desc))), 0);
});

test('what the scanner does not support fails at start', () => {
  const compile = (...fields: FieldSpec[]) => compileScanner(rulesOf(contractOf(...fields)));
  const numbers = field('n', 1, 'TYPE_INT32', { repeated: true, rules: { maxItems: 3 } });
  assert.throws(() => compile(numbers), /test\.Root\.n: repeated numbers and enums are not supported/);
  assert.throws(() => compile(field('t', 1, 'TYPE_STRING', { repeated: true })), /test\.Root\.t: give it max_items/);
  assert.throws(() => compile(field('m', 1, 'TYPE_STRING', { map: true })), /test\.Root\.m: give it max_items/);
  const huge = field('m', 1, 'TYPE_STRING', { map: true, rules: { maxItems: 5000 } });
  assert.throws(() => compile(huge), /max_items is above 1024/);
});

test.run();

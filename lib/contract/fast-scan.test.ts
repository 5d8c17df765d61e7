/**
 * The fast scan: it passes over what encoders write, and over nothing that the compiled scanner would not take as it is.
 * (scanner-fuzz.test.ts holds both together to the oracle, through scanBatch.)
 */
import { toBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { EventSchema } from '#gen/sluice/event/v1/event_pb.js';
import { createRandom, encodeBatch, integer, makeBatch, pick, type Random } from '../testing/batches.js';
import { contractOf, type FieldSpec, field } from '../testing/contracts.js';
import { makeRichEvent } from '../testing/rich-events.js';
import { encodeTree, type WireField } from '../testing/wire-tree.js';
import { compileScanner } from './compile.js';
import { createFastScan, type FastScan } from './fast-scan.js';
import { eventRules, type MessageNode, rulesOf } from './rules.js';

function fastScan(node: MessageNode): FastScan {
  const fast = createFastScan(node);
  if (fast === undefined) throw new Error('this Node has no WebAssembly with 128-bit instructions');
  return fast;
}

/** A batch of one event. */
const batchOf = (event: Uint8Array): Uint8Array => encodeTree([{ number: 1, wireType: 2, value: event }]);

/** Both scanners of one message: what the compiled one answers, and whether the fast one passes over it. */
function scannersOf(node: MessageNode) {
  const { scan } = compileScanner(node);
  const fast = fastScan(node);
  return (event: Uint8Array): { compiled: number; passes: boolean } => {
    const batch = batchOf(event);
    assert.ok(fast.load(batch));
    const stopped = fast.run(0, 10);
    assert.is(stopped, fast.passed === 1 ? batch.length : 0);
    const view = new DataView(event.buffer, event.byteOffset, event.length);
    return { compiled: scan(event, view, 0, event.length), passes: fast.passed === 1 };
  };
}

test('usual batches are passed over at once, also after the memory has grown', () => {
  const fast = fastScan(eventRules);
  for (const count of [1, 500, 20_000, 3]) {
    const batch = encodeBatch(makeBatch(createRandom(count), count));
    assert.ok(fast.load(batch));
    assert.is(fast.run(0, count), batch.length);
    assert.is(fast.passed, count);
  }
});

test('it stops at an event that it does not know to be valid, and goes on behind it', () => {
  const fast = fastScan(eventRules);
  const good = encodeBatch(makeBatch(createRandom(1), 2));
  const bad = batchOf(Uint8Array.of(0x10, 0x00));
  const batch = Uint8Array.from(Buffer.concat([good, bad, good]));
  fast.load(batch);
  assert.is(fast.run(0, 10), good.length);
  assert.is(fast.passed, 2);
  assert.is(fast.run(good.length + bad.length, 10), batch.length);
  assert.is(fast.passed, 2);
  // No more than it may.
  assert.ok(fast.run(0, 1) < good.length);
  assert.is(fast.passed, 1);
  // A length that runs past the end of the batch.
  fast.load(good.subarray(0, good.length - 1));
  fast.run(0, 10);
  assert.is(fast.passed, 1);
  assert.not.ok(fast.load(new Uint8Array(17 * 1024 ** 2)), 'too large for its memory');
});

test('events with any of the fields, texts of all scripts and values at their limits are passed over', () => {
  const both = scannersOf(eventRules);
  const random = createRandom(3);
  for (let i = 0; i < 4_000; i++) {
    const event = toBinary(EventSchema, makeRichEvent(random));
    // Two bytes of length, and room for that of a map's entry: what is larger, others look at.
    if (event.length > 16_383) continue;
    assert.equal(both(event), { compiled: 0, passes: true }, `event ${i}`);
  }
});

const text = (value: string): Uint8Array => Buffer.from(value);
const varint = (number: number, value: bigint, more: Partial<WireField> = {}): WireField => ({
  number,
  wireType: 0,
  value,
  ...more,
});
const part = (number: number, wireType: number, value: Uint8Array | WireField[]): WireField => ({
  number,
  wireType,
  value,
});

test('fields out of order, twice, unknown or padded, and missing ones, are left to the compiled scanner', () => {
  const node = rulesOf(
    contractOf(
      field('id', 1, 'TYPE_STRING', { rules: { required: true, maxBytes: 64 } }),
      field('count', 2, 'TYPE_UINT32', {}),
      field('coupon', 16, 'TYPE_STRING', { rules: { maxBytes: 200 } }),
    ),
  );
  const both = scannersOf(node);
  const id = part(1, 2, text('a'));
  const coupon = part(16, 2, text('c'.repeat(150)));
  assert.equal(both(encodeTree([id, varint(2, 7n), coupon])), { compiled: 0, passes: true });
  assert.equal(both(encodeTree([id, coupon])), { compiled: 0, passes: true });
  assert.equal(both(encodeTree([varint(2, 7n), id])), { compiled: 0, passes: false }, 'out of order');
  assert.equal(both(encodeTree([id, id])), { compiled: -1, passes: false }, 'twice');
  assert.equal(both(encodeTree([id, coupon, coupon])), { compiled: -1, passes: false }, 'twice, of a long tag');
  assert.equal(both(encodeTree([id, varint(3, 7n)])), { compiled: 1, passes: false }, 'unknown');
  assert.equal(both(encodeTree([varint(2, 7n)])), { compiled: -1, passes: false }, 'missing');
  assert.equal(both(new Uint8Array()), { compiled: -1, passes: false }, 'all missing');
  assert.equal(both(encodeTree([{ ...id, tagPad: 1 }])), { compiled: -1, passes: false }, 'a padded tag');
});

/** Every kind of field, with rules and without. */
const kinds: FieldSpec[] = [
  field('a', 1, 'TYPE_INT32', {}),
  field('b', 2, 'TYPE_UINT32', { rules: { max: 999 } }),
  field('c', 3, 'TYPE_SINT32', { rules: { min: -1080, max: 1080 } }),
  field('d', 4, 'TYPE_INT64', { rules: { min: 5 } }),
  field('e', 5, 'TYPE_UINT64', {}),
  field('f', 6, 'TYPE_SINT64', { rules: { min: -1e15, max: 1e15 } }),
  field('g', 7, 'TYPE_BOOL', {}),
  field('h', 8, '.test.Sparse', {}),
  field('i', 9, 'TYPE_DOUBLE', { rules: { min: -1.5, max: 1e300 } }),
  field('j', 10, 'TYPE_FLOAT', { rules: { max: 1e6 } }),
  field('k', 11, 'TYPE_FIXED64', {}),
  field('l', 12, 'TYPE_SFIXED32', { rules: { max: 5 } }),
  field('m', 13, 'TYPE_STRING', { rules: { minBytes: 2, maxBytes: 40, charset: 2 } }),
  field('n', 14, 'TYPE_BYTES', { rules: { maxBytes: 130 } }),
  field('o', 15, '.test.Inner', {}),
  field('p', 16, '.google.protobuf.Timestamp', { rules: { min: 0 } }),
  field('q', 17, 'TYPE_STRING', { map: true, rules: { maxItems: 3, maxKeyBytes: 40, maxValueBytes: 20 } }),
  field('r', 18, 'TYPE_SINT64', { map: true, rules: { maxItems: 4, max: 9 } }),
  field('s', 19, 'TYPE_STRING', { repeated: true, rules: { maxItems: 2 } }),
  field('t', 20, 'TYPE_STRING', { rules: { maxBytes: 300, charset: 1 } }),
  field('u', 21, 'TYPE_STRING', { rules: { maxBytes: 5, charset: 3 } }),
];

const integers = [0n, 1n, 2n, 4n, 5n, 6n, 18n, 127n, 128n, 999n, 1000n, 2160n, 2161n, 0x7fffffffn, 0x80000000n];
const wider = [0xffffffffn, 1n << 32n, 2_000_000_000_000_000n, 2_000_000_000_000_001n, (1n << 56n) - 1n, 1n << 56n];
const widest = [(1n << 63n) - 1n, 1n << 63n, (1n << 64n) - 1n, (1n << 64n) - 5n];
const words = ['', 'a', 'AZ', 'ab_c', 'a b', 'x'.repeat(16), 'x'.repeat(17), 'é', 'aé'.repeat(9), '\u0000', '\u007f'];
const longer = ['k'.repeat(33), `${'k'.repeat(32)}é`, 'ABCDE', '你好', '😀', `${'y'.repeat(20)}\n`, 'x'.repeat(129)];
const broken = [[0xc0, 0x80], [0xed, 0xa0, 0x80], [0xff], [0xf4, 0x90, 0x80, 0x80], [0xe4, 0xbd], [0xe0, 0x9f, 0x80]];
const doubles = [0, -1.5, -1.6, 1e300, 1.1e300, Number.NaN, Number.POSITIVE_INFINITY, 1e6, 1e7, -0];

function makeText(random: Random): Uint8Array {
  if (random() < 0.15) return Uint8Array.from([...text('x'.repeat(integer(random, 0, 20))), ...pick(random, broken)]);
  return text(pick(random, [...words, ...longer]));
}

function makeValue(random: Random, spec: FieldSpec, number: number): WireField {
  const pad = random() < 0.1 ? { pad: integer(random, 1, 3) } : {};
  switch (spec.type) {
    case 'TYPE_DOUBLE':
      return part(number, 1, new Uint8Array(new Float64Array([pick(random, doubles)]).buffer));
    case 'TYPE_FLOAT':
      return part(number, 5, new Uint8Array(new Float32Array([pick(random, doubles)]).buffer));
    case 'TYPE_FIXED64':
      return part(
        number,
        1,
        Uint8Array.from({ length: 8 }, () => integer(random, 0, 255)),
      );
    case 'TYPE_SFIXED32':
      return part(number, 5, Uint8Array.of(integer(random, 0, 9), 0, 0, pick(random, [0, 255])));
    case 'TYPE_STRING':
    case 'TYPE_BYTES':
      return { ...part(number, 2, makeText(random)), ...(random() < 0.05 ? { sizePad: 1 } : {}) };
    case '.test.Inner':
      return part(number, 2, random() < 0.3 ? [] : [part(1, 2, makeText(random))]);
    case '.google.protobuf.Timestamp':
      return part(number, 2, [varint(1, pick(random, integers)), varint(2, pick(random, integers))]);
    default:
      return varint(number, pick(random, [...integers, ...wider, ...widest]), pad);
  }
}

/** Entries of a map, most of them with the key first. */
function makeEntries(random: Random, spec: FieldSpec): WireField[] {
  return Array.from({ length: integer(random, 0, 4) }, () => {
    const value = makeValue(random, spec, 2);
    const key = part(1, 2, makeText(random));
    return part(spec.number, 2, random() < 0.9 ? [key, value] : pick(random, [[value, key], [key], [value]]));
  });
}

/** A tenth of the fields, and in some events a byte changed or the end cut off. */
function makeEventOf(random: Random, kinds: readonly FieldSpec[]): Uint8Array {
  const fields = kinds
    .filter(() => random() >= 0.9)
    .flatMap((spec) => (spec.extras.map === true ? makeEntries(random, spec) : [makeValue(random, spec, spec.number)]));
  const event = encodeTree(fields);
  if (event.length === 0 || random() >= 0.2) return event;
  const cut = event.slice(0, event.length - (random() < 0.5 ? 1 : 0));
  if (cut.length > 0) cut[integer(random, 0, cut.length - 1)]! ^= 1 << integer(random, 0, 7);
  return cut;
}

test('for every kind of field: whatever it passes over, the compiled scanner takes', () => {
  const both = scannersOf(rulesOf(contractOf(...kinds)));
  const random = createRandom(5);
  let passed = 0;
  let refused = 0;
  for (let i = 0; i < 60_000; i++) {
    const event = makeEventOf(random, kinds);
    const { compiled, passes } = both(event);
    if (passes) assert.is(compiled, 0, `event ${i}: ${Buffer.from(event).toString('hex')}`);
    if (passes) passed++;
    else if (compiled < 0) refused++;
  }
  assert.ok(passed > 5_000 && refused > 5_000, `too one-sided to tell: ${passed} passed, ${refused} refused`);
});

test.run();

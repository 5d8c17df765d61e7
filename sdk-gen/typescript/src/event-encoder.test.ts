import { create, type DescField, type DescMessage, fromBinary, ScalarType, toBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { EventSchema, EventType } from '../gen/sluice/event/v1/event_pb.js';
import { type EventInit, encodeEvent } from './event-encoder.js';
import { WireWriter } from './wire-writer.js';

const noId = (): string => 'made-id';

function encode(init: EventInit, size = 1 << 20): Uint8Array {
  const writer = new WireWriter(size);
  encodeEvent(writer, init, noId, 1_700_000_000_123);
  assert.not(writer.overflowed);
  return writer.buf.subarray(0, writer.pos);
}

/** mulberry32 */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const texts = [
  '',
  'a',
  'paid_search',
  'é',
  '你好',
  '😀',
  'x'.repeat(47),
  'y'.repeat(48),
  'ü'.repeat(70),
  'z'.repeat(20_000),
];

/** A random value for any field that the contract may grow, from its descriptor. */
function randomValue(field: DescField, random: () => number): unknown {
  const pick = <T>(items: readonly T[]): T => items[Math.floor(random() * items.length)] as T;
  const single = (): unknown => {
    if (field.message !== undefined) return randomInit(field.message, random);
    if (field.enum !== undefined) return pick(field.enum.values).number;
    switch (field.scalar) {
      case ScalarType.STRING:
        return pick(texts);
      case ScalarType.BOOL:
        return random() < 0.5;
      case ScalarType.BYTES:
        return new Uint8Array(Math.floor(random() * 200));
      case ScalarType.DOUBLE:
      case ScalarType.FLOAT:
        return pick([0, -0, 1.5, -2.25, 1e10]);
      case ScalarType.INT32:
      case ScalarType.SINT32:
      case ScalarType.SFIXED32:
        return pick([0, 1, -1, 127, 128, -(2 ** 31), 2 ** 31 - 1]);
      case ScalarType.UINT32:
      case ScalarType.FIXED32:
        return pick([0, 1, 127, 128, 300, 2 ** 32 - 1]);
      case ScalarType.UINT64:
      case ScalarType.FIXED64:
        return pick([0n, 1n, 2n ** 52n, 2n ** 64n - 1n]);
      default:
        return pick([0n, 1n, -1n, 300n, 2n ** 52n - 1n, 2n ** 52n, -(2n ** 52n), 2n ** 63n - 1n, -(2n ** 63n)]);
    }
  };
  if (field.fieldKind === 'list') return Array.from({ length: Math.floor(random() * 4) }, single);
  if (field.fieldKind === 'map') {
    return Object.fromEntries(
      Array.from({ length: Math.floor(random() * 4) }, (_, i) => [
        field.mapKey === ScalarType.STRING ? `${pick(texts)}${i}` : i,
        single(),
      ]),
    );
  }
  return single();
}

function randomInit(message: DescMessage, random: () => number): Record<string, unknown> {
  const init: Record<string, unknown> = {};
  for (const field of message.fields) {
    if (random() < 0.5) init[field.localName] = randomValue(field, random);
  }
  return init;
}

test('writes the very bytes that toBinary writes, for thousands of random events', () => {
  const random = seeded(7);
  let bytes = 0;
  for (let i = 0; i < 3_000; i++) {
    const init = {
      ...randomInit(EventSchema, random),
      eventId: `e-${i}`,
      occurredAt: { seconds: BigInt(i), nanos: i % 3 },
    } as EventInit;
    const wanted = toBinary(EventSchema, create(EventSchema, init as never));
    const got = encode(init);
    assert.ok(Buffer.compare(got, wanted) === 0, `event ${i} differs`);
    bytes += got.length;
  }
  assert.ok(bytes > 1_000_000);
});

test('encodes messages as well as inits, and keeps their unknown fields', () => {
  const known = toBinary(
    EventSchema,
    create(EventSchema, { eventId: 'a', type: EventType.CLICK, occurredAt: { nanos: 1 } }),
  );
  // Field 900, varint 5.
  const bytes = Buffer.concat([known, Buffer.from([0xa0, 0x38, 0x05])]);
  assert.equal(Buffer.from(encode(fromBinary(EventSchema, bytes))), bytes);
});

test('fills in a missing id and time, and takes a Date', () => {
  const filled = fromBinary(EventSchema, encode({ type: EventType.PAGE }));
  assert.is(filled.eventId, 'made-id');
  assert.is(filled.occurredAt?.seconds, 1_700_000_000n);
  assert.is(filled.occurredAt?.nanos, 123_000_000);
  const dated = fromBinary(
    EventSchema,
    encode({ type: EventType.PAGE, occurredAt: new Date('2015-05-17T10:05:03.250Z') }),
  );
  assert.is(dated.occurredAt?.seconds, 1_431_857_103n);
  assert.is(dated.occurredAt?.nanos, 250_000_000);
});

test('names the field whose value has the wrong type', () => {
  const bad = (init: unknown, message: RegExp): void => {
    assert.throws(() => encode(init as EventInit), message);
  };
  bad({ type: EventType.CLICK, userId: 5 }, /^user_id: expected a string, got number 5$|user_id: expected a string/);
  bad({ type: 'CLICK' }, /type: expected a whole number/);
  bad({ type: 1, device: { platform: 1.5 } }, /device\.platform: expected a whole number/);
  bad({ type: 1, properties: { a: 1 } }, /properties: expected a string/);
  bad({ type: 1, valueMicros: 1.5 }, /value_micros: expected a bigint/);
  bad({ type: 1, occurredAt: new Date(Number.NaN) }, /occurred_at: expected a valid Date/);
  bad({ type: 1, touch: 'x' }, /touch: expected an object/);
  bad(undefined, /expected an event/);
});

test('tells by the position that the buffer was too small, wherever it ended', () => {
  const init: EventInit = {
    type: EventType.CLICK,
    touch: { channel: 'ü'.repeat(70), keyword: 'k'.repeat(100) },
    metrics: { a: 1.5 },
    properties: { long: 'v'.repeat(300) },
  };
  const whole = encode(init);
  for (let size = 0; size < whole.length; size++) {
    const writer = new WireWriter(size);
    encodeEvent(writer, init, noId, 1_700_000_000_123);
    assert.is(writer.pos, whole.length, `size ${size}`);
    assert.ok(writer.overflowed);
  }
});

test.run();

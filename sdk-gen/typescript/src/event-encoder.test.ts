import { runInNewContext } from 'node:vm';
import { create, type DescField, type DescMessage, fromBinary, ScalarType, toBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { DeviceSchema, EventSchema, EventType } from '../gen/sluice/event/v1/event_pb.js';
import { encodeEvent } from './event-encoder.js';
import type { EventInit } from './event-init.js';
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
  bad({ type: 1, properties: { a: 1 } }, /^properties\[a\]: expected a string, got number 1$/);
  bad({ type: 1, valueMicros: 1.5 }, /value_micros: expected a bigint/);
  bad({ type: 1, occurredAt: new Date(Number.NaN) }, /occurred_at: expected a valid Date/);
  bad({ type: 1, touch: 'x' }, /touch: expected an object/);
  bad(undefined, /expected an event/);
});

const faultOf = (init: unknown): string => {
  try {
    encode(init as EventInit);
  } catch (error) {
    return error instanceof TypeError ? error.message : `not a TypeError: ${String(error)}`;
  }
  return 'taken';
};

test('a key that is no field is refused by its path, with the field that it may mean', () => {
  const cases: readonly (readonly [unknown, string])[] = [
    [{ type: 1, user_id: 'u' }, 'user_id: no field of sluice.event.v1.Event; did you mean userId?'],
    [{ type: 1, userID: 'u' }, 'userID: no field of sluice.event.v1.Event; did you mean userId?'],
    [{ type: 1, nonsense: 0 }, 'nonsense: no field of sluice.event.v1.Event'],
    [{ type: 1, device: { os: 'x' } }, 'device.os: no field of sluice.event.v1.Device'],
    [{ type: 1, device: { '\u001b[31m': 'x' } }, 'device."\\u001b[31m": no field of sluice.event.v1.Device'],
    [{ type: 1, occurredAt: { secs: 1n } }, 'occurred_at.secs: no field of google.protobuf.Timestamp'],
    [
      { type: 1, occurredAt: 1_700_000_000_000 },
      'occurred_at: expected a Date or a Timestamp, got number 1700000000000',
    ],
    [
      Object.assign(Object.create({ type: 1 }), { user_id: 'u' }),
      'user_id: no field of sluice.event.v1.Event; did you mean userId?',
    ],
    [{ type: 1, touch: create(DeviceSchema) }, 'touch: expected a sluice.event.v1.Touch, got a sluice.event.v1.Device'],
    [{ type: 1, device: new Map([['id', 'x']]) }, 'device: expected an object with fields, got a Map'],
    [{ type: 1, device: [] }, 'device: expected an object with fields, got an array'],
    [{ type: 1, device: new Date() }, 'device: expected an object with fields, got a Date'],
  ];
  for (const [init, fault] of cases) assert.is(faultOf(init), fault);
});

test('entries of a map are those of a plain object or a Map, and a fault names the key', () => {
  class Order {
    get plan(): string {
      return 'pro';
    }
  }
  const cases: readonly (readonly [unknown, string])[] = [
    [{ qty: 2 }, 'properties[qty]: expected a string, got number 2'],
    [new Map([['qty', 2]]), 'properties[qty]: expected a string, got number 2'],
    [new Map([[7, 'x']]), 'properties[7]: expected a string, got number 7'],
    [{ a: null }, 'properties[a]: expected a string, got null'],
    [{ 'a: b\n': {} }, 'properties["a: b\\n"]: expected a string, got an object'],
    [new Order(), 'properties: expected a plain object or a Map, got an Order'],
    [['a'], 'properties: expected a plain object or a Map, got an array'],
    [null, 'properties: expected a plain object or a Map, got null'],
    ['text', 'properties: expected a plain object or a Map, got string text'],
  ];
  for (const [properties, fault] of cases) assert.is(faultOf({ type: 1, properties }), fault);
  const wanted = encode({ type: 1, properties: { a: 'x', b: 'ü', constructor: 'own' } });
  const bare = Object.assign(Object.create(null), { a: 'x', b: 'ü', constructor: 'own' });
  const map = new Map(Object.entries(bare as Record<string, string>));
  for (const properties of [bare, map, runInNewContext("({ a: 'x', b: 'ü', constructor: 'own' })")]) {
    assert.equal(encode({ type: 1, properties }), wanted);
  }
});

test('what is undefined is left out, in maps as well', () => {
  const wanted = encode({ type: 1, properties: { a: 'x' }, metrics: {} });
  const untyped = { nonsense: undefined } as unknown as object;
  const properties = { a: 'x', b: undefined };
  assert.equal(encode({ type: 1, userId: undefined, properties, metrics: { m: undefined }, ...untyped }), wanted);
  assert.equal(encode({ type: 1, properties: new Map(Object.entries(properties)), device: undefined }), wanted);
});

test('fields that are inherited, or getters of a class, count', () => {
  class Click {
    readonly type = EventType.CLICK;
    get userId(): string {
      return 'u-1';
    }
  }
  const wanted = encode({ type: EventType.CLICK, userId: 'u-1' });
  assert.equal(encode(new Click()), wanted);
  assert.equal(encode(Object.create({ type: EventType.CLICK, userId: 'u-1' })), wanted);
  assert.equal(faultOf(Object.assign(new Click(), { user: 'x' })), 'user: no field of sluice.event.v1.Event');
});

test('half a surrogate pair is refused by its field, in short and in long text, in values and in keys', () => {
  const fault = 'expected well-formed text, got a lone surrogate';
  for (const broken of ['\ud800', 'a\udc00b', `${'x'.repeat(60)}\ud83d`, '\udc00\ud800']) {
    assert.is(faultOf({ type: 1, name: broken }), `name: ${fault}`);
    assert.is(faultOf({ type: 1, touch: { channel: broken } }), `touch.channel: ${fault}`);
    assert.is(faultOf({ type: 1, properties: { k: broken } }), `properties[k]: ${fault}`);
    assert.match(
      faultOf({ type: 1, properties: { [broken]: 'v' } }),
      /^properties\[".*\\u[0-9a-f]{4}.*"\]: expected well-formed/,
    );
  }
  assert.is(faultOf({ type: 1, name: '😀', properties: { '👍': 'y'.repeat(60) } }), 'taken');
});

test('TypeScript refuses what the encoder refuses', () => {
  const events: readonly EventInit[] = [
    // @ts-expect-error: the name as it is in the .proto
    { type: EventType.CLICK, user_id: 'u' },
    // @ts-expect-error: no field of a Device
    { type: EventType.CLICK, device: { os: 'x' } },
    // @ts-expect-error: a property that is no text
    { type: EventType.CLICK, properties: { qty: 2 } },
    // @ts-expect-error: a Map of what is no text
    { type: EventType.CLICK, properties: new Map([['qty', 2]]) },
    // @ts-expect-error: neither a Date nor a Timestamp
    { type: EventType.CLICK, occurredAt: 5 },
  ];
  for (const event of events) assert.is.not(faultOf(event), 'taken');
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

import { create, fromBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Event, EventBatchSchema, EventSchema, EventType } from '#gen/sluice/event/v1/event_pb.js';
import { RejectionCode } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { SluiceError } from '../errors.js';
import { createRandom, encodeBatch, makeBatch, makeEvent } from '../testing/batches.js';
import { encodeTree, type WireField } from '../testing/wire-tree.js';
import { scanBatch } from './index.js';

const limits = { maxEvents: 1000 };

function batchOf(...events: Partial<Event>[]): Uint8Array {
  return encodeBatch(create(EventBatchSchema, { events: events.map((event) => create(EventSchema, event as Event)) }));
}

function valid(change: Partial<Event> = {}): Partial<Event> {
  return { ...makeEvent(createRandom(1), 1), ...change };
}

function thrown(run: () => unknown): SluiceError {
  try {
    run();
  } catch (error) {
    if (error instanceof SluiceError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}

/** The one rejection of a batch of one event. */
function rejectionOf(event: Partial<Event>) {
  const result = scanBatch(batchOf(event), limits);
  assert.is(result.rejected, 1);
  assert.is(result.accepted, 0);
  assert.is(result.bytes.length, 0);
  return result.rejections[0]!;
}

test('a valid batch travels as the very object that came', () => {
  const bytes = encodeBatch(makeBatch(createRandom(5), 100));
  const result = scanBatch(bytes, limits);
  assert.is(result.accepted, 100);
  assert.is(result.rejected, 0);
  assert.is(result.rejections.length, 0);
  assert.is(result.unknownFields, false);
  assert.is(result.bytes, bytes);
});

test('a batch inside a larger buffer is scanned in its own bounds', () => {
  const bytes = encodeBatch(makeBatch(createRandom(5), 10));
  const around = Buffer.alloc(bytes.length + 14, 0xff);
  around.set(bytes, 7);
  assert.is(scanBatch(around.subarray(7, 7 + bytes.length), limits).accepted, 10);
});

test('the valid rest of a batch is accepted, unchanged and in order', () => {
  const good = [1, 2, 3].map((i) => makeEvent(createRandom(i), i));
  const bad = valid({ currency: 'eur' });
  const result = scanBatch(batchOf(bad, good[0]!, good[1]!, bad, bad, good[2]!, bad), limits);
  assert.is(result.accepted, 3);
  assert.is(result.rejected, 4);
  assert.equal(
    result.rejections.map((rejection) => rejection.index),
    [0, 3, 4, 6],
  );
  assert.ok(Buffer.from(result.bytes).equals(batchOf(...good)));
  assert.is(scanBatch(result.bytes, limits).bytes, result.bytes);
});

test('the first 100 rejections are named, all are counted', () => {
  const bad = Array.from({ length: 250 }, () => valid({ eventId: '' }));
  const result = scanBatch(batchOf(...bad, valid()), limits);
  assert.is(result.rejected, 250);
  assert.is(result.rejections.length, 100);
  assert.is(result.accepted, 1);
  assert.is(fromBinary(EventBatchSchema, result.bytes).events.length, 1);
});

test('a batch without events is refused', () => {
  assert.is(thrown(() => scanBatch(new Uint8Array(0), limits)).code, 'batch_empty');
});

test('too many events are refused by number, valid or not', () => {
  const bytes = encodeBatch(makeBatch(createRandom(5), 11));
  const error = thrown(() => scanBatch(bytes, { maxEvents: 10 }));
  assert.is(error.code, 'batch_too_large');
  assert.match(error.message, /more than 10 events/);
  assert.is(scanBatch(bytes, { maxEvents: 11 }).accepted, 11);
});

test('anything but events at batch level is refused with its offset', () => {
  const bytes = batchOf(valid());
  // A StoredBatch's tenant (tag 0x12), field 0, a padded tag, events as another wire type.
  for (const bad of [[0x12, 1, 0x61], [0x00, 1], [0x8a, 0x00, 0], [0x08, 1], [0x0b, 0x0c], [0xff]]) {
    const error = thrown(() => scanBatch(Uint8Array.from([...bytes, ...bad]), limits));
    assert.is(error.code, 'batch_malformed');
    assert.is(error.offset, bytes.length);
    assert.match(error.message, `byte ${bytes.length} is 0x${bad[0]!.toString(16).padStart(2, '0')}`);
  }
});

test('an event that runs past the batch is refused with its offset', () => {
  const first = batchOf(valid());
  const both = Uint8Array.from([...first, ...first]);
  for (let cut = 1; cut < first.length; cut++) {
    const error = thrown(() => scanBatch(both.subarray(0, both.length - cut), limits));
    assert.is(error.code, 'batch_malformed');
    assert.is(error.offset, first.length);
  }
  for (const length of [
    [0xff, 0xff, 0xff, 0xff, 0x0f],
    [0xff, 0xff, 0xff, 0xff, 0x7f],
    [0x80, 0x80, 0x80, 0x80, 0x80, 0],
  ]) {
    const error = thrown(() => scanBatch(Uint8Array.from([...first, 0x0a, ...length]), limits));
    assert.is(error.code, 'batch_malformed');
  }
});

test('fields that the contract does not know are legal, and said so when their event is accepted', () => {
  const event = (...fields: WireField[]): WireField => ({ number: 1, wireType: 2, value: fields });
  const text = (number: number, value: string): WireField => ({ number, wireType: 2, value: Buffer.from(value) });
  const type: WireField = { number: 2, wireType: 0, value: 3n };
  const time = (...fields: WireField[]): WireField => ({ number: 3, wireType: 2, value: fields });
  const known = [text(1, 'a'), type, time()];
  const unknown = text(1000, 'tracking plan');
  assert.is(scanBatch(encodeTree([event(...known)]), limits).unknownFields, false);
  assert.is(scanBatch(encodeTree([event(...known, unknown)]), limits).unknownFields, true);
  assert.is(scanBatch(encodeTree([event(unknown, ...known)]), limits).unknownFields, true);
  assert.is(scanBatch(encodeTree([event(text(1, 'a'), type, time(unknown))]), limits).unknownFields, true);
  const refused = scanBatch(encodeTree([event(...known), event(unknown, type)]), limits);
  assert.is(refused.rejected, 1);
  assert.is(refused.unknownFields, false);
});

test('a rejection says the field, what is wrong and what is allowed', () => {
  const device = (change: object) => valid({ device: { $typeName: 'sluice.event.v1.Device', ...change } as never });
  const told = (event: Partial<Event>) => {
    const { field, code, message } = rejectionOf(event);
    return `${field} | ${RejectionCode[code]} | ${message}`;
  };
  assert.equal(
    [
      told(valid({ eventId: '' })),
      told(valid({ eventId: 'a b' })),
      told(valid({ type: EventType.UNSPECIFIED })).slice(0, 60),
      told(valid({ type: 99 as EventType })).slice(0, 70),
      told(valid({ name: 'x'.repeat(129) })),
      told(valid({ name: 'a\nb' })),
      told(device({ country: 'c' })),
      told(device({ country: 'ch' })),
      told(device({ utcOffsetMinutes: 2000 })),
      told(valid({ valueMicros: 10n ** 16n })),
      told(valid({ properties: { plan: 'v'.repeat(4097) } })),
      told(valid({ properties: { '': 'v' } })),
      told(valid({ metrics: { score: Number.NaN } })),
      told(valid({ properties: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [`k${i}`, 'v'])) })),
    ],
    [
      'event_id | REQUIRED | required: give a value that is not empty',
      'event_id | CHARSET | holds a character that is not allowed; allowed are letters, digits and . _ : / -',
      'type | REQUIRED | required: give a value other than 0; known',
      'type | UNKNOWN_ENUM | is 99, which this gateway does not know; known a',
      'name | TOO_LONG | has 129 bytes; at most 128 are allowed',
      'name | CHARSET | holds a character that is not allowed; control characters (U+0000 to U+001F, U+007F) are refused',
      'device.country | TOO_SHORT | has 1 byte; at least 2 are needed, or none',
      'device.country | CHARSET | holds a character that is not allowed; allowed are A to Z',
      'device.utc_offset_minutes | OUT_OF_RANGE | is 2000; allowed is -1080 to 1080',
      'value_micros | OUT_OF_RANGE | is about 10000000000000000; allowed is -1000000000000000 to 1000000000000000',
      'properties[plan] | TOO_LONG | has 4097 bytes; at most 4096 are allowed',
      'properties[] | REQUIRED | the key of a map entry is required: a non-empty string',
      'metrics[score] | NOT_FINITE | is infinite or not a number; only finite numbers are allowed',
      'properties | TOO_MANY | has too many entries; at most 64 are allowed',
    ],
  );
});

test('a rejection repeats at most 64 bytes of a key, whole characters without control characters', () => {
  const told = (key: string) => rejectionOf(valid({ properties: { [key]: 'v'.repeat(5000) } })).field;
  assert.is(told('k'.repeat(64)), `properties[${'k'.repeat(64)}]`);
  assert.is(told('k'.repeat(65)), `properties[${'k'.repeat(64)}…]`);
  assert.is(told('é'.repeat(40)), `properties[${'é'.repeat(32)}…]`);
  assert.is(told(`x${'é'.repeat(40)}`), `properties[x${'é'.repeat(31)}…]`);
  assert.is(told('a\u0000b\nc'), 'properties[a\ufffdb\ufffdc]');
});

test('an event that fails leaves no trace in the next one', () => {
  const twice = { plan: 'pro' };
  const bytes = batchOf(valid({ properties: twice, currency: 'x' }), valid({ properties: twice }), valid());
  const result = scanBatch(bytes, limits);
  assert.is(result.rejected, 1);
  assert.is(result.rejections[0]?.index, 0);
});

test.run();

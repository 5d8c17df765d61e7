import { fromBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { EventBatchSchema, EventSchema, EventType } from '../gen/sluice/event/v1/event_pb.js';
import { type Batcher, type BatcherOptions, createBatcher, eventAt, type SealedBatch, splitBatch } from './batcher.js';

function setting(options: Partial<BatcherOptions> = {}): { batcher: Batcher; sealed: SealedBatch[] } {
  const sealed: SealedBatch[] = [];
  let ids = 0;
  const batcher = createBatcher({
    batchBytes: 1_000,
    batchEvents: 100,
    keepsUp: () => true,
    maxBatchBytes: () => 1 << 20,
    maxBatchEvents: () => 10_000,
    makeId: () => `id-${++ids}`,
    onSealed: (batch) => sealed.push(batch),
    ...options,
  });
  return { batcher, sealed };
}

const event = (name: string) => ({ type: EventType.CUSTOM, name });
const names = (batch: SealedBatch | undefined): string[] =>
  fromBinary(EventBatchSchema, batch?.bytes ?? new Uint8Array(0)).events.map(({ name }) => name);

test('gathers events in order and closes at the number of events', () => {
  const { batcher, sealed } = setting({ batchEvents: 3 });
  for (const name of ['a', 'b', 'c', 'd']) batcher.add(event(name), 1_000);
  assert.is(sealed.length, 1);
  assert.is(sealed[0]?.events, 3);
  assert.equal(names(sealed[0]), ['a', 'b', 'c']);
  assert.is(batcher.events, 1);
  batcher.seal();
  assert.equal(names(sealed[1]), ['d']);
  batcher.seal();
  assert.is(sealed.length, 2);
});

test('closes before the bytes grow past the target; no event is lost or changed at the seam', () => {
  const { batcher, sealed } = setting({ batchBytes: 40_000, batchEvents: 1_000_000 });
  const wanted: string[] = [];
  for (let i = 0; i < 5_000; i++) {
    const name = `event ${i} ${'x'.repeat(i % 97)}`;
    wanted.push(name);
    batcher.add(event(name), 1_000);
  }
  batcher.seal();
  assert.ok(sealed.length > 5);
  assert.ok(sealed.every((batch) => batch.bytes.length <= 40_000));
  assert.equal(sealed.flatMap(names), wanted);
});

test('gives an event larger than the target a batch of its own, and refuses one larger than the gateway takes', () => {
  const { batcher, sealed } = setting({ batchBytes: 500, maxBatchBytes: () => 5_000 });
  batcher.add(event('small'), 1_000);
  batcher.add(event('y'.repeat(4_000)), 1_000);
  assert.equal(
    sealed.map((batch) => batch.events),
    [1, 1],
  );
  assert.throws(() => batcher.add(event('z'.repeat(6_000)), 1_000), /takes 5000/);
  batcher.add(event('after'), 1_000);
  batcher.seal();
  assert.equal(names(sealed[2]), ['after']);
});

test('an event that cannot be encoded leaves no trace in the batch', () => {
  const { batcher, sealed } = setting();
  batcher.add(event('a'), 1_000);
  assert.throws(() => batcher.add({ type: EventType.CLICK, name: 'b', userId: 7 as never }, 1_000), /user_id/);
  batcher.add(event('c'), 1_000);
  batcher.seal();
  assert.equal(names(sealed[0]), ['a', 'c']);
});

test('a small batch does not hold on to a large buffer', () => {
  const { batcher, sealed } = setting({ batchBytes: 1 << 20 });
  batcher.add(event('x'.repeat(500_000)), 1_000);
  batcher.seal();
  batcher.add(event('y'), 1_000);
  batcher.seal();
  assert.ok((sealed[1]?.bytes.buffer.byteLength ?? Number.NaN) < 16_384 * 2);
});

test('splits a batch into parts that fit and together are the same bytes', () => {
  const { batcher, sealed } = setting({ batchBytes: 100_000, batchEvents: 10_000 });
  for (let i = 0; i < 300; i++) batcher.add(event('n'.repeat(i)), 1_000);
  batcher.seal();
  const [whole] = sealed as [SealedBatch];
  const parts = splitBatch(whole, 1_000, 20);
  assert.ok(parts.every((part) => part.bytes.length <= 1_000 && part.events <= 20 && part.events > 0));
  assert.is(
    parts.reduce((sum, part) => sum + part.events, 0),
    300,
  );
  assert.equal(Buffer.concat(parts.map((part) => part.bytes)), Buffer.from(whole.bytes));
  const [lone] = splitBatch(whole, 1, 20);
  assert.is(lone?.events, 1);
});

test('finds an event by its place', () => {
  const { batcher, sealed } = setting({ batchBytes: 100_000 });
  for (const name of ['a', 'b'.repeat(300), 'c']) batcher.add(event(name), 1_000);
  batcher.seal();
  const bytes = sealed[0]?.bytes ?? new Uint8Array(0);
  assert.is(fromBinary(EventSchema, eventAt(bytes, 1) ?? new Uint8Array(0)).name, 'b'.repeat(300));
  assert.is(fromBinary(EventSchema, eventAt(bytes, 2) ?? new Uint8Array(0)).name, 'c');
  assert.is(eventAt(bytes, 3), undefined);
});

test.run();

import { fromBinary } from '@bufbuild/protobuf';
import { BinaryReader } from '@bufbuild/protobuf/wire';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { PublishStreamRequestSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { StoredBatchSchema } from '#gen/sluice/log/v1/log_pb.js';
import { scanBatch } from '../lib/contract/index.js';
import { copyOf, parseBatchId, patch, patchAttempt, prepare } from './payload.js';

const nowMs = 1_790_000_000_123;

test('a patched gateway message decodes, with the name, attempt and time that were patched in', () => {
  const message = prepare({ target: 'gateway', events: 500, seed: 1, tenant: 't' });
  patch(message, { run: 0xdeadbeef, slot: 77, number: 4_000_000_000 }, nowMs);
  assert.is(message.bytes[0], 0);
  assert.is(message.bytes.readUInt32BE(1), message.bytes.length - 5);
  const request = fromBinary(PublishStreamRequestSchema, message.bytes.subarray(5));
  assert.is(request.batchId, 'b-deadbeef-004d-ee6b2800');
  assert.is(request.attempt, 1);
  assert.is(request.sentAt?.seconds, 1_790_000_000n);
  assert.is(request.batch?.events.length, 500);
  patchAttempt(message, 3, nowMs + 5_000);
  const again = fromBinary(PublishStreamRequestSchema, message.bytes.subarray(5));
  assert.is(again.attempt, 3);
  assert.is(again.sentAt?.seconds, 1_790_000_005n);
  assert.equal(again.batch, request.batch);
});

test('event ids of many sends, messages and seeds are all distinct and keep the form of a UUID', () => {
  const ids = new Set<string>();
  let events = 0;
  for (const seed of [1, 2, 3]) {
    const message = prepare({ target: 'gateway', events: 300, seed, tenant: 't' });
    for (const number of [0, 1, 2, 255, 256, 65_536, 0xffffffff]) {
      patch(message, { run: 1, slot: 0, number }, nowMs);
      const request = fromBinary(PublishStreamRequestSchema, message.bytes.subarray(5));
      for (const event of request.batch?.events ?? []) {
        assert.match(event.eventId, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$/);
        ids.add(event.eventId);
        events++;
      }
    }
  }
  assert.is(events, 3 * 7 * 300);
  assert.is(ids.size, events);
});

test('the scanner accepts a patched batch whole', () => {
  const message = prepare({ target: 'gateway', events: 500, seed: 4, tenant: 't' });
  patch(message, { run: 1, slot: 2, number: 3 }, nowMs);
  const result = scanBatch(message.bytes.subarray(message.batch.start, message.batch.end), { maxEvents: 10_000 });
  assert.is(result.accepted, 500);
  assert.is(result.rejected, 0);
});

test('a message for the log is one length-delimited StoredBatch', () => {
  const message = prepare({ target: 'log', events: 10, seed: 5, tenant: 'acme' });
  patch(message, { run: 1, slot: 2, number: 3 }, nowMs);
  const reader = new BinaryReader(message.bytes);
  const batch = fromBinary(StoredBatchSchema, reader.bytes());
  assert.is(reader.pos, message.bytes.length);
  assert.is(batch.tenant, 'acme');
  assert.is(batch.batchId, 'b-00000001-0002-00000003');
  assert.is(batch.events.length, 10);
  assert.is(batch.eventCount, 10);
});

test('a copy has bytes of its own', () => {
  const message = prepare({ target: 'gateway', events: 2, seed: 6, tenant: 't' });
  const copy = copyOf(message);
  patch(copy, { run: 1, slot: 1, number: 1 }, nowMs);
  assert.not.equal(Buffer.compare(message.bytes, copy.bytes), 0);
});

test('a batch id is read back, and a foreign one is not', () => {
  const id = Buffer.from('xxb-deadbeef-004d-ee6b2800');
  assert.equal(parseBatchId(id, 2, 24), { run: 0xdeadbeef, slot: 77, number: 4_000_000_000 });
  assert.is(parseBatchId(Buffer.from('0192aaaa-bbbb-7ccc-dddd-eeeeffff0000'), 0, 36), undefined);
});

test.run();

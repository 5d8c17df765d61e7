import { create, equals, fromBinary, toBinary } from '@bufbuild/protobuf';
import { sizeDelimitedDecodeStream } from '@bufbuild/protobuf/wire';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type StoredBatch, StoredBatchSchema } from '#gen/sluice/log/v1/log_pb.js';
import { createRandom, encodeBatch, integer, makeBatch, makeText, pick } from '../../lib/testing/batches.js';
import { frameBatch, maxMetadataBytes, type StoredBatchParts } from './stored-batch.js';

const minimal: StoredBatchParts = {
  tenant: 'acme',
  batchId: 'b-1',
  attempt: 1,
  receivedAt: 1_767_225_600_123,
  sentAt: undefined,
  eventCount: 3,
  rejectedCount: 0,
  unknownFields: false,
  contract: 'abc123',
  traceparent: undefined,
  client: undefined,
  clientAddress: undefined,
  userAgent: undefined,
  events: new Uint8Array(0),
};

function written(...batches: StoredBatchParts[]): Uint8Array {
  const framed = batches.map(frameBatch);
  const target = Buffer.alloc(framed.reduce((sum, batch) => sum + batch.size, 0));
  let at = 0;
  for (const batch of framed) at = batch.write(target, at);
  assert.is(at, target.length, 'size is exact');
  return target;
}

async function decoded(bytes: Uint8Array): Promise<StoredBatch[]> {
  const batches: StoredBatch[] = [];
  const source = (async function* () {
    yield bytes;
  })();
  for await (const batch of sizeDelimitedDecodeStream(StoredBatchSchema, source)) batches.push(batch);
  return batches;
}

test('random batches read back with the generated type, metadata first and events unchanged', async () => {
  const random = createRandom(11);
  for (let round = 0; round < 300; round++) {
    const wanted: StoredBatch[] = [];
    const parts = Array.from({ length: integer(random, 1, 4) }, () => {
      const batch = makeBatch(random, integer(random, 1, 20));
      const stored = create(StoredBatchSchema, {
        events: batch.events,
        tenant: pick(random, ['a', 'acme', 'x'.repeat(63)]),
        batchId: pick(random, ['b', 'y'.repeat(64), 'tenant/2026:1.b_c-d']),
        attempt: pick(random, [0, 1, 2, 127, 128, 2 ** 32 - 1]),
        receivedAt: { seconds: BigInt(integer(random, 0, 4e9)), nanos: integer(random, 0, 999) * 1e6 },
        eventCount: batch.events.length,
        rejectedCount: pick(random, [0, 1, 9_999]),
        unknownFields: random() < 0.5,
        contract: pick(random, ['', 'c0ffee12']),
      });
      if (random() < 0.7) {
        stored.sentAt = {
          $typeName: 'google.protobuf.Timestamp',
          seconds: pick(random, [-62_135_596_800n, -1n, 0n, 1n, 2n ** 31n, 2n ** 32n, 253_402_300_799n]),
          nanos: pick(random, [0, 1, 999_999_999]),
        };
      }
      if (random() < 0.5) stored.traceparent = `00-${'0af7'.repeat(8)}-${'b7ad'.repeat(4)}-01`;
      if (random() < 0.5) stored.client = 'sluice-node/0.1.0';
      if (random() < 0.5) stored.clientAddress = new Uint8Array(pick(random, [4, 16])).fill(7);
      if (random() < 0.5) stored.userAgent = makeText(random, 512, false);
      wanted.push(stored);
      return {
        ...stored,
        receivedAt: Number(stored.receivedAt?.seconds) * 1000 + (stored.receivedAt?.nanos ?? 0) / 1e6,
        sentAt: stored.sentAt,
        events: encodeBatch(batch),
      };
    });
    const got = await decoded(written(...parts));
    assert.is(got.length, wanted.length);
    got.forEach((batch, i) => {
      assert.ok(equals(StoredBatchSchema, batch, wanted[i] as StoredBatch), `round ${round}, batch ${i}`);
    });
  }
});

test('the event bytes are the last bytes of the frame, byte for byte', () => {
  // Field order and unknown fields that no encoder of ours would produce.
  const events = Uint8Array.from([0x0a, 0x05, 0x10, 0x06, 0x0a, 0x01, 0x61, 0x0a, 0x03, 0xc0, 0x3e, 0x01]);
  const bytes = written({ ...minimal, events });
  assert.equal(bytes.subarray(bytes.length - events.length), Buffer.from(events));
  assert.ok(bytes[1] === 0x12, 'metadata comes first');
});

test('texts that a client chose are bounded, and truncation keeps UTF-8 valid', () => {
  const frame = frameBatch({
    ...minimal,
    tenant: 't'.repeat(63),
    batchId: 'b'.repeat(64),
    attempt: 2 ** 32 - 1,
    sentAt: { seconds: -1n, nanos: 999_999_999 },
    rejectedCount: 9_999,
    unknownFields: true,
    contract: 'c'.repeat(32),
    traceparent: `00-${'0af7'.repeat(8)}-${'b7ad'.repeat(4)}-01`,
    client: '€'.repeat(1_000),
    clientAddress: new Uint8Array(16),
    userAgent: '😀'.repeat(10_000),
  });
  assert.ok(frame.size <= maxMetadataBytes);
  const bytes = Buffer.alloc(frame.size);
  frame.write(bytes, 0);
  const batch = fromBinary(StoredBatchSchema, bytes.subarray(2));
  assert.is(batch.client, '€'.repeat(21));
  assert.is(batch.userAgent, '😀'.repeat(128));
});

test('metadata that means nothing is left out', () => {
  const plain = written(minimal);
  assert.equal(written({ ...minimal, traceparent: 'not a trace' }), plain);
  assert.equal(written({ ...minimal, clientAddress: new Uint8Array(5) }), plain);
  assert.equal(written({ ...minimal, sentAt: { seconds: 10n ** 18n, nanos: 0 } }), plain);
  assert.equal(written({ ...minimal, sentAt: { seconds: 1n, nanos: -1 } }), plain);
  assert.equal(written({ ...minimal, client: '', userAgent: '' }), plain);
  assert.is(toBinary(StoredBatchSchema, fromBinary(StoredBatchSchema, plain.subarray(1))).length, plain.length - 1);
});

test.run();

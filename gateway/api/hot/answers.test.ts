import { create, toBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  PublishResponseSchema,
  PublishStreamResponseSchema,
  RejectionCode,
  RejectionSchema,
} from '#gen/sluice/ingest/v1/ingest_pb.js';
import type { IngestResult } from '../../ingest/ingest.js';
import { toBatchResult } from '../publish-batch.js';
import { type Answer, toMessage } from '../stream-outbox.js';
import { encodeAnswers, encodeResponse, envelope } from './answers.js';

const rejection = create(RejectionSchema, {
  index: 3,
  field: 'name',
  code: RejectionCode.TOO_LONG,
  message: 'is long',
});

function* results(): Generator<IngestResult> {
  const counts = [0, 1, 127, 128, 16_383, 16_384, 10_000_000];
  const sequences = [1n, 127n, 128n, 2n ** 31n, 2n ** 32n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 64n - 1n];
  for (const batchId of ['', 'a', 'x'.repeat(64)]) {
    for (const [i, accepted] of counts.entries()) {
      const rejected = counts[(i * 3) % counts.length] as number;
      yield { batchId, accepted, rejected, rejections: [], position: undefined };
      for (const sequence of sequences) {
        for (const shard of [0, 1, 1023]) {
          for (const stream of [`EV_${shard}`, 's'.repeat(64), 's'.repeat(65)]) {
            const position = { stream, shard, sequence };
            yield { batchId, accepted, rejected, rejections: [], position };
          }
        }
      }
      yield { batchId, accepted, rejected: 1, rejections: [rejection], position: undefined };
    }
  }
}

test('answers written by hand are the bytes that the library writes', () => {
  let seen = 0;
  for (const result of results()) {
    const expected = toBinary(PublishResponseSchema, create(PublishResponseSchema, { result: toBatchResult(result) }));
    assert.ok(
      encodeResponse(result, false).equals(expected),
      JSON.stringify(result, (_, v) => String(v)),
    );
    assert.ok(encodeResponse(result, true).equals(envelope(0, expected)));
    seen++;
  }
  assert.ok(seen > 1_000);
});

test('answers of a stream are written one after another, each in its envelope, and no more at once than one write takes', () => {
  const draining: Answer = {
    case: 'other',
    value: create(PublishStreamResponseSchema, { message: { case: 'draining', value: { reason: 'why' } } }).message,
  };
  const queue: Answer[] = [];
  for (const value of results()) {
    queue.push({ case: 'accepted', value });
    if (queue.length % 7 === 0) queue.push(draining);
  }
  const expected = Buffer.concat(
    queue.map((answer) => envelope(0, toBinary(PublishStreamResponseSchema, toMessage(answer)))),
  );
  const written: Buffer[] = [];
  for (;;) {
    const bytes = encodeAnswers({ next: () => queue.shift() });
    if (bytes.length === 0) break;
    assert.ok(bytes.length < 70 * 1024, `${bytes.length}`);
    written.push(bytes);
    // Others write in between.
    encodeResponse({ batchId: 'x', accepted: 1, rejected: 0, rejections: [], position: undefined }, true);
  }
  assert.ok(written.length > 1);
  assert.ok(Buffer.concat(written).equals(expected));
});

test.run();

import { create, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { PublishStreamResponseSchema, RejectionCode } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { FrameReader, readAnswer } from './grpc-answers.js';

const batchId = 'b-00000001-0002-00000003';
const name = { run: 1, slot: 2, number: 3 };

const encode = (init: MessageInitShape<typeof PublishStreamResponseSchema>): Buffer =>
  Buffer.from(toBinary(PublishStreamResponseSchema, create(PublishStreamResponseSchema, init)));

test('each kind of answer is read', () => {
  const accepted = encode({
    message: {
      case: 'accepted',
      value: {
        batchId,
        accepted: 300,
        rejected: 2,
        rejections: [{ index: 4, field: 'type', code: RejectionCode.REQUIRED, message: 'missing' }],
        position: { stream: 'EV_0', shard: 0, sequence: 2n ** 40n },
      },
    },
  });
  assert.equal(readAnswer(accepted), { kind: 'accepted', name, accepted: 300, rejected: 2 });
  const failed = { batchId, code: 8, message: 'full', retryAfter: { seconds: 2n, nanos: 500_000_000 } };
  assert.equal(readAnswer(encode({ message: { case: 'failed', value: failed } })), {
    kind: 'failed',
    name,
    code: 8,
    message: 'full',
    retryAfterMs: 2_500,
  });
  const final = readAnswer(encode({ message: { case: 'failed', value: { batchId, code: 3, message: 'bad' } } }));
  assert.is(final.kind === 'failed' ? final.retryAfterMs : 0, undefined);
  assert.is(readAnswer(encode({ message: { case: 'draining', value: { reason: 'age' } } })).kind, 'draining');
  assert.is(readAnswer(encode({ message: { case: 'limits', value: { maxBatchBytes: 1 } } })).kind, 'other');
  assert.is(readAnswer(encode({ message: { case: 'committed', value: { upTo: { shard: 1 } } } })).kind, 'other');
});

test('frames are found however the bytes are cut', () => {
  const messages = [encode({ message: { case: 'accepted', value: { batchId, accepted: 1 } } }), Buffer.alloc(0)];
  const bytes = Buffer.concat(
    messages.flatMap((message) => {
      const head = Buffer.alloc(5);
      head.writeUInt32BE(message.length, 1);
      return [head, message];
    }),
  );
  for (let cut = 1; cut <= bytes.length; cut++) {
    const reader = new FrameReader();
    const got: number[] = [];
    for (let at = 0; at < bytes.length; at += cut) {
      reader.push(bytes.subarray(at, at + cut), (message) => got.push(message.length));
    }
    assert.equal(
      got,
      messages.map((message) => message.length),
    );
  }
});

test('what is no answer is refused instead of being waited for', () => {
  assert.throws(() => new FrameReader().push(Buffer.from('HTTP/1.1 400 Bad Request'), () => undefined));
  assert.throws(() => readAnswer(Buffer.from([0x0a, 0x20, 0x01])));
});

test.run();

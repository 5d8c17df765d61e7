import { create, toBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { PublishResponseSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { exportLogs, publish } from './unary-methods.js';

test('Publish is accepted when the answer names the batch that was sent', () => {
  const result = { batchId: 'b-00000007-0003-0000002a', accepted: 19, rejected: 1 };
  const message = Buffer.from(toBinary(PublishResponseSchema, create(PublishResponseSchema, { result })));
  assert.equal(publish.accepted(message, { slot: 3, number: 42, events: 20 }), { accepted: 19, rejected: 1 });
  assert.is(publish.accepted(message, { slot: 3, number: 43, events: 20 }), undefined);
  assert.is(publish.accepted(message, { slot: 2, number: 42, events: 20 }), undefined);
  assert.is(publish.accepted(Buffer.from('{"code":"internal"}'), { slot: 3, number: 42, events: 20 }), undefined);
  assert.is(publish.accepted(Buffer.alloc(0), { slot: 3, number: 42, events: 20 }), undefined);
});

test('Export has taken all when it says nothing, and all but what it counts when it says that', () => {
  const sent = { slot: 0, number: 0, events: 20 };
  assert.equal(exportLogs.accepted(Buffer.alloc(0), sent), { accepted: 20, rejected: 0 });
  assert.equal(exportLogs.accepted(Buffer.from([0x0a, 0]), sent), { accepted: 20, rejected: 0 });
  // A partial_success with rejected_log_records 3 and an error_message; with a message alone, which is a warning.
  const some = Buffer.from([0x0a, 5, 0x08, 3, 0x12, 1, 0x78]);
  assert.equal(exportLogs.accepted(some, sent), { accepted: 17, rejected: 3 });
  assert.equal(exportLogs.accepted(Buffer.from([0x0a, 3, 0x12, 1, 0x78]), sent), { accepted: 20, rejected: 0 });
  assert.is(exportLogs.accepted(Buffer.from([0x0a, 2, 0x08, 21]), sent), undefined);
});

test.run();

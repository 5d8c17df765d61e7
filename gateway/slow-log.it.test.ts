/** Clients with short deadlines, while the log stands still: they take back all of their calls, and have done no wrong. */
import { connect } from 'node:http2';
import { create, toBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { PublishRequestSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { createRandom, makeBatch } from '../lib/testing/batches.js';
import { freeze } from '../lib/testing/freeze.js';
import { bareCall, withSession } from './testing/bare-call.js';
import { withGateway } from './testing/running-gateway.js';

const events = makeBatch(createRandom(5), 2);
const publish = '/sluice.ingest.v1.IngestService/Publish';
const message = Buffer.from(toBinary(PublishRequestSchema, create(PublishRequestSchema, { batch: events })));
const event = { eventId: 'slow', type: 'EVENT_TYPE_PAGE', occurredAt: '2026-01-02T03:04:05Z' };

for (const [name, path, type, body] of [
  ['the hot path', publish, 'application/proto', message],
  ['the library', publish, 'application/json', Buffer.from(JSON.stringify({ batch: { events: [event] } }))],
  ['plain JSON', '/v1/events', 'application/json', Buffer.from(JSON.stringify(event))],
] as const) {
  test(`calls that are taken back while the log stands still do not cost a connection: ${name}`, () =>
    withGateway({}, async ({ nats, url, headers }) => {
      const head = { ':method': 'POST', ':path': path, 'content-type': type, ...headers };
      const session = connect(url);
      session.on('error', () => {});
      await freeze(nats.process());
      try {
        // Far more than may be taken back, and few enough at a time for all of them to have a seat.
        for (let round = 0; round < 10; round++) {
          const calls = Array.from({ length: 30 }, () => session.request(head).on('error', () => {}));
          for (const call of calls) call.end(body);
          await new Promise((resolve) => setTimeout(resolve, 150));
          await Promise.all(
            calls.map((call) => {
              const closed = call.closed ? undefined : new Promise((resolve) => call.once('close', resolve));
              call.close(8);
              return closed;
            }),
          );
        }
      } finally {
        nats.process().kill('SIGCONT');
      }
      assert.not(session.destroyed, 'its connection goes on');
      session.close();
      // Nor has its address to wait for new ones.
      await withSession(url, async (later) => {
        const answer = await bareCall(later, { headers: head, pieces: [body] });
        const status = Number(answer.headers[':status']);
        assert.ok(status === 200 || status === 202, `${status} ${answer.body}`);
      });
    }));
}

test.run();

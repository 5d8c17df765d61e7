/** Which calls of the hot path wait for a seat. */
import type { ClientHttp2Session } from 'node:http2';
import { create, toBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { PublishRequestSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { createRandom, makeBatch } from '../../../lib/testing/batches.js';
import { until } from '../../../lib/testing/until.js';
import { bareCall, enveloped, withSession } from '../../testing/bare-call.js';
import { type RunningGateway, withGateway } from '../../testing/running-gateway.js';

const publishPath = '/sluice.ingest.v1.IngestService/Publish';
const seats = 96;

const requestOf = (events: number): Uint8Array =>
  toBinary(PublishRequestSchema, create(PublishRequestSchema, { batch: makeBatch(createRandom(events), events) }));
const small = requestOf(10);
const large = requestOf(200);

/** A call keeps its seat for so long, as long as its body comes fast enough. */
const holdMs = 2_000;

/** Takes all seats that the tenant may have. @returns what ends that */
async function fillGate(session: ClientHttp2Session, { gateway, headers }: RunningGateway): Promise<() => void> {
  const streams = Array.from({ length: seats }, () => {
    const type = { ':path': publishPath, 'content-type': 'application/grpc' };
    const stream = session.request({ ':method': 'POST', ...type, ...headers }, { endStream: false });
    stream.on('error', () => {});
    // The head of a message of 64 KiB.
    stream.write(Buffer.from([0, 0, 1, 0, 0]));
    return stream;
  });
  const timer = setInterval(() => {
    for (const stream of streams) stream.write(Buffer.alloc(400));
  }, 100);
  await until('all calls are there', () => gateway.requests === seats);
  return () => clearInterval(timer);
}

test('a call that is whole at once needs no seat', async () => {
  await withGateway({}, async (running) => {
    await withSession(running.url, async (session) => {
      const stop = await fillGate(session, running);
      const from = performance.now();
      for (const bytes of [small, large]) {
        const headers = { ':path': publishPath, ...running.headers };
        const grpc = { headers: { ...headers, 'content-type': 'application/grpc' }, pieces: [enveloped(bytes)] };
        assert.is((await bareCall(session, grpc)).trailers['grpc-status'], '0');
        const connect = { headers: { ...headers, 'content-type': 'application/proto' }, pieces: [bytes] };
        assert.is((await bareCall(session, connect)).headers[':status'], 200);
      }
      const ms = performance.now() - from;
      stop();
      assert.ok(ms < holdMs / 2, `answered after ${ms} ms`);
    });
  });
});

test.run();

/** Calls over HTTP/2 whose answers no client reads: how many the gateway keeps, and whose. */
import { type ClientHttp2Session, type ClientHttp2Stream, connect, type OutgoingHttpHeaders } from 'node:http2';
import { create, toBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { PublishRequestSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { silentLogger } from '../../lib/logger.js';
import { addTenant } from '../../lib/tenants.js';
import { createRandom, makeBatch } from '../../lib/testing/batches.js';
import { until } from '../../lib/testing/until.js';
import { listening } from '../testing/listening.js';
import { withGateway } from '../testing/running-gateway.js';
import type { NodeRequest, NodeResponse } from './node-request.js';
import { listen } from './server.js';
import { maxUnread } from './unread-calls.js';

/** Answers once the request has ended. */
function answer(request: NodeRequest, response: NodeResponse): void {
  request.on('end', () => (response as { end(text: string): void }).end('An answer that no client reads.'));
  request.resume();
}

interface UnreadPeer {
  readonly session: ClientHttp2Session;
  readonly streams: readonly ClientHttp2Stream[];
  readonly answered: () => number;
  /** Streams that are over. */
  readonly reset: () => number;
}

/** Makes `count` calls, whose answers it has no window for. */
function callUnread(port: number, count: number, headers: OutgoingHttpHeaders = {}, body?: Uint8Array): UnreadPeer {
  const session = connect(`http://127.0.0.1:${port}`, { settings: { initialWindowSize: 0 } });
  session.on('error', () => {});
  let answered = 0;
  let reset = 0;
  const streams = Array.from({ length: count }, () => {
    const stream = session.request({ ':path': '/', ...headers });
    if (body !== undefined) stream.end(body);
    stream.on('error', () => {});
    stream.on('response', () => answered++);
    stream.on('close', () => reset++);
    stream.resume();
    return stream;
  });
  return { session, streams, answered: () => answered, reset: () => reset };
}

const sum = (peers: readonly UnreadPeer[], count: 'answered' | 'reset'): number =>
  peers.reduce((total, peer) => total + peer[count](), 0);

test('of calls that no client reads, the gateway keeps so many, and those of modest connections first', async () => {
  const server = await listen({ ...listening, onRequest: answer, logger: silentLogger });
  const peers: UnreadPeer[] = [];
  try {
    const modest = callUnread(server.port, 20);
    peers.push(modest);
    await until('answers to the modest client', () => modest.answered() === 20);
    const each = 250;
    const greedy = Array.from({ length: Math.ceil(maxUnread / each) + 1 }, () => callUnread(server.port, each));
    peers.push(...greedy);
    const calls = 20 + greedy.length * each;
    await until('all answers', () => sum(peers, 'answered') === calls, 20_000);
    await until('resets', () => sum(greedy, 'reset') >= calls - maxUnread, 20_000);
    assert.is(sum(peers, 'reset'), calls - maxUnread);
    assert.is(modest.reset(), 0);
    // They are read after all.
    modest.session.settings({ initialWindowSize: 65_535 });
    await until('the end of the modest calls', () => modest.reset() === 20);
    assert.equal(
      modest.streams.map((stream) => stream.rstCode),
      Array(20).fill(0),
    );
  } finally {
    for (const { session } of peers) session.destroy();
    await server.drain('end of the test', 100);
  }
});

const valid = toBinary(
  PublishRequestSchema,
  create(PublishRequestSchema, { batch: makeBatch(createRandom(5), 1), attempt: 1 }),
);

for (const [what, body] of [
  ['accepted', valid],
  ['refused', Buffer.from('no message')],
] as const) {
  test(`a customer with many connections does not end the unread calls of another one at the same address (${what})`, async () => {
    const publish = (key: string): OutgoingHttpHeaders => ({
      ':method': 'POST',
      ':path': '/sluice.ingest.v1.IngestService/Publish',
      'content-type': 'application/proto',
      authorization: `Bearer ${key}`,
    });
    await withGateway({ newConnectionsPerAddress: 0 }, async ({ port, key, nats }) => {
      const other = await addTenant(nats.nc, { tenant: 'other' });
      const peers: UnreadPeer[] = [];
      try {
        // More on its one connection than the greedy one has on each of many.
        const modest = callUnread(port, 100, publish(other.key), body);
        peers.push(modest);
        await until('answers to the modest client', () => modest.answered() === 100);
        const greedy = Array.from({ length: 60 }, () => callUnread(port, 45, publish(key), body));
        peers.push(...greedy);
        await until('resets', () => sum(peers, 'reset') >= 100 + 60 * 45 - maxUnread, 20_000);
        assert.is(modest.reset(), 0);
      } finally {
        for (const { session } of peers) session.destroy();
      }
    });
  });
}

test.run();

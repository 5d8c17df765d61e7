/**
 * The load generator's gRPC against a small HTTP/2 server that answers as PublishStream does, and misbehaves on demand.
 */
import type { ServerHttp2Stream } from 'node:http2';
import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  type PublishStreamRequest,
  PublishStreamRequestSchema,
  PublishStreamResponseSchema,
} from '#gen/sluice/ingest/v1/ingest_pb.js';
import type { Generator } from './generator.js';
import { FrameReader } from './grpc-answers.js';
import { prepare } from './payload.js';
import { sendOverStreams } from './send-streams.js';
import { drive } from './testing/drive.js';
import { framed, remember, withHttp2Server } from './testing/http2-server.js';

type Answer = MessageInitShape<typeof PublishStreamResponseSchema>;
type Reply = (answer: Answer) => void;
type Handle = (request: PublishStreamRequest, reply: Reply, stream: ServerHttp2Stream) => void;

interface Seen {
  readonly batches: Map<string, PublishStreamRequest[]>;
  readonly generator: Generator;
}

/** Sends until so many batches are acknowledged, to a server that takes each request's message and lets `handle` answer it. */
async function generate(handle: Handle, until: number, key = 'good'): Promise<Seen> {
  const batches: Seen['batches'] = new Map();
  const take = (stream: ServerHttp2Stream, authorization: string | undefined): void => {
    if (authorization !== 'Bearer good') {
      stream.respond({ ':status': 200, 'grpc-status': '16', 'grpc-message': 'no such key' }, { endStream: true });
      return;
    }
    stream.respond({ ':status': 200, 'content-type': 'application/grpc+proto' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
    stream.on('end', () => stream.end());
    const reply: Reply = (answer) => {
      const message = toBinary(PublishStreamResponseSchema, create(PublishStreamResponseSchema, answer));
      if (!stream.destroyed) stream.write(framed(message));
    };
    const frames = new FrameReader();
    stream.on('data', (chunk: Buffer) =>
      frames.push(chunk, (message) => {
        const request = fromBinary(PublishStreamRequestSchema, message);
        remember(batches, request);
        handle(request, reply, stream);
      }),
    );
  };
  return withHttp2Server(
    1024 * 1024,
    (stream, headers) => take(stream, headers.authorization),
    async ({ url }) => {
      const generator = await drive({
        messages: [prepare({ target: 'gateway', events: 50, seed: 9, tenant: 't' })],
        batches: until,
        open: (events) => sendOverStreams({ url, key, connections: 2, streams: 2 }, events),
      });
      return { batches, generator };
    },
  );
}

const accepted = (request: PublishStreamRequest): Answer => ({
  message: { case: 'accepted', value: { batchId: request.batchId, accepted: request.batch?.events.length ?? 0 } },
});

test('batches go over several streams and every one is acknowledged once', async () => {
  const streams = new Set<ServerHttp2Stream>();
  const handle = (request: PublishStreamRequest, reply: Reply, stream: ServerHttp2Stream) => {
    streams.add(stream);
    reply(accepted(request));
  };
  const { generator, batches } = await generate(handle, 200);
  assert.is(generator.error, undefined);
  assert.is(streams.size, 4);
  assert.is(generator.total.batches, batches.size);
  assert.is(generator.total.acked, batches.size * 50);
  assert.is(generator.total.resends, 0);
  const ids = [...batches.values()].flatMap((requests) =>
    requests.flatMap((request) => request.batch?.events.map((event) => event.eventId) ?? []),
  );
  assert.is(new Set(ids).size, generator.total.acked);
});

test('a failed batch comes again unchanged but for its attempt', async () => {
  let n = 0;
  const handle = (request: PublishStreamRequest, reply: Reply) => {
    if (request.attempt === 1 && n++ % 5 === 0) {
      const retryAfter = { seconds: 0n, nanos: 5_000_000 };
      reply({ message: { case: 'failed', value: { batchId: request.batchId, code: 8, message: 'full', retryAfter } } });
    } else {
      reply(accepted(request));
    }
  };
  const { generator, batches } = await generate(handle, 100);
  assert.is(generator.error, undefined);
  assert.is(generator.total.acked, batches.size * 50);
  const twice = [...batches.values()].filter((requests) => requests.length > 1);
  assert.ok(twice.length >= 10);
  assert.is(generator.total.resends, twice.length);
  for (const [first, second] of twice) {
    assert.equal([first?.attempt, second?.attempt], [1, 2]);
    assert.equal(second?.batch, first?.batch);
  }
});

test('batches in flight on a lost connection are sent again on a new one', async () => {
  let n = 0;
  const handle = (request: PublishStreamRequest, reply: Reply, stream: ServerHttp2Stream) => {
    if (++n === 60 || n === 130) setImmediate(() => stream.session?.destroy());
    else reply(accepted(request));
  };
  const { generator, batches } = await generate(handle, 200);
  assert.is(generator.error, undefined);
  assert.ok(generator.total.resends >= 2);
  assert.is(generator.total.batches, batches.size);
});

test('a draining gateway is left for a new connection without losing a batch', async () => {
  let n = 0;
  const opened = new Set<ServerHttp2Stream>();
  const handle = (request: PublishStreamRequest, reply: Reply, stream: ServerHttp2Stream) => {
    opened.add(stream);
    if (++n === 50) reply({ message: { case: 'draining', value: { reason: 'age' } } });
    reply(accepted(request));
  };
  const { generator, batches } = await generate(handle, 200);
  assert.is(generator.error, undefined);
  assert.is(generator.total.batches, batches.size);
  assert.is(generator.total.resends, 0);
  assert.is(opened.size, 6, 'two streams of one connection were replaced');
});

test('a key that is refused ends the run and says so', async () => {
  const { generator } = await generate(() => undefined, 1, 'bad');
  assert.match(generator.error?.message ?? '', /gRPC status 16, no such key/);
});

test.run();

/**
 * The load generator's gRPC against a small HTTP/2 server that answers as PublishStream does, and misbehaves on demand.
 */
import { createServer, type Http2Server, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import { create, fromBinary, type MessageInitShape, toBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  type PublishStreamRequest,
  PublishStreamRequestSchema,
  PublishStreamResponseSchema,
} from '#gen/sluice/ingest/v1/ingest_pb.js';
import { createGenerator, type Generator } from './generator.js';
import { FrameReader } from './grpc-answers.js';
import { closedLoop } from './pace.js';
import { prepare } from './payload.js';
import { sendOverGrpc } from './send-grpc.js';

type Answer = MessageInitShape<typeof PublishStreamResponseSchema>;
type Reply = (answer: Answer) => void;

interface Sink {
  readonly url: string;
  readonly batches: Map<string, PublishStreamRequest[]>;
  readonly sessions: Set<ServerHttp2Session>;
}

/** A server that takes each request's message and lets `handle` answer it. */
async function withSink(
  handle: (request: PublishStreamRequest, reply: Reply, stream: ServerHttp2Stream) => void,
  use: (sink: Sink) => Promise<void>,
): Promise<void> {
  const batches: Sink['batches'] = new Map();
  const sessions = new Set<ServerHttp2Session>();
  const server: Http2Server = createServer({ settings: { initialWindowSize: 1024 * 1024 } });
  server.on('session', (session) => {
    sessions.add(session);
    session.on('close', () => sessions.delete(session));
  });
  server.on('stream', (stream, headers) => {
    if (headers.authorization !== 'Bearer good') {
      stream.respond({ ':status': 200, 'grpc-status': '16', 'grpc-message': 'no such key' }, { endStream: true });
      return;
    }
    stream.on('error', () => undefined);
    stream.respond({ ':status': 200, 'content-type': 'application/grpc+proto' }, { waitForTrailers: true });
    stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }));
    stream.on('end', () => stream.end());
    const reply: Reply = (answer) => {
      const message = toBinary(PublishStreamResponseSchema, create(PublishStreamResponseSchema, answer));
      const head = Buffer.alloc(5);
      head.writeUInt32BE(message.length, 1);
      if (!stream.destroyed) stream.write(Buffer.concat([head, message]));
    };
    const frames = new FrameReader();
    stream.on('data', (chunk: Buffer) =>
      frames.push(chunk, (message) => {
        const request = fromBinary(PublishStreamRequestSchema, message);
        batches.set(request.batchId, [...(batches.get(request.batchId) ?? []), request]);
        handle(request, reply, stream);
      }),
    );
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  try {
    await use({ url: `http://127.0.0.1:${port}`, batches, sessions });
  } finally {
    for (const session of sessions) session.destroy();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  }
}

const accepted = (request: PublishStreamRequest): Answer => ({
  message: { case: 'accepted', value: { batchId: request.batchId, accepted: request.batch?.events.length ?? 0 } },
});

/** Sends until `enough` says so, then waits until nothing is in flight. */
async function generate(url: string, key: string, enough: (generator: Generator) => boolean): Promise<Generator> {
  const generator = createGenerator({
    messages: [prepare({ target: 'gateway', events: 50, seed: 9, tenant: 't' })],
    inFlight: 8,
    run: 7,
  });
  const sender = sendOverGrpc({ url, key, connections: 2, streams: 2 }, generator.events);
  generator.attach(sender);
  generator.pace(closedLoop());
  const until = Date.now() + 10_000;
  const turn = async () => {
    generator.tick();
    await new Promise((resolve) => setTimeout(resolve, 1));
    if (Date.now() > until) throw new Error(`still ${generator.inFlight} in flight: ${generator.lastReason}`);
  };
  try {
    while (!enough(generator) && generator.error === undefined) await turn();
    generator.pace(undefined);
    while (generator.inFlight > 0 && generator.error === undefined) await turn();
    return generator;
  } finally {
    await sender.close();
  }
}

test('batches go over several streams and every one is acknowledged once', async () => {
  const streams = new Set<ServerHttp2Stream>();
  const handle = (request: PublishStreamRequest, reply: Reply, stream: ServerHttp2Stream) => {
    streams.add(stream);
    reply(accepted(request));
  };
  await withSink(handle, async (sink) => {
    const generator = await generate(sink.url, 'good', (g) => g.total.batches >= 200);
    assert.is(generator.error, undefined);
    assert.is(streams.size, 4);
    assert.is(generator.total.batches, sink.batches.size);
    assert.is(generator.total.acked, sink.batches.size * 50);
    assert.is(generator.total.resends, 0);
    const ids = [...sink.batches.values()].flatMap((requests) =>
      requests.flatMap((request) => request.batch?.events.map((event) => event.eventId) ?? []),
    );
    assert.is(new Set(ids).size, generator.total.acked);
  });
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
  await withSink(handle, async (sink) => {
    const generator = await generate(sink.url, 'good', (g) => g.total.batches >= 100);
    assert.is(generator.error, undefined);
    assert.is(generator.total.acked, sink.batches.size * 50);
    const twice = [...sink.batches.values()].filter((requests) => requests.length > 1);
    assert.ok(twice.length >= 10);
    assert.is(generator.total.resends, twice.length);
    for (const [first, second] of twice) {
      assert.equal([first?.attempt, second?.attempt], [1, 2]);
      assert.equal(second?.batch, first?.batch);
    }
  });
});

test('batches in flight on a lost connection are sent again on a new one', async () => {
  let n = 0;
  const handle = (request: PublishStreamRequest, reply: Reply, stream: ServerHttp2Stream) => {
    if (++n === 60 || n === 130) setImmediate(() => stream.session?.destroy());
    else reply(accepted(request));
  };
  await withSink(handle, async (sink) => {
    const generator = await generate(sink.url, 'good', (g) => g.total.batches >= 200);
    assert.is(generator.error, undefined);
    assert.ok(generator.total.resends >= 2);
    assert.is(generator.total.batches, sink.batches.size);
  });
});

test('a draining gateway is left for a new connection without losing a batch', async () => {
  let n = 0;
  const opened = new Set<ServerHttp2Stream>();
  const handle = (request: PublishStreamRequest, reply: Reply, stream: ServerHttp2Stream) => {
    opened.add(stream);
    if (++n === 50) reply({ message: { case: 'draining', value: { reason: 'age' } } });
    reply(accepted(request));
  };
  await withSink(handle, async (sink) => {
    const generator = await generate(sink.url, 'good', (g) => g.total.batches >= 200);
    assert.is(generator.error, undefined);
    assert.is(generator.total.batches, sink.batches.size);
    assert.is(generator.total.resends, 0);
    assert.is(opened.size, 6, 'two streams of one connection were replaced');
  });
});

test('a key that is refused ends the run and says so', async () => {
  await withSink(
    () => undefined,
    async (sink) => {
      const generator = await generate(sink.url, 'bad', () => false);
      assert.match(generator.error?.message ?? '', /gRPC status 16, no such key/);
    },
  );
});

test.run();

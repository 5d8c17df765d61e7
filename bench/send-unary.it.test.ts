/** The load generator's unary calls against an HTTP/2 server that answers as each test asks. */
import type { ServerHttp2Stream } from 'node:http2';
import { create, fromBinary, toBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type PublishRequest, PublishRequestSchema, PublishResponseSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import type { Generator } from './generator.js';
import type { CallProtocol } from './h2-link.js';
import { prepare } from './payload.js';
import { sendUnary } from './send-unary.js';
import { drive } from './testing/drive.js';
import { framed, remember, withHttp2Server } from './testing/http2-server.js';
import { publish } from './unary-methods.js';

interface Seen {
  readonly requests: Map<string, PublishRequest[]>;
  readonly headers: Set<string>;
  opened: number;
}

/** `accept, but`: the message of success, and then another status than 0. */
type Decision = 'accept' | 'accept, but' | 'refuse' | 'stranger' | 'nothing';
type Handle = (request: PublishRequest, stream: ServerHttp2Stream) => Decision;

const connections = 3;

function answer(stream: ServerHttp2Stream, protocol: CallProtocol, decision: Decision, request: PublishRequest): void {
  if (decision === 'nothing' || stream.destroyed) return;
  const accepts = decision === 'accept' || decision === 'accept, but';
  if (!accepts && protocol === 'grpc') {
    const [status, message] = decision === 'stranger' ? [16, 'who are you?'] : [8, 'come back'];
    // Headers that end the call: gRPC's answer without a message.
    const grpc = { 'content-type': 'application/grpc', 'grpc-status': status, 'grpc-message': message };
    stream.respond({ ':status': 200, ...grpc }, { endStream: true });
  } else if (!accepts) {
    stream.respond({ ':status': 429, 'content-type': 'application/json' });
    stream.end('{"code":"resource_exhausted","message":"come back"}');
  } else {
    const result = { batchId: request.batchId, accepted: request.batch?.events.length ?? 0 };
    const message = toBinary(PublishResponseSchema, create(PublishResponseSchema, { result }));
    stream.respond({ ':status': 200, 'content-type': 'application/grpc' }, { waitForTrailers: protocol === 'grpc' });
    const refusal = { 'grpc-status': '14', 'grpc-message': 'no log' };
    stream.on('wantTrailers', () => stream.sendTrailers(decision === 'accept' ? { 'grpc-status': '0' } : refusal));
    stream.end(protocol === 'grpc' ? framed(message) : message);
  }
}

async function generate(
  protocol: CallProtocol,
  events: number,
  batches: number,
  handle: Handle,
): Promise<{ seen: Seen; generator: Generator }> {
  const seen: Seen = { requests: new Map(), headers: new Set(), opened: 0 };
  const names = [':method', ':path', 'content-type', 'authorization', 'te'];
  return withHttp2Server(
    256 * 1024,
    (stream, headers) => {
      seen.headers.add(names.map((name) => headers[name]).join(' '));
      const chunks: Buffer[] = [];
      stream.on('data', (chunk: Buffer) => chunks.push(chunk));
      stream.on('end', () => {
        const request = fromBinary(PublishRequestSchema, Buffer.concat(chunks).subarray(protocol === 'grpc' ? 5 : 0));
        remember(seen.requests, request);
        answer(stream, protocol, handle(request, stream), request);
      });
    },
    async (server) => {
      const target = protocol === 'grpc' ? 'gateway' : 'connect';
      const generator = await drive({
        messages: [prepare({ target, events, seed: 9, tenant: 't' })],
        batches,
        open: (to) => sendUnary({ url: server.url, key: 'good', protocol, connections }, publish, to),
      });
      seen.opened = server.opened;
      return { seen, generator };
    },
  );
}

for (const protocol of ['grpc', 'connect'] as const) {
  for (const events of [1, 300]) {
    test(`${protocol}: each call of ${events} events arrives whole, with the same headers, and is counted once`, async () => {
      const { seen, generator } = await generate(protocol, events, 200, () => 'accept');
      assert.is(generator.error, undefined);
      assert.is(generator.total.batches, seen.requests.size);
      assert.is(generator.total.acked, seen.requests.size * events);
      assert.is(generator.total.resends, 0);
      const ids = [...seen.requests.values()].flatMap((requests) => requests[0]?.batch?.events.map((e) => e.eventId));
      assert.is(new Set(ids).size, generator.total.acked);
      const path = '/sluice.ingest.v1.IngestService/Publish';
      const [type, te] = protocol === 'grpc' ? ['application/grpc+proto', 'trailers'] : ['application/proto', ''];
      assert.equal([...seen.headers], [`POST ${path} ${type} Bearer good ${te}`]);
      assert.is(seen.opened, connections);
    });
  }
}

test('a call that was not accepted is made again under its name with the next attempt', async () => {
  let n = 0;
  const handle: Handle = (request) => (request.attempt === 1 && n++ % 10 === 0 ? 'refuse' : 'accept');
  const { seen, generator } = await generate('connect', 5, 100, handle);
  assert.match(generator.lastReason ?? '', /resource_exhausted.*come back/);
  assert.is(generator.total.acked, seen.requests.size * 5);
  const twice = [...seen.requests.values()].filter((requests) => requests.length > 1);
  assert.ok(twice.length >= 5);
  assert.is(generator.total.resends, twice.length);
  for (const [first, second] of twice) {
    assert.equal([first?.attempt, second?.attempt], [1, 2]);
    assert.equal(second?.batch, first?.batch);
  }
});

test('over gRPC a call counts only with status 0; another status is reported, also behind a message', async () => {
  for (const [decision, told] of [
    ['refuse', /gRPC status 8 come back/],
    ['accept, but', /gRPC status 14 no log/],
  ] as const) {
    let n = 0;
    const handle: Handle = (request) => (request.attempt === 1 && n++ % 10 === 0 ? decision : 'accept');
    const { seen, generator } = await generate('grpc', 5, 100, handle);
    assert.match(generator.lastReason ?? '', told);
    assert.is(generator.total.batches, seen.requests.size);
    const twice = [...seen.requests.values()].filter((requests) => requests.length > 1);
    assert.ok(twice.length >= 5);
    assert.is(generator.total.resends, twice.length);
  }
});

test('a key that is not known ends the run', async () => {
  const { generator } = await generate('grpc', 5, 100, () => 'stranger');
  assert.match(String(generator.error), /Publish was refused: gRPC status 16 who are you\?/);
  assert.is(generator.total.batches, 0);
});

test('calls on a lost connection are made again on a new one; one that is leaving is left without loss', async () => {
  let n = 0;
  const handle: Handle = (_, stream) => {
    n++;
    if (n === 60) {
      setImmediate(() => stream.session?.destroy());
      return 'nothing';
    }
    if (n === 120) stream.session?.goaway();
    return 'accept';
  };
  const { seen, generator } = await generate('grpc', 5, 200, handle);
  assert.is(generator.error, undefined);
  assert.is(generator.total.batches, seen.requests.size);
  assert.ok(generator.total.resends >= 1);
  assert.is(seen.opened, connections + 2);
});

test.run();

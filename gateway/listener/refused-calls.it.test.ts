/** Calls that are refused for lack of a key or of a place, and probes: how many a connection may make. */
import { type ClientHttp2Session, constants, type OutgoingHttpHeaders } from 'node:http2';
import { connect } from 'node:net';
import { create, toBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { PublishRequestSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { createRandom, makeBatch } from '../../lib/testing/batches.js';
import { until } from '../../lib/testing/until.js';
import { bareCall, withSession } from '../testing/bare-call.js';
import { frame, framesOf, frameType, header, preface } from '../testing/raw-http2.js';
import { onBothPaths, withGateway } from '../testing/running-gateway.js';
import { createWatchedPeer } from '../testing/watched-peer.js';

const ingest = '/sluice.ingest.v1.IngestService/';
const empty = Buffer.alloc(5);
const wrong = (n: number): string => `Bearer slk_${String(n).padStart(12, '0')}_${'w'.repeat(32)}`;

const grpc = (path: string, authorization?: string): OutgoingHttpHeaders => ({
  ':path': path,
  'content-type': 'application/grpc',
  te: 'trailers',
  ...(authorization === undefined ? {} : { authorization }),
});
const kinds = [
  (n: number) => grpc(`${ingest}Publish`, wrong(n)),
  () => grpc(`${ingest}PublishStream`),
  (n: number) => grpc(`${ingest}GetLimits`, wrong(n)),
  () => grpc('/grpc.reflection.v1.ServerReflection/ServerReflectionInfo'),
  () => ({ ':path': '/v1/events', authorization: 'Bearer wrong' }),
  () => ({ ':path': '/nothing/here' }),
];
const refusedCall = async (session: ClientHttp2Session, n: number): Promise<string> => {
  const make = kinds[n % kinds.length] as (n: number) => OutgoingHttpHeaders;
  const { headers, trailers } = await bareCall(session, { headers: make(n), pieces: [empty] });
  return String(trailers['grpc-status'] ?? headers['grpc-status'] ?? headers[':status']);
};

/** Calls in writes of a hundred, which one read of the gateway may hold. */
async function flood(port: number, count: number, headers: (n: number) => Readonly<Record<string, string>>) {
  const calls = Array.from({ length: count }, (_, n) => {
    const own = headers(n);
    const scheme = own[':method'] === 'CONNECT' ? {} : { ':scheme': 'http' };
    const block = Object.entries({ ':method': 'POST', ...scheme, ':authority': 'a', ...own });
    const head = Buffer.concat(block.map(([name, value]) => header(name, value)));
    return frame(frameType.headers, 5, 2 * n + 1, head);
  });
  const socket = connect(port, '127.0.0.1');
  const chunks: Buffer[] = [];
  let closed = false;
  socket.on('error', () => {});
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  socket.on('close', () => {
    closed = true;
  });
  socket.write(Buffer.concat([preface, frame(frameType.settings, 0, 0)]));
  await until('settings', () => chunks.length > 0);
  for (let at = 0; at < count && !closed; at += 100) {
    socket.write(Buffer.concat(calls.slice(at, at + 100)));
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
  await until('the connection ends', () => closed, 3_000);
  const frames = framesOf(Buffer.concat(chunks));
  return {
    answered: new Set(frames.filter(({ type }) => type === frameType.headers).map(({ stream }) => stream)).size,
    goAway: frames.filter(({ type }) => type === frameType.goaway).map(({ payload }) => payload.readUInt32BE(4)),
  };
}

onBothPaths(test, '256 refusals are answered, and then the connection is asked to calm down', async (withGateway) => {
  await withGateway({ newConnectionsPerAddress: 0, corsOrigins: ['*'] }, async ({ port }) => {
    const attacks: ((n: number) => Record<string, string>)[] = [
      (n) => grpc(`${ingest}Publish`, wrong(n)) as Record<string, string>,
      (n) => grpc(`${ingest}PublishStream`, wrong(n)) as Record<string, string>,
      () => grpc(`${ingest}GetLimits`) as Record<string, string>,
      () => ({ ':path': '/nothing/here' }),
      () => ({ ':method': 'GET', ':path': '/readyz' }),
      () => ({ ':method': 'GET', ':path': '/healthz' }),
      () => ({ ':method': 'CONNECT' }),
      () => ({ ':path': '/v1/events', expect: 'the-unexpected' }),
      () => ({
        ':method': 'OPTIONS',
        ':path': '/v1/events',
        origin: 'https://shop.example',
        'access-control-request-method': 'POST',
      }),
    ];
    for (const [i, attack] of attacks.entries()) {
      // One read may hold 900 of them, where the gateway stood still.
      const { answered, goAway } = await flood(port, 2_000, attack);
      assert.equal(goAway, [constants.NGHTTP2_ENHANCE_YOUR_CALM], String(i));
      assert.ok(answered < 1_500, `${answered} answered of attack ${i}`);
    }
  });
});

onBothPaths(test, 'Watch calls without a place end the connection, too', async (withGateway) => {
  await withGateway({}, async ({ port }) => {
    const watch = () => grpc('/grpc.health.v1.Health/Watch') as Record<string, string>;
    const { goAway } = await flood(port, 400, watch);
    assert.equal(goAway, [constants.NGHTTP2_ENHANCE_YOUR_CALM]);
  });
});

onBothPaths(test, '200 refusals in a row say what is wrong, and the connection serves on', async (withGateway) => {
  await withGateway({}, async ({ url, headers }) => {
    await withSession(url, async (session) => {
      const told = new Set<string>();
      for (let n = 0; n < 200; n++) told.add(await refusedCall(session, n));
      assert.equal([...told].sort(), ['16', '401', '404']);
      const { trailers } = await bareCall(session, {
        headers: grpc(`${ingest}GetLimits`, headers.authorization),
        pieces: [empty],
      });
      assert.is(trailers['grpc-status'], '0');
    });
  });
});

const request = toBinary(
  PublishRequestSchema,
  create(PublishRequestSchema, { batch: makeBatch(createRandom(3), 1), attempt: 1 }),
);
const message = Buffer.concat([Buffer.from([0, 0, 0, request.length >> 8, request.length & 0xff]), request]);

onBothPaths(
  test,
  'one client without a key does not end a connection that others have valid calls on',
  async (withGateway) => {
    await withGateway({}, async ({ url, headers }) => {
      await withSession(url, async (session) => {
        const { authorization } = headers;
        const publish = { headers: grpc(`${ingest}Publish`, authorization), pieces: [message] };
        const limits = { headers: grpc(`${ingest}GetLimits`, authorization), pieces: [empty] };
        for (let n = 0; n < 300; n++) {
          const [{ trailers }] = await Promise.all([
            bareCall(session, n % 2 === 0 ? publish : limits),
            refusedCall(session, n),
          ]);
          assert.is(trailers['grpc-status'], '0');
        }
      });
    });
  },
);

onBothPaths(
  test,
  'health checks ask for no key, and have no such limit; probes may come in some hundreds',
  async (withGateway) => {
    await withGateway({}, async ({ url }) => {
      await withSession(url, async (session) => {
        const check = grpc('/grpc.health.v1.Health/Check');
        for (let n = 0; n < 300; n++) {
          const { trailers } = await bareCall(session, { headers: check, pieces: [empty] });
          assert.is(trailers['grpc-status'], '0');
          if (n >= 200) continue;
          const probe = await bareCall(session, { headers: { ':path': '/healthz', ':method': 'GET' }, pieces: [] });
          assert.is(probe.headers[':status'], 200);
        }
      });
    });
  },
);

onBothPaths(
  test,
  'a trusted proxy keeps its connection, however many of its clients have no key',
  async (withGateway) => {
    await withGateway({ trustedProxies: ['127.0.0.1'] }, async ({ url }) => {
      await withSession(url, async (session) => {
        for (let n = 0; n < 600; n++) await refusedCall(session, n);
      });
    });
  },
);

onBothPaths(test, 'on HTTP/1.1 256 refusals are answered, then 429, and the connection ends', async (withGateway) => {
  await withGateway({}, async ({ port }) => {
    const socket = connect(port, '127.0.0.1');
    const { text, closed } = createWatchedPeer(socket);
    const statuses = (): string[] => [...text().matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status as string);
    for (let n = 0; n < 500 && !closed(); n++) {
      socket.write('POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer wrong\r\ncontent-length: 0\r\n\r\n');
      await until('answered', () => statuses().length > n || closed());
    }
    await until('closed', closed);
    const all = statuses();
    assert.ok(all.length > 256 && all.length < 350, String(all.length));
    assert.equal(new Set(all.slice(0, -1)), new Set(['401']));
    assert.is(all.at(-1), '429');
    assert.match(text(), 'too_many_refusals');
  });
});

/** Calls with a wrong key, on connection after connection, until `over`. */
async function hammer(url: string, n: number, over: () => boolean): Promise<void> {
  while (!over()) {
    await withSession(url, async (session) => {
      while (!over() && !session.destroyed && !session.closed) {
        await bareCall(session, { headers: grpc(`${ingest}GetLimits`, wrong(n)), pieces: [empty] }, 1_000).catch(
          () => {},
        );
      }
    });
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

onBothPaths(
  test,
  'where many clients of one address have a wrong key, those with a valid one keep their connections',
  async (withGateway) => {
    // Connections that are ending must not take the places of those that stay.
    await withGateway({ maxConnectionsPerAddress: 1_000 }, async ({ url, headers }) => {
      const limits = { headers: grpc(`${ingest}GetLimits`, headers.authorization), pieces: [empty] };
      const status = async (session: ClientHttp2Session): Promise<string> =>
        String((await bareCall(session, limits)).trailers['grpc-status']);
      await withSession(url, async (first) => {
        await withSession(url, async (second) => {
          assert.equal([await status(first), await status(second)], ['0', '0']);
          const end = Date.now() + 3_000;
          const over = (): boolean => Date.now() > end;
          const hammers = Promise.all(Array.from({ length: 150 }, (_, n) => hammer(url, n, over)));
          for (let calls = 0; !over(); calls++) {
            assert.is(await status(first), '0', `call ${calls}`);
            await new Promise((resolve) => setTimeout(resolve, 20));
          }
          await hammers;
          assert.is(await status(second), '0', 'a connection that was idle meanwhile');
          // A wrong key of its own costs it more, and it has no more than others.
          let refusals = 0;
          const since = Date.now();
          while (!first.closed && !first.destroyed && refusals < 1_000) {
            await refusedCall(first, refusals++);
          }
          const max = 256 + ((Date.now() - since) / 1_000) * 10 + 10;
          assert.ok(refusals <= max, `${refusals} refused calls, and at most ${max}`);
        });
      });
    });
  },
);

test('an address has a limit for refused calls, too, so that many connections do not help', async () => {
  await withGateway({}, async ({ port }) => {
    const guess = (n: number) => grpc(`${ingest}Publish`, wrong(n)) as Record<string, string>;
    // Each of them stays within what a connection may.
    const ends = await Promise.allSettled(Array.from({ length: 8 }, () => flood(port, 200, guess)));
    const calmed = ends.filter((end) => end.status === 'fulfilled');
    assert.ok(calmed.length >= 4, `${calmed.length} of 8 have ended`);
  });
});

test.run();

import type { ClientHttp2Session, OutgoingHttpHeaders } from 'node:http2';
import { connect } from 'node:net';
import { create, toBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { PublishRequestSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { createRandom, makeBatch } from '../../lib/testing/batches.js';
import { until } from '../../lib/testing/until.js';
import { type BareAnswer, bareCall, withSession } from '../testing/bare-call.js';
import { onBothPaths, type RunningGateway } from '../testing/running-gateway.js';

const publishPath = '/sluice.ingest.v1.IngestService/Publish';
const timeoutMs = 300;
/** Every unit for 300 ms, and both encodings. */
const protocols: readonly (readonly [type: string, header: string, timeout: string])[] = [
  ['application/grpc', 'grpc-timeout', '300m'],
  ['application/grpc', 'grpc-timeout', '299500u'],
  ['application/grpc+json', 'grpc-timeout', '299500u'],
  ['application/grpc-web', 'grpc-timeout', '299999u'],
  ['application/grpc-web+proto', 'grpc-timeout', '300000u'],
  ['application/proto', 'connect-timeout-ms', '300'],
  ['application/json', 'connect-timeout-ms', '300'],
];

const open = async (
  session: ClientHttp2Session,
  headers: OutgoingHttpHeaders,
  pieces: readonly Uint8Array[] = [],
): Promise<BareAnswer & { readonly ms: number }> => {
  const from = performance.now();
  const answer = await bareCall(session, { headers: { ':path': publishPath, ...headers }, pieces, open: true }, 5_000);
  return { ...answer, ms: performance.now() - from };
};

const isLate = ({ headers, trailers, body, ms }: BareAnswer & { readonly ms: number }, name: string): void => {
  const text = body.toString('latin1');
  if (Number(headers[':status']) === 504)
    assert.match(text, /"code":"deadline_exceeded".*passed before the request was complete/);
  else assert.ok(trailers['grpc-status'] === '4' || text.includes('grpc-status: 4'), `${name}: ${text}`);
  assert.ok(ms > timeoutMs - 5 && ms < timeoutMs + 700, `${name}: answered after ${ms} ms`);
};

/** The head of an envelope, and a part of its message. */
const part = Buffer.from([0, 0, 0, 1, 0, 10, 20]);

onBothPaths(
  test,
  'a call that is not whole at its deadline is answered then, in every protocol',
  async (withGateway) => {
    await withGateway({}, async (running) => {
      await withSession(running.url, async (session) => {
        await Promise.all(
          protocols.flatMap(([type, header, timeout]) =>
            [[], [part]].map(async (pieces) => {
              const answer = await open(
                session,
                { ...running.headers, 'content-type': type, [header]: timeout },
                pieces,
              );
              isLate(answer, `${type} ${timeout}`);
            }),
          ),
        );
        // Calls of other methods, too.
        const from = performance.now();
        const { trailers } = await bareCall(session, {
          headers: {
            ':path': '/sluice.ingest.v1.IngestService/GetLimits',
            'content-type': 'application/grpc',
            'grpc-timeout': '300000u',
            ...running.headers,
          },
          pieces: [],
          open: true,
        });
        assert.is(trailers['grpc-status'], '4');
        assert.ok(performance.now() - from < timeoutMs + 700);
        await until('no stream is left', () => running.gateway.requests === 0, 1_000);
      });
    });
  },
);

/** Takes all seats of the gate, for two seconds. */
async function fillGate({ url, gateway, headers }: RunningGateway, use: () => Promise<void>): Promise<void> {
  await withSession(url, async (session) => {
    for (let i = 0; i < 96; i++) {
      const type = { ':path': publishPath, 'content-type': 'application/grpc' };
      const stream = session.request({ ':method': 'POST', ...type, ...headers }, { endStream: false });
      stream.on('error', () => {});
      stream.write(part);
    }
    await until('all seats are taken', () => gateway.requests === 96);
    await use();
  });
}

onBothPaths(test, 'a call that waits for its seat is answered at its deadline, too', async (withGateway) => {
  await withGateway({}, async (running) => {
    await fillGate(running, async () => {
      await withSession(running.url, async (session) => {
        await Promise.all(
          protocols.map(async ([type, header, timeout]) => {
            const headers = { ...running.headers, 'content-type': type, [header]: timeout };
            isLate(await open(session, headers), `${type} ${timeout}`);
          }),
        );
      });
    });
  });
});

onBothPaths(
  test,
  'who has no key waits for no seat, and an empty request that waited is answered',
  async (withGateway) => {
    await withGateway({}, async (running) => {
      await fillGate(running, async () => {
        await withSession(running.url, async (session) => {
          const headers = { 'content-type': 'application/grpc', authorization: 'Bearer wrong' };
          const { trailers, ms } = await open(session, headers);
          assert.is(trailers['grpc-status'], '16');
          assert.ok(ms < 1_000, `refused after ${ms} ms`);
          const empty = await bareCall(session, {
            headers: { ':path': publishPath, 'content-type': 'application/grpc', ...running.headers },
            pieces: [],
          });
          assert.is(empty.trailers['grpc-status'], '3');
        });
      });
    });
  },
);

onBothPaths(test, 'an unfinished call on HTTP/1.1 is answered at its deadline', async (withGateway) => {
  await withGateway({}, async ({ port, headers }) => {
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => {});
    const from = performance.now();
    socket.write(
      `POST ${publishPath} HTTP/1.1\r\nhost: x\r\ncontent-type: application/proto\r\nconnect-timeout-ms: 300\r\n` +
        `authorization: ${headers.authorization}\r\ncontent-length: 1000\r\n\r\nabc`,
    );
    let text = '';
    socket.on('data', (chunk) => {
      text += String(chunk);
    });
    await until('answered', () => text.includes('deadline_exceeded'), 2_000);
    assert.match(text, /^HTTP\/1.1 504/);
    assert.ok(performance.now() - from > timeoutMs - 5);
    socket.destroy();
  });
});

onBothPaths(test, 'a call that is whole in time is accepted, in every unit of its deadline', async (withGateway) => {
  await withGateway({}, async ({ url, headers }) => {
    const bytes = toBinary(
      PublishRequestSchema,
      create(PublishRequestSchema, { batch: makeBatch(createRandom(5), 2) }),
    );
    const head = Buffer.alloc(5);
    head.writeUInt32BE(bytes.length, 1);
    await withSession(url, async (session) => {
      for (const timeout of ['1H', '2M', '10S', '10000m', '9997299u', '99999999u', '99999999H']) {
        const { trailers } = await bareCall(session, {
          headers: { ':path': publishPath, 'content-type': 'application/grpc', 'grpc-timeout': timeout, ...headers },
          pieces: [head, bytes],
        });
        assert.is(trailers['grpc-status'], '0', timeout);
      }
    });
  });
});

test.run();

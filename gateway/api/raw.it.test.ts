/** What a client other than ours may send: bytes of its own encoder, half requests, noise. */
import { randomBytes } from 'node:crypto';
import { connect as connectHttp2, constants } from 'node:http2';
import { connect } from 'node:net';
import { BinaryWriter } from '@bufbuild/protobuf/wire';
import { Client, credentials, Metadata, status } from '@grpc/grpc-js';
import { jetstreamManager } from '@nats-io/jetstream';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRandom } from '../../lib/testing/batches.js';
import { until } from '../../lib/testing/until.js';
import { onBothPaths, type RunningGateway } from '../testing/running-gateway.js';

const path = '/sluice.ingest.v1.IngestService/Publish';
const same = (bytes: Buffer): Buffer => bytes;

/** A gRPC client that neither encodes nor decodes. */
async function withGrpc<T>(
  { port, headers }: RunningGateway,
  use: (call: (request: Uint8Array) => Promise<Buffer>) => Promise<T>,
): Promise<T> {
  const client = new Client(`127.0.0.1:${port}`, credentials.createInsecure());
  const metadata = new Metadata();
  metadata.set('authorization', headers.authorization);
  try {
    return await use(
      (request) =>
        new Promise((resolve, reject) => {
          client.makeUnaryRequest(path, same, same, Buffer.from(request), metadata, (error, answer) => {
            if (error !== null) reject(error);
            else resolve(answer as Buffer);
          });
        }),
    );
  } finally {
    client.close();
  }
}

const codeOf = (call: Promise<unknown>): Promise<number> =>
  call.then(
    () => status.OK,
    (error: { code: number }) => error.code,
  );

/** An event whose fields are in no usual order, with fields that the contract does not know. */
function oddEvent(id: string): Uint8Array {
  return new BinaryWriter()
    .tag(700, 2)
    .string('from the future')
    .tag(2, 0)
    .int32(3)
    .tag(701, 1)
    .fixed64(7)
    .tag(3, 2)
    .bytes(new BinaryWriter().tag(2, 0).int32(5).tag(1, 0).int64(1_767_225_600).finish())
    .tag(1, 2)
    .string(id)
    .finish();
}

const batchOf = (...ids: string[]): Uint8Array => {
  const writer = new BinaryWriter();
  for (const id of ids) writer.tag(1, 2).bytes(oddEvent(id));
  return writer.finish();
};

async function lastPayloads(running: RunningGateway): Promise<Buffer[]> {
  const jsm = await jetstreamManager(running.nats.nc);
  const all: Buffer[] = [];
  for await (const { config, state } of jsm.streams.list()) {
    if (!config.name.startsWith('EV_')) continue;
    for (let seq = state.first_seq; seq <= state.last_seq && seq > 0; seq++) {
      const message = await jsm.streams.getMessage(config.name, { seq });
      if (message !== null) all.push(Buffer.from(message.data));
    }
  }
  return all;
}

onBothPaths(
  test,
  "unknown fields and the order of the client's bytes reach the log unchanged, also when the batch comes in parts",
  async (withGateway) => {
    await withGateway({}, async (running) => {
      await withGrpc(running, async (call) => {
        const whole = batchOf('a', 'b', 'c');
        const [first, second] = [batchOf('d'), batchOf('e', 'f')];
        // A request of another order, with a field that the contract does not know either.
        await call(
          new BinaryWriter()
            .tag(3, 0)
            .uint32(1)
            .tag(99, 2)
            .string('x')
            .tag(2, 2)
            .string('one')
            .tag(1, 2)
            .bytes(whole)
            .finish(),
        );
        await call(new BinaryWriter().tag(1, 2).bytes(first).tag(2, 2).string('two').tag(1, 2).bytes(second).finish());
        const payloads = await lastPayloads(running);
        for (const bytes of [whole, Buffer.concat([first, second])]) {
          assert.is(payloads.filter((payload) => payload.includes(Buffer.from(bytes))).length, 1);
        }
      });
    });
  },
);

onBothPaths(
  test,
  'whatever bytes a request holds, the answer is OK or INVALID_ARGUMENT, never an internal error',
  async (withGateway) => {
    await withGateway({}, async (running) => {
      const random = createRandom(11);
      const good = new BinaryWriter().tag(1, 2).bytes(batchOf('a', 'b')).tag(2, 2).string('id').finish();
      await withGrpc(running, async (call) => {
        const codes = new Map<number, number>();
        const calls: Promise<void>[] = [];
        for (let i = 0; i < 1_500; i++) {
          const bytes = Buffer.from(good);
          for (let flips = 1 + Math.floor(random() * 4); flips > 0; flips--) {
            bytes[Math.floor(random() * bytes.length)] = Math.floor(random() * 256);
          }
          const cut = random() < 0.3 ? bytes.subarray(0, Math.floor(random() * bytes.length)) : bytes;
          calls.push(
            codeOf(call(cut)).then((code) => {
              codes.set(code, (codes.get(code) ?? 0) + 1);
            }),
          );
          if (calls.length % 50 === 0) await Promise.all(calls);
        }
        await Promise.all(calls);
        assert.equal([...codes.keys()].sort(), [status.OK, status.INVALID_ARGUMENT], JSON.stringify([...codes]));
        assert.is(await codeOf(call(good)), status.OK);
      });
    });
  },
);

onBothPaths(test, 'noise, half requests and sudden ends on the port do not stop the gateway', async (withGateway) => {
  await withGateway({}, async (running) => {
    const random = createRandom(12);
    const preface = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';
    const settings = Buffer.from('000000040000000000', 'hex');
    const starts = [
      '',
      'P',
      'PRI',
      'PRI * HTTP/1.1\r\n\r\n',
      preface,
      Buffer.concat([Buffer.from(preface), settings]),
      'GET / HTTP/1.1\r\n',
      'POST /v1/events HTTP/1.1\r\ncontent-length: 100\r\ncontent-type: application/json\r\n\r\n{',
      `POST ${path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n`,
      `POST ${path} HTTP/1.0\r\n\r\n`,
      `GET ${path} HTTP/1.1\r\nhost: a b c\r\n\r\n`,
      'POST //// HTTP/1.1\r\nhost: [\r\n\r\n',
      `GET / HTTP/1.1\r\nx: ${'y'.repeat(40_000)}\r\n\r\n`,
      'CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n',
      'GET / HTTP/1.1\r\nhost: a\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n',
      '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
    ];
    const attack = (start: string | Buffer, reset: boolean): Promise<void> =>
      new Promise((resolve) => {
        const socket = connect(running.port, '127.0.0.1', () => {
          socket.write(start);
          if (random() < 0.7) socket.write(randomBytes(1 + Math.floor(random() * 2_000)));
          setTimeout(() => (reset ? socket.resetAndDestroy() : socket.destroy()), random() * 30);
        });
        socket.on('error', () => {});
        socket.on('close', () => resolve());
        socket.resume();
      });
    for (let round = 0; round < 8; round++) {
      await Promise.all(starts.map((start) => attack(start, random() < 0.5)));
    }
    const response = await fetch(`${running.url}/readyz`);
    assert.is(response.status, 200);
    await withGrpc(running, async (call) => {
      assert.is(await codeOf(call(new BinaryWriter().tag(1, 2).bytes(batchOf('a')).finish())), status.OK);
    });
  });
});

onBothPaths(test, 'a client that opens a call and goes away leaves nothing behind', async (withGateway) => {
  await withGateway({}, async (running) => {
    const session = connectHttp2(running.url);
    session.on('error', () => {});
    for (let i = 0; i < 50; i++) {
      const stream = session.request({
        ':method': 'POST',
        ':path': i % 2 === 0 ? path : '/sluice.ingest.v1.IngestService/PublishStream',
        'content-type': 'application/grpc',
        ...running.headers,
      });
      stream.on('error', () => {});
      stream.write(Buffer.from([0, 0, 0, 1, 0, 1, 2, 3]));
      if (i % 3 === 0) setTimeout(() => stream.close(constants.NGHTTP2_CANCEL), 20);
    }
    await until('the calls are open', () => running.gateway.requests >= 30);
    session.destroy();
    await until('the calls are closed', () => running.gateway.requests === 0);
    await until('the connection is closed', () => running.gateway.connections === 0);
  });
});

onBothPaths(test, 'past the bound of connections the idlest makes room', async (withGateway) => {
  await withGateway({ maxConnections: 3 }, async ({ port, url, gateway }) => {
    const open = () =>
      new Promise<{ socket: ReturnType<typeof connect>; closed: () => boolean }>((resolve) => {
        let closed = false;
        const socket = connect(port, '127.0.0.1', () => resolve({ socket, closed: () => closed }));
        socket.on('error', () => {});
        socket.on('close', () => {
          closed = true;
        });
      });
    const held = [await open(), await open(), await open()];
    await until('all are held', () => gateway.connections === 3);
    assert.is((await fetch(`${url}/healthz`)).status, 200);
    await until('one made room', () => held.filter(({ closed }) => closed()).length === 1);
    for (const { socket } of held) socket.destroy();
  });
});

onBothPaths(test, 'a far-away deadline is no deadline', async (withGateway) => {
  await withGateway({}, async ({ url, headers }) => {
    const response = await fetch(`${url}${path}`, {
      method: 'POST',
      headers: { ...headers, 'content-type': 'application/proto', 'connect-timeout-ms': '9999999999' },
      body: new BinaryWriter().tag(1, 2).bytes(batchOf('a')).finish(),
    });
    assert.is(response.status, 200);
  });
});

onBothPaths(test, 'grpc-js shows its user the words of an error as they are', async (withGateway) => {
  await withGateway({}, async (running) => {
    await withGrpc({ ...running, headers: { authorization: 'Bearer no' } }, async (call) => {
      const { details } = (await call(new Uint8Array(0)).catch((error: unknown) => error)) as { details: string };
      assert.match(details, /[,;] .*`sluice tenant list`|`sluice tenant list`.*[,;] /);
      assert.not.match(details, /%/);
    });
  });
});

test.run();

/**
 * A shard's own connection, against a server of the test's that cuts what it sends wherever it likes, and sends what a
 * real one would not. That it gets along with real ones is shown by pull-reader.it.test.ts.
 */
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { jetstreamManager } from '@nats-io/jetstream';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { silentLogger } from '../../lib/logger.js';
import { connectNats } from '../../lib/nats.js';
import { createRandom, integer } from '../../lib/testing/batches.js';
import { withNats } from '../../lib/testing/nats.js';
import { until } from '../../lib/testing/until.js';
import { type BufferPool, createBufferPool, type ReadBuffer } from './buffer-pool.js';
import { type NatsSocket, type NatsSocketOptions, openNatsSocket } from './nats-socket.js';

interface Message {
  readonly sequence: number;
  readonly delivery: number;
  readonly timeMs: number;
  readonly data: Uint8Array;
  readonly buffer: ReadBuffer | undefined;
}

interface Scene {
  readonly natsSocket: NatsSocket;
  readonly socket: Socket;
  readonly buffers: BufferPool;
  /** What the natsSocket has sent. */
  readonly heard: () => string;
  readonly messages: Message[];
  readonly statuses: string[];
  readonly ends: string[];
  /** Called with each message, before it is added. */
  onMessage: (message: Message) => void;
}

const greeting = (more: object | string = {}): string =>
  typeof more === 'string'
    ? `INFO ${more}\r\n`
    : `INFO ${JSON.stringify({ server_id: 'x', headers: true, max_payload: 1024, ...more })}\r\n`;

/** @param info what the server says of itself when it is dialled */
async function withNatsSocket(use: (scene: Scene) => Promise<void>, info: object | string = {}): Promise<void> {
  let socket: Socket | undefined;
  let heard = '';
  const server = createServer((accepted) => {
    socket = accepted;
    accepted.on('error', () => undefined);
    accepted.write(greeting(info));
    accepted.on('data', (chunk) => {
      heard += chunk.toString();
      if (chunk.toString().endsWith('PING\r\n')) accepted.write('PONG\r\n');
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const messages: Message[] = [];
  const statuses: string[] = [];
  const ends: string[] = [];
  const buffers = createBufferPool(64 * 1024 ** 2);
  const hooks = { onMessage: (_: Message): void => undefined };
  const nc: NatsSocketOptions['nc'] = {
    info: { ...JSON.parse(greeting().slice(5)) },
    getServer: () => `127.0.0.1:${port}`,
    publish: () => assert.unreachable(),
    subscribe: () => assert.unreachable() as never,
  };
  try {
    const natsSocket = await openNatsSocket({
      nc,
      name: 'test',
      inbox: '_INBOX.A',
      buffers,
      events: {
        message(message) {
          hooks.onMessage(message);
          messages.push(message);
        },
        status: (subject, code, description) => statuses.push(`${subject} ${code} ${description}`),
        ended: (why) => ends.push(why),
      },
    });
    try {
      await use(
        Object.assign(hooks, {
          natsSocket,
          socket: socket as Socket,
          buffers,
          heard: () => heard,
          messages,
          statuses,
          ends,
        }),
      );
    } finally {
      natsSocket.close();
    }
  } finally {
    socket?.destroy();
    server.close();
  }
}

const reply = (sequence: number): string => `$JS.ACK.EV_0.c.1.${sequence + 1000}.${sequence}.1764100000123456789.7`;

/** A message as the server frames it; every third with headers. */
function framed(sequence: number, data: Uint8Array): Buffer {
  const headers = sequence % 3 === 0 ? 'NATS/1.0\r\nA: b\r\n\r\n' : '';
  const sizes = headers === '' ? `${data.length}` : `${headers.length} ${headers.length + data.length}`;
  const line = `${headers === '' ? 'MSG' : 'HMSG'} ev.0.acme 1 ${reply(sequence)} ${sizes}\r\n${headers}`;
  return Buffer.concat([Buffer.from(line), data, Buffer.from('\r\n')]);
}

test('it says hello, subscribes, and publishes', async () => {
  await withNatsSocket(async ({ natsSocket, heard }) => {
    natsSocket.publish('$JS.API.X', '{"a":"é"}', '_INBOX.A.1');
    await until('heard', () => heard().endsWith('é"}\r\n'));
    assert.match(heard(), /^CONNECT \{.*"headers":true.*\}\r\nSUB _INBOX\.A\.\* 1\r\nPING\r\n/);
    assert.ok(heard().endsWith('PUB $JS.API.X _INBOX.A.1 10\r\n{"a":"é"}\r\n'));
  });
});

/** Of the n-th message: one is very large, every tenth large, every other one small. */
function sizeOf(n: number, random: () => number): number {
  if (n === 200) return 2_500_000;
  if (n % 10 === 0) return integer(random, 0, 300_000);
  return integer(random, 0, n % 2 === 0 ? 40 : 9_000);
}

function randomBytes(random: () => number, size: number): Buffer {
  const data = Buffer.alloc(size);
  for (let at = 0; at < size; at++) data[at] = (random() * 256) | 0;
  return data;
}

/** As a network may cut it: some pieces tiny, some large, some together. */
async function writeInPieces(socket: Socket, all: Buffer, random: () => number): Promise<void> {
  for (let at = 0; at < all.length; ) {
    const size = random() < 0.3 ? integer(random, 1, 60) : integer(random, 1, 200_000);
    socket.write(all.subarray(at, at + size));
    at += size;
    if (random() < 0.5) await new Promise((resolve) => setImmediate(resolve));
  }
}

test('messages come whole wherever the network cuts them, whatever is held meanwhile', async () => {
  await withNatsSocket(async (scene) => {
    const random = createRandom(7);
    const sent: Buffer[] = [];
    let held: { message: Message; copy: Buffer }[] = [];
    scene.onMessage = (message) => {
      const buffer = message.buffer as ReadBuffer;
      scene.buffers.hold(buffer);
      held.push({ message, copy: Buffer.from(message.data) });
      // Some are held for long, and what is held must not change.
      if (random() < 0.5) {
        const { message: gone, copy } = held.splice(integer(random, 0, held.length - 1), 1)[0]!;
        assert.ok(copy.equals(gone.data));
        scene.buffers.letGo(gone.buffer as ReadBuffer, true);
      }
    };
    const stream: Buffer[] = [];
    for (let i = 1; i <= 400; i++) {
      const data = randomBytes(random, sizeOf(i, random));
      sent.push(data);
      stream.push(framed(i, data));
      if (i % 50 === 0) stream.push(Buffer.from('PING\r\n'));
    }
    await writeInPieces(scene.socket, Buffer.concat(stream), random);
    await until('all came', () => scene.messages.length === sent.length || scene.ends.length > 0);
    assert.equal(scene.ends, []);
    scene.messages.forEach(({ sequence, delivery, timeMs, data }, i) => {
      assert.equal([sequence, delivery, timeMs], [i + 1001, i + 1, 1764100000123]);
      assert.is(data.length, sent[i]!.length);
    });
    for (const { message, copy } of held) {
      assert.ok(copy.equals(message.data));
      assert.ok(copy.equals(sent[message.delivery - 1]!));
      scene.buffers.letGo(message.buffer as ReadBuffer, true);
    }
    held = [];
    assert.ok(scene.buffers.free >= 2, `${scene.buffers.free} buffers came back`);
    // The last one may still be on its way when the last message has come.
    await until('an answer to each PING', () => scene.heard().match(/PONG\r\n/g)?.length === 8);
  });
});

test("a word of the server on a pull is reported with its code and the pull's subject", async () => {
  await withNatsSocket(async ({ socket, statuses, messages }) => {
    const headers = 'NATS/1.0 409 Message Size Exceeds MaxBytes\r\nNats-Pending-Messages: 1\r\n\r\n';
    socket.write(`HMSG _INBOX.A.5 1 ${headers.length} ${headers.length}\r\n${headers}\r\n`);
    const beat = 'NATS/1.0 100 Idle Heartbeat\r\n\r\n';
    socket.write(`HMSG _INBOX.A.6 1  ${beat.length} ${beat.length}\r\n${beat}\r\n`);
    await until('told', () => statuses.length === 2);
    assert.equal(statuses, ['_INBOX.A.5 409 Message Size Exceeds MaxBytes', '_INBOX.A.6 100 Idle Heartbeat']);
    assert.is(messages.length, 0);
  });
});

for (const [what, bytes, why] of [
  ['an error', "-ERR 'Stale Connection'\r\n", /Stale Connection/],
  ['another protocol', 'HTTP/1.1 400 Bad Request\r\n', /HTTP/],
  ['a message without a size', 'MSG ev.0.acme 1 x\r\n', /MSG ev/],
  ['a message that is too large to be one', `MSG ev.0.acme 1 ${reply(1)} 99999999999\r\n`, /99999999999/],
  ['headers larger than their message', `HMSG ev.0.acme 1 ${reply(1)} 12 3\r\n`, /HMSG/],
  ['a message that is no delivery', 'MSG ev.0.acme 1 no.reply.of.a.stream 1\r\nx\r\n', /no\.reply/],
  ['a line without an end, or one that is far too long', 'MSG '.repeat(80_000), /a line of more than/],
] as const) {
  test(`${what} ends it, once`, async () => {
    await withNatsSocket(async ({ socket, ends, messages }) => {
      socket.write(bytes);
      socket.write(framed(1, Buffer.from('late')));
      await until('ended', () => ends.length > 0);
      await new Promise((resolve) => setTimeout(resolve, 20));
      assert.is(ends.length, 1);
      assert.match(ends[0]!, why);
      assert.is(messages.length, 0);
    });
  });
}

test('a server that goes away ends it; one that wants TLS or a log-in that we have not is not gone on with', async () => {
  await withNatsSocket(async ({ socket, ends }) => {
    socket.destroy();
    await until('ended', () => ends.length > 0);
  });
  for (const [info, why] of [
    [{ tls_required: true }, /TLS or other credentials/],
    [{ auth_required: true }, /TLS or other credentials/],
    ['no JSON', /no JSON/],
  ] as const) {
    const error = await withNatsSocket(async () => undefined, info).then(
      () => undefined,
      (reason: Error) => reason,
    );
    assert.match(error?.message ?? '', why);
  }
});

test('a real server that asks for a password is read over our own connection too, and not over the library', async () => {
  await withNats(
    async ({ url }) => {
      const nc = await connectNats({ servers: `nats://sluice:s3cret@${url}`, name: 'test', logger: silentLogger });
      const messages: Message[] = [];
      const natsSocket = await openNatsSocket({
        nc,
        name: 'test',
        inbox: '_INBOX.A',
        buffers: createBufferPool(64 * 1024 ** 2),
        events: {
          message: (message) => messages.push(message),
          status: () => undefined,
          ended: () => undefined,
        },
      });
      const jsm = await jetstreamManager(nc);
      await jsm.streams.add({ name: 'S', subjects: ['s'] });
      await jsm.consumers.add('S', { durable_name: 'c', ack_policy: 'explicit' });
      nc.publish('s', 'hello');
      natsSocket.publish('$JS.API.CONSUMER.MSG.NEXT.S.c', '{"batch":1}', '_INBOX.A.1');
      await until('a message', () => messages.length > 0);
      assert.is(messages[0]?.sequence, 1);
      assert.is.not(messages[0]?.buffer, undefined, 'it lies in our own memory');
      natsSocket.close();
      await nc.close();
    },
    {
      more: () => 'authorization { user: sluice, password: s3cret }',
      login: { user: 'sluice', pass: 's3cret' },
    },
  );
});

test.run();

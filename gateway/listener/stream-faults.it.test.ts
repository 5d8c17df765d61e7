import { connect } from 'node:net';
import { performance } from 'node:perf_hooks';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { silentLogger } from '../../lib/logger.js';
import { until } from '../../lib/testing/until.js';
import { listen } from './server.js';

const frame = (type: number, flags: number, stream: number, payload = Buffer.alloc(0)): Buffer => {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream, 5);
  return Buffer.concat([head, payload]);
};
const [data, headers, reset, settings, ping, goaway] = [0, 1, 3, 4, 6, 7];
const [endStream, endHeaders] = [1, 4];

function requestHead(stream: number, contentLength: number): Buffer {
  const literal = (text: string): Buffer => Buffer.concat([Buffer.from([text.length]), Buffer.from(text)]);
  const fields = {
    ':method': 'POST',
    ':path': '/',
    ':scheme': 'http',
    ':authority': 'x',
    'content-length': `${contentLength}`,
  };
  const block = Object.entries(fields).flatMap(([name, value]) => [Buffer.from([0]), literal(name), literal(value)]);
  return frame(headers, endHeaders, stream, Buffer.concat(block));
}
const request = (stream: number, contentLength: number, body: string): Buffer =>
  Buffer.concat([requestHead(stream, contentLength), frame(data, endStream, stream, Buffer.from(body))]);

/** A connection of a client that sends what a test wants, and answers PINGs. Notes the frames that come as "type stream". */
async function withPeer(
  { answersPings = true, silenceTimeout = 60_000 },
  use: (send: (bytes: Buffer) => void, seen: readonly string[], closed: () => boolean) => Promise<void>,
): Promise<void> {
  const server = await listen({
    host: '127.0.0.1',
    port: 0,
    maxConnections: 10,
    maxConnectionAge: 600_000,
    grace: 500,
    silenceTimeout,
    onRequest: (incoming, response) => {
      incoming.on('error', () => {});
      incoming.on('end', () => (response as import('node:http').ServerResponse).end('answer'));
      incoming.resume();
    },
    logger: silentLogger,
  });
  const socket = connect(server.port, '127.0.0.1');
  const seen: string[] = [];
  let closed = false;
  let rest = Buffer.alloc(0);
  socket.on('error', () => {});
  socket.on('close', () => {
    closed = true;
  });
  socket.on('data', (chunk: Buffer) => {
    rest = Buffer.concat([rest, chunk]);
    for (let end = 0; rest.length >= 9; rest = rest.subarray(end)) {
      end = 9 + rest.readUIntBE(0, 3);
      if (rest.length < end) return;
      const [type, stream] = [rest[3] as number, rest.readUInt32BE(5)];
      const code = type === reset ? ` ${rest.readUInt32BE(9)}` : '';
      seen.push(`${type} ${stream}${code}`);
      if (type === ping && answersPings) socket.write(frame(ping, 1, 0, rest.subarray(9, end)));
    }
  });
  socket.write(Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'), frame(settings, 0, 0)]));
  try {
    await use(
      (bytes) => socket.write(bytes),
      seen,
      () => closed,
    );
  } finally {
    socket.destroy();
    await server.drain('end of the test', 100);
    assert.is(server.connections, 0);
  }
}

for (const [name, contentLength, body] of [
  ['longer', 2, 'abc'],
  ['shorter', 9, 'abc'],
  ['empty', 9, ''],
] as const) {
  test(`a body that is ${name} than its content-length costs its own stream alone`, async () => {
    await withPeer({}, async (send, seen, closed) => {
      // Another call is open meanwhile, and a third one begins afterwards.
      send(requestHead(1, 3));
      send(request(3, contentLength, body));
      await until('the stream is reset', () => seen.includes(`${reset} 3 1`));
      send(request(5, 3, 'abc'));
      send(frame(data, endStream, 1, Buffer.from('abc')));
      await until('the others are answered', () => [1, 5].every((id) => seen.includes(`${data} ${id}`)));
      // Again, after the first time: and nothing is left of it that would end the connection later.
      send(request(7, contentLength, body));
      await until('the next one is reset', () => seen.includes(`${reset} 7 1`));
      await new Promise((resolve) => setTimeout(resolve, 1_200));
      send(request(9, 3, 'abc'));
      await until('a later one is answered', () => seen.includes(`${data} 9`));
      assert.not(closed());
      assert.not(seen.some((one) => one.startsWith(`${goaway} `)));
    });
  });
}

async function endsSoon(peer: Parameters<typeof withPeer>[0], fault: Buffer): Promise<void> {
  await withPeer(peer, async (send, _seen, closed) => {
    send(requestHead(1, 3));
    const since = performance.now();
    send(fault);
    await until('the connection is over', closed);
    assert.ok(performance.now() - since < 4_000);
  });
}

test('a true fault of the connection ends it in about a second', async () => {
  // A DATA frame of the connection itself. Node 20 reads no more and says nothing: it ends when it is silent.
  await endsSoon({ silenceTimeout: 900 }, frame(data, 0, 0, Buffer.from('abc')));
});

// Node 20 takes the fault for what it is, and asks nothing.
const asks = Number(process.versions.node.split('.')[0]) >= 22;
(asks ? test : test.skip)('a client with such a fault that answers no PING is let go in about a second', async () => {
  await endsSoon({ answersPings: false }, request(3, 2, 'abc'));
});

test.run();

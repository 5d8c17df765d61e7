import { spawnSync } from 'node:child_process';
import { createServer as createHttp2Server } from 'node:http2';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { systemClock } from './clock.js';
import { type Http2Connection, openHttp2Connection } from './http2-connection.js';

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** A server and one connection to it, which is closed in the end. */
async function withConnection(
  server: Pick<Server, 'listen' | 'address' | 'close'>,
  use: (connection: Http2Connection, over: () => boolean) => Promise<void>,
): Promise<void> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  let over = false;
  const connection = openHttp2Connection({
    url: `http://127.0.0.1:${port}`,
    clock: systemClock,
    pingIntervalMs: 50,
    pingTimeoutMs: 100,
    onOver: () => {
      over = true;
    },
  });
  try {
    await use(connection, () => over);
  } finally {
    connection.close();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  }
}

test('a peer that does not answer a PING is taken for gone', async () => {
  const sockets = new Set<Socket>();
  // SETTINGS, and then nothing ever again.
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.resume();
    socket.write(Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]));
  });
  await withConnection(server, async (connection, over) => {
    // The connection's own time begins within the call, which may return much later on a busy machine.
    const started = performance.now();
    await connection.request('POST', '/', {}, {});
    while (!over() && performance.now() - started < 5_000) await sleep(5);
    assert.ok(over());
    assert.is(connection.fault?.message, 'The other end does not answer a PING.');
    assert.ok(performance.now() - started >= 140, 'not before its time');
    for (const socket of sockets) socket.destroy();
  });
});

test('a peer that answers PINGs and nothing else is kept', async () => {
  const server = createHttp2Server();
  server.on('stream', (stream) => stream.on('error', () => {}));
  await withConnection(server as unknown as Server, async (connection, over) => {
    await connection.request('POST', '/', {}, {});
    await sleep(600);
    assert.not(over());
    assert.is(connection.fault, undefined);
  });
});

test('streams that a peer pushes end with the connection, and never the process', async () => {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    const settings = '000000 04 00 00000000';
    // Promises stream 2, answers it with 200, and ends the connection with an error: so ends stream 2 as well.
    const promise = '00000a 05 04 00000001 00000002 828684410178';
    const answer = '000001 01 04 00000002 88';
    const goaway = '000008 07 00 00000000 00000001 00000002';
    socket.write(Buffer.from(settings.replace(/ /g, ''), 'hex'));
    socket.once('data', () =>
      setTimeout(() => {
        socket.write(Buffer.from((promise + answer).replace(/ /g, ''), 'hex'));
        setTimeout(() => socket.write(Buffer.from(goaway.replace(/ /g, ''), 'hex')), 20);
      }, 50),
    );
  });
  const uncaught: unknown[] = [];
  const keep = (error: unknown): void => void uncaught.push(error);
  process.on('uncaughtException', keep);
  try {
    await withConnection(server, async (connection, over) => {
      await connection.request('POST', '/', {}, {});
      for (let i = 0; i < 200 && !over(); i++) await sleep(10);
      assert.ok(over());
      await sleep(20);
      for (const socket of sockets) socket.destroy();
    });
  } finally {
    process.off('uncaughtException', keep);
  }
  assert.equal(uncaught, []);
});

test('after close nothing is reported, a request is refused, and the socket is gone', async () => {
  const server = createHttp2Server();
  let closed = false;
  server.on('connection', (socket) => socket.on('close', () => (closed = true)));
  await withConnection(server as unknown as Server, async (connection, over) => {
    const stream = await connection.request('POST', '/', {}, {});
    connection.close();
    connection.close();
    await sleep(50);
    assert.not(over());
    assert.ok(stream.destroyed);
    assert.ok(closed);
    try {
      await connection.request('POST', '/', {}, {});
      assert.unreachable('it was taken');
    } catch (error) {
      assert.match(String(error), /The connection is closed/);
    }
  });
});

test('a stream may end in any order on both sides: Node does not spin', () => {
  const program = fileURLToPath(new URL('./testing/end-states.ts', import.meta.url));
  const { stdout, stderr, signal } = spawnSync(process.execPath, ['--import', 'tsx', program], {
    encoding: 'utf8',
    timeout: 40_000,
    killSignal: 'SIGKILL',
  });
  assert.is(signal, null, `ended with ${signal}: it span`);
  assert.is(stdout, 'done\n', stderr);
});

test.run();

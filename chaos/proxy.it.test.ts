import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { until } from '../lib/testing/until.js';
import { type ChaosProxy, startProxy } from './proxy.js';

interface Scene {
  readonly proxy: ChaosProxy;
  /** What the server got so far, of all connections. */
  readonly received: () => string;
  dial(): Promise<Peer>;
}

interface Peer {
  readonly socket: Socket;
  readonly heard: () => string;
  readonly ended: () => boolean;
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** A server that answers every byte with the same in capitals. */
async function withProxy(use: (scene: Scene) => Promise<void>): Promise<void> {
  let received = '';
  const server = createServer((socket) => {
    socket.on('error', () => {});
    socket.on('data', (chunk) => {
      received += chunk.toString();
      socket.write(chunk.toString().toUpperCase());
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  // The first port has no listener.
  const dead = createServer().listen(0, '127.0.0.1');
  await once(dead, 'listening');
  const { port: nobody } = dead.address() as AddressInfo;
  dead.close();
  const proxy = await startProxy(() => [nobody, (server.address() as AddressInfo).port]);
  const sockets: Socket[] = [];
  try {
    await use({
      proxy,
      received: () => received,
      async dial() {
        const socket = connect(proxy.port, '127.0.0.1');
        sockets.push(socket);
        let heard = '';
        let ended = false;
        socket.on('data', (chunk) => {
          heard += chunk.toString();
        });
        socket.on('error', () => {});
        socket.on('close', () => {
          ended = true;
        });
        // A refused one may be reset before it is there.
        await new Promise<void>((resolve) => socket.once('connect', resolve).once('close', () => resolve()));
        return { socket, heard: () => heard, ended: () => ended };
      },
    });
  } finally {
    for (const socket of sockets) socket.destroy();
    await proxy.close();
    server.close();
  }
}

test('bytes pass both ways, to the first target that can be reached, and slowly but in order when told', async () => {
  await withProxy(async ({ proxy, dial }) => {
    const peer = await dial();
    peer.socket.write('a');
    await until('the answer', () => peer.heard() === 'A');
    proxy.set('slow');
    const since = performance.now();
    for (const letter of 'bcde') peer.socket.write(letter);
    proxy.set('pass');
    peer.socket.write('f');
    await until('the answers', () => peer.heard() === 'ABCDEF');
    proxy.set('slow');
    peer.socket.write('g');
    await until('the answer', () => peer.heard() === 'ABCDEFG');
    assert.ok(performance.now() - since > 100);
  });
});

test('dropped replies: the request has its effect, the answer does not come, and the connection is cut afterwards', async () => {
  await withProxy(async ({ proxy, dial, received }) => {
    const peer = await dial();
    peer.socket.write('a');
    await until('the answer', () => peer.heard() === 'A');
    proxy.set('drop-replies');
    peer.socket.write('b');
    await until('the effect', () => received() === 'ab');
    await pause(50);
    assert.is(peer.heard(), 'A');
    assert.not(peer.ended());
    proxy.set('pass');
    await until('the end', peer.ended);
    assert.is(peer.heard(), 'A');
    const next = await dial();
    next.socket.write('c');
    await until('the answer', () => next.heard() === 'C');
  });
});

test('half-open: nothing passes and no side hears of it; cut and refuse: both do', async () => {
  await withProxy(async ({ proxy, dial, received }) => {
    const peer = await dial();
    peer.socket.write('a');
    await until('the answer', () => peer.heard() === 'A');
    proxy.set('half-open');
    peer.socket.write('b');
    await pause(80);
    assert.is(received(), 'a');
    assert.not(peer.ended());
    proxy.set('pass');
    await until('the end', peer.ended);
    const other = await dial();
    other.socket.write('c');
    await until('the answer', () => other.heard() === 'C');
    proxy.cut();
    await until('the end', other.ended);
    proxy.set('refuse');
    const refused = await dial();
    await until('the end', refused.ended);
    await until('none is left', () => proxy.connections === 0);
  });
});

test.run();

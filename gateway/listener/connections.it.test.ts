/** How many connections there may be, and when they have to go: real sockets, from several addresses of this machine. */
import { type ClientHttp2Session, connect as connectHttp2, constants } from 'node:http2';
import { connect } from 'node:net';
import { connect as connectTls } from 'node:tls';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { silentLogger } from '../../lib/logger.js';
import { makeCertificate } from '../../lib/testing/certificate.js';
import { until } from '../../lib/testing/until.js';
import { listening } from '../testing/listening.js';
import { frame, framesOf, frameType, header, preface, word } from '../testing/raw-http2.js';
import { createWatchedPeer, type WatchedPeer } from '../testing/watched-peer.js';
import type { NodeResponse } from './node-request.js';
import { type FrontServer, type FrontServerOptions, listen } from './server.js';

interface Seen {
  readonly refused: string[];
  readonly ended: string[];
  readonly warnings: { message: string; fields: Record<string, unknown> }[];
}

/** Answers at once; requests of /held wait until the end of the test. */
async function withServer(
  changes: Partial<FrontServerOptions>,
  use: (server: FrontServer, seen: Seen) => Promise<void>,
): Promise<void> {
  const seen: Seen = { refused: [], ended: [], warnings: [] };
  const held: NodeResponse[] = [];
  const log = Object.assign(Object.create(silentLogger), {
    warn: (fields: Record<string, unknown>, message: string) => seen.warnings.push({ message, fields }),
  });
  const server = await listen({
    ...listening,
    onRequest: (request, response) => {
      request.resume();
      request.on('error', () => {});
      if (request.url === '/held') held.push(response);
      else (response as import('node:http').ServerResponse).end(`to ${request.url}`);
    },
    onRefusedConnection: (why) => seen.refused.push(why),
    onEndedConnection: (why) => seen.ended.push(why),
    logger: log,
    ...changes,
  });
  try {
    await use(server, seen);
  } finally {
    for (const response of held) (response as import('node:http').ServerResponse).end();
    await server.drain('end of the test', 100);
    assert.is(server.connections, 0);
    assert.is(server.requests, 0);
  }
}

/** Resolves when the socket is open, or was refused. */
async function dial(port: number, from = '127.0.0.2', bytes: Buffer | string = ''): Promise<WatchedPeer> {
  const socket = connect({ port, host: '127.0.0.1', localAddress: from });
  const peer = createWatchedPeer(socket);
  await new Promise((resolve) => socket.once('connect', resolve).once('close', resolve));
  if (bytes.length > 0) socket.write(bytes);
  return peer;
}

const get = (path: string, more = ''): string => `GET ${path} HTTP/1.1\r\nhost: x\r\n${more}\r\n`;

/** A peer that has had an answer. */
async function called(port: number, from?: string, more = ''): Promise<WatchedPeer> {
  const peer = await dial(port, from, get('/', more));
  await until('answered or closed', () => peer.text().includes('to /') || peer.closed());
  return peer;
}

/** A peer whose call is open. */
async function holding(server: FrontServer, from?: string): Promise<WatchedPeer> {
  const before = server.requests;
  const peer = await dial(server.port, from, get('/held'));
  await until('the call is open', () => server.requests === before + 1);
  return peer;
}

test('when an address has all of its connections, its idlest makes room, and others lose nothing', async () => {
  await withServer({ maxConnectionsPerAddress: 3 }, async (server, seen) => {
    const other = await called(server.port, '127.0.0.3');
    const first = await called(server.port);
    const held = await holding(server);
    const third = await called(server.port);
    first.socket.write(get('/again'));
    await until('answered again', () => first.text().includes('to /again'));
    const fourth = await called(server.port);
    await until('the idlest went', third.closed);
    assert.equal(
      [first, held, fourth, other].map((peer) => peer.closed()),
      [false, false, false, false],
    );
    // One that never called goes before those that did.
    const silent = await dial(server.port);
    await until('the idlest went', first.closed);
    await called(server.port);
    await until('the one that never called went', silent.closed);
    assert.not(fourth.closed());
    assert.equal(seen.refused, []);
    assert.equal(seen.ended, ['made_room', 'made_room', 'made_room']);
  });
});

test('where all connections of an address have open calls, the newcomer is refused', async () => {
  await withServer({ maxConnectionsPerAddress: 2 }, async (server, seen) => {
    const held = [await holding(server), await holding(server)];
    const refused = await called(server.port);
    assert.ok(refused.closed());
    assert.equal(seen.refused, ['address_full']);
    assert.not(held.some((peer) => peer.closed()));
    assert.match((await called(server.port, '127.0.0.3')).text(), 'to /');
  });
});

test('a full gateway lets the idlest of all go, of any address, and refuses only when all have open calls', async () => {
  await withServer({ maxConnections: 3 }, async (server, seen) => {
    const idle = await called(server.port, '127.0.0.2');
    const held = [await holding(server, '127.0.0.3'), await holding(server, '127.0.0.4')];
    held.push(await holding(server, '127.0.0.5'));
    await until('the idle one went', idle.closed);
    assert.is(server.connections, 3);
    assert.ok((await called(server.port, '127.0.0.6')).closed());
    assert.equal(seen.refused, ['full']);
    assert.not(held.some((peer) => peer.closed()));
  });
});

test('an address has its new connections at a rate, and those at trusted addresses have no limit', async () => {
  const isTrusted = (address: string): boolean => address === '127.0.0.9';
  await withServer(
    { newConnectionsPerAddress: 5, maxConnectionsPerAddress: 2, isTrusted, maxConnections: 1_000 },
    async ({ port }, seen) => {
      for (let i = 0; i < 60; i++) assert.not((await dial(port, '127.0.0.9')).closed());
      assert.equal(seen.ended, []);
      // Twenty are the burst; five more for each second that this takes.
      const newcomers = await Promise.all(Array.from({ length: 80 }, () => dial(port)));
      await until('some are refused', () => seen.refused.length >= 20);
      assert.ok(newcomers.filter(({ closed }) => !closed()).length >= 2);
      assert.equal([...new Set(seen.refused)], ['address_rate']);
      assert.match((await called(port, '127.0.0.3')).text(), 'to /');
      await until('an answer', async () => (await called(port)).text().includes('to /'));
    },
  );
});

test('a refusal names the setting for proxies, says whether the address sends what proxies send, and there is one line a second', async () => {
  await withServer({ newConnectionsPerAddress: 1 }, async ({ port }, seen) => {
    await called(port, '127.0.0.2', 'x-forwarded-for: 203.0.113.9\r\n');
    for (let i = 0; i < 30; i++) await dial(port);
    const proxied = seen.warnings.filter(({ message }) => message.includes('sends headers of a proxy'));
    assert.is(proxied.length, 1);
    assert.is(proxied[0]?.fields.address, '127.0.0.2');
    for (let i = 0; i < 30; i++) await dial(port, '127.0.0.3');
    assert.is(seen.warnings.length, 2);
    // A balancer of TCP connections sends no headers, and an address that is no proxy must not be named.
    assert.match(seen.warnings[1]?.message ?? '', 'Only if it is a proxy or load balancer of yours');
    assert.is(seen.warnings[1]?.fields.newConnectionsPerAddress, 1);
  });
});

test('with TLS, connections count before their handshake, and are refused before it', async () => {
  const { cert, key } = makeCertificate();
  await withServer(
    { tls: { cert, key }, maxConnectionsPerAddress: 3, newConnectionsPerAddress: 2 },
    async (server, seen) => {
      const { port } = server;
      const half = [await dial(port), await dial(port), await dial(port)];
      for (const peer of half) peer.socket.write(Buffer.from([22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3]));
      await until('counted', () => server.connections === 3);
      // Unfinished handshakes make room for those who speak.
      const whole = (): Promise<string | undefined> =>
        new Promise((resolve) => {
          const socket = connectTls({
            socket: connect({ port, host: '127.0.0.1', localAddress: '127.0.0.2' }),
            ca: cert,
            host: '127.0.0.1',
            ALPNProtocols: ['http/1.1'],
          });
          const peer = createWatchedPeer(socket);
          socket.once('secureConnect', () => socket.write(get('/')));
          socket.on('data', () => peer.text().includes('to /') && resolve(peer.text()));
          socket.on('close', () => resolve(undefined));
        });
      assert.match((await whole()) ?? '', 'to /');
      await until('one went', () => half.filter((peer) => peer.closed()).length === 1);
      assert.is(server.connections, 3);
      // Some come back while handshakes take their time.
      const late = await Promise.all(Array.from({ length: 20 }, () => dial(port)));
      await until('refused', () => seen.refused.includes('address_rate'));
      await until('refused', () => late.some((peer) => peer.closed()));
      for (const peer of late) assert.is(peer.bytes().length, 0);
    },
  );
});

test('a TLS handshake that does not end in time ends its connection, also when bytes of it come', async () => {
  const { cert, key } = makeCertificate();
  await withServer({ tls: { cert, key }, handshakeTimeout: 400 }, async (server) => {
    const [silent, half, slow] = [await dial(server.port), await dial(server.port), await dial(server.port)];
    const hello = Buffer.from([22, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, ...Array<number>(400).fill(1)]);
    half.socket.write(hello);
    let sent = 0;
    const dripping = setInterval(() => slow.socket.write(hello.subarray(sent++, sent)), 20);
    try {
      await until('all are closed', () => [silent, half, slow].every((peer) => peer.closed()));
      assert.is(server.connections, 0);
    } finally {
      clearInterval(dripping);
    }
  });
});

test('pings and empty lines do not keep a connection: without a call it ends, and without a first one sooner', async () => {
  await withServer({ firstCallTimeout: 600, idleTimeout: 1_200 }, async (server, seen) => {
    const [unused, idle] = [
      connectHttp2(`http://127.0.0.1:${server.port}`),
      connectHttp2(`http://127.0.0.1:${server.port}`),
    ];
    const ends = new Set<string>();
    const watch = (name: string, session: ClientHttp2Session): void => {
      session.on('error', () => {});
      session.on('goaway', (code) => ends.add(`${name} ${code}`));
    };
    watch('unused', unused);
    watch('idle', idle);
    const stream = idle.request({ ':path': '/' });
    stream.resume();
    await new Promise((resolve) => stream.on('close', resolve));
    const lines = await called(server.port);
    const busy = await holding(server);
    const pinging = setInterval(() => {
      for (const session of [unused, idle]) if (!session.closed && !session.destroyed) session.ping(() => {});
      lines.socket.write('\r\n');
      busy.socket.write('\r\n');
    }, 100);
    try {
      await until('all went', () => ends.size === 2 && lines.closed(), 4_000);
      assert.equal([...ends], ['unused 0', 'idle 0']);
      assert.equal(seen.ended.sort(), ['idle', 'idle', 'unused']);
      assert.not(busy.closed());
    } finally {
      clearInterval(pinging);
    }
  });
});

const post = Buffer.concat([
  header(':method', 'POST'),
  header(':scheme', 'http'),
  header(':path', '/held'),
  header(':authority', 'a'),
]);
const hello = Buffer.concat([preface, frame(frameType.settings, 0, 0)]);
const cancel = (stream: number): Buffer => frame(frameType.reset, 0, stream, word(constants.NGHTTP2_CANCEL));
const goAwayCodes = (peer: WatchedPeer): number[] =>
  framesOf(peer.bytes())
    .filter(({ type }) => type === frameType.goaway)
    .map(({ payload }) => payload.readUInt32BE(4));

/** Calls and their resets, in one piece. */
const rapid = (count: number, reset = cancel): Buffer =>
  Buffer.concat(
    Array.from({ length: count }, (_, i) =>
      Buffer.concat([frame(frameType.headers, 4, 2 * i + 1, post), reset(2 * i + 1)]),
    ),
  );

test('a peer that resets its calls before they are answered is asked to calm down, and its address has fewer new connections', async () => {
  await withServer({ newConnectionsPerAddress: 2 }, async ({ port }, seen) => {
    const peer = await dial(port, '127.0.0.2', Buffer.concat([hello, rapid(101)]));
    await until('ended', peer.closed);
    assert.equal(goAwayCodes(peer), [constants.NGHTTP2_ENHANCE_YOUR_CALM]);
    assert.equal(seen.ended, ['resets']);
    assert.is(seen.warnings[0]?.fields.why, 'resets');
    // Eight at once are the burst, of which this took one, and its end four.
    for (let i = 0; i < 3; i++) assert.not((await called(port)).closed(), String(i));
    assert.ok((await called(port)).closed());
    assert.not((await called(port, '127.0.0.3')).closed());
  });
});

const refusing: FrontServerOptions['onRequest'] = (_request, response) =>
  void (response as import('node:http').ServerResponse).writeHead(401).end('no');

test('calls that are refused at once count as reset when their reset comes with them, whatever its code', async () => {
  for (const code of [constants.NGHTTP2_CANCEL, constants.NGHTTP2_NO_ERROR]) {
    await withServer({ onRequest: refusing }, async ({ port }, seen) => {
      const reset = (stream: number): Buffer => frame(frameType.reset, 0, stream, word(code));
      const peer = await dial(port, '127.0.0.2', hello);
      await until('settings', () => peer.bytes().length > 0);
      peer.socket.write(rapid(600, reset));
      await until('ended', peer.closed);
      assert.equal(seen.ended, ['resets'], String(code));
    });
  }
});

test('a call that is reset without an error, before its refusal is written, does not stay until its connection ends', async () => {
  await withServer({ onRequest: refusing }, async (server, seen) => {
    const reset = (stream: number): Buffer => frame(frameType.reset, 0, stream, word(constants.NGHTTP2_NO_ERROR));
    const peer = await dial(server.port, '127.0.0.2', hello);
    await until('settings', () => peer.bytes().length > 0);
    peer.socket.write(rapid(60, reset));
    await until('begun', () => server.requests > 0);
    await until('put away', () => server.requests === 0, 2_000);
    assert.not(peer.closed());
    assert.equal(seen.ended, []);
  });
});

test('calls that are refused at once, thousands on one connection, are answered and cost nothing', async () => {
  await withServer({ onRequest: refusing }, async ({ port }, seen) => {
    const session = connectHttp2(`http://127.0.0.1:${port}`);
    const one = (method: string): Promise<number> =>
      new Promise((resolve) => {
        const stream = session.request({ ':path': '/', ':method': method }, { endStream: method !== 'POST' });
        let status = 0;
        stream.on('response', (headers) => {
          status = Number(headers[':status']);
        });
        stream.on('error', () => {});
        stream.on('close', () => resolve(status));
        stream.resume();
      });
    for (let i = 0; i < 20; i++) {
      const methods = Array.from({ length: 100 }, (_, n) => ['GET', 'HEAD', 'POST'][n % 3] as string);
      for (const status of await Promise.all(methods.map(one))) assert.is(status, 401);
    }
    assert.equal(seen.ended, []);
    session.destroy();
  });
});

test('an address that goes on loses all of its connections, and has no new one until its debt is paid', async () => {
  await withServer({ newConnectionsPerAddress: 4 }, async (server, seen) => {
    const abuse = Buffer.concat([hello, rapid(101)]);
    const neighbour = await holding(server, '127.0.0.3');
    const others = [await called(server.port), await holding(server)];
    const first = await dial(server.port, '127.0.0.2', abuse);
    await until('ended', first.closed);
    assert.not(others.some((peer) => peer.closed()));
    await dial(server.port, '127.0.0.2', abuse);
    await until('all are gone', () => others.every((peer) => peer.closed()));
    assert.equal(seen.ended, ['resets', 'resets', 'address_in_debt', 'address_in_debt']);
    assert.ok((await called(server.port)).closed());
    assert.not(neighbour.closed());
  });
});

test('a hundred calls that are reset, or any number beside as many that are answered, cost nothing', async () => {
  await withServer({}, async ({ port }, seen) => {
    const session = connectHttp2(`http://127.0.0.1:${port}`);
    let goAway = false;
    session.on('goaway', () => {
      goAway = true;
    });
    const one = (path: string, reset: boolean): Promise<void> =>
      new Promise((resolve) => {
        const stream = session.request({ ':path': path, ':method': 'POST' });
        stream.on('error', () => {});
        stream.on('close', () => resolve());
        stream.resume();
        stream.end();
        if (reset) setImmediate(() => stream.close(constants.NGHTTP2_CANCEL));
      });
    for (let i = 0; i < 300; i++) await Promise.all([one('/held', true), one('/', false)]);
    assert.not(goAway);
    assert.equal(seen.ended, []);
    session.destroy();
  });
});

test('a peer that goes away with all of its calls open did no harm', async () => {
  await withServer({ newConnectionsPerAddress: 100 }, async (server, seen) => {
    const peer = await dial(server.port, '127.0.0.2', hello);
    for (let i = 0; i < 200; i++) peer.socket.write(frame(frameType.headers, 4, 2 * i + 1, post));
    await until('open', () => server.requests === 200);
    peer.socket.resetAndDestroy();
    await until('gone', () => server.requests === 0 && server.connections === 0);
    assert.equal(seen.ended, []);
  });
});

/** Writes the same bytes until the connection is closed. False: it was kept although `max` bytes were taken. */
async function poured(peer: WatchedPeer, piece: Buffer, max: number): Promise<boolean> {
  const until = Date.now() + 8_000;
  for (let sent = 0; sent < max && Date.now() < until; sent += piece.length) {
    if (peer.closed()) return true;
    if (!peer.socket.write(piece)) await new Promise((resolve) => setTimeout(resolve, 1));
  }
  for (let i = 0; i < 150 && !peer.closed(); i++) await new Promise((resolve) => setTimeout(resolve, 10));
  return peer.closed();
}

const many = (piece: Buffer): Buffer => Buffer.concat(Array<Buffer>(2_000).fill(piece));
const maxPoured = 32 * 1024 ** 2;

test('frames without effect end the connection', async () => {
  // Node 20 reads no more after a thousand resets, and says nothing: then silence ends the connection.
  await withServer({ silenceTimeout: 500 }, async ({ port }, seen) => {
    const open = Buffer.concat([hello, frame(frameType.headers, 4, 1, post)]);
    const kinds: Readonly<Record<string, Buffer>> = {
      'unknown types': frame(0xfa, 0, 0, Buffer.alloc(8)),
      'window updates': frame(frameType.windowUpdate, 0, 0, word(1)),
      priorities: frame(frameType.priority, 0, 1, Buffer.from([0, 0, 0, 0, 16])),
      'resets of streams that are closed': Buffer.concat([frame(0xfa, 0, 1), cancel(1)]),
      'data of one byte': frame(frameType.data, 0, 1, Buffer.from('x')),
      padding: frame(frameType.data, 8, 1, Buffer.concat([Buffer.from([255]), Buffer.alloc(255)])),
      pings: frame(frameType.ping, 0, 0, Buffer.alloc(8)),
      settings: frame(frameType.settings, 0, 0),
      'data without a byte': frame(frameType.data, 0, 1),
    };
    for (const [name, piece] of Object.entries(kinds)) {
      const peer = await dial(port, '127.0.0.2', open);
      assert.ok(await poured(peer, many(piece), maxPoured), name);
    }
    assert.ok(seen.ended.filter((why) => why === 'useless_bytes').length >= 3, String(seen.ended));
    assert.ok(seen.ended.filter((why) => why === 'flood').length >= 3, String(seen.ended));
  });
});

test('floods that Node and nghttp2 end themselves are charged to the address, too', async () => {
  await withServer({ newConnectionsPerAddress: 4, silenceTimeout: 500 }, async ({ port }, seen) => {
    const open = Buffer.concat([hello, frame(frameType.headers, 4, 1, post)]);
    const kinds = [
      frame(frameType.ping, 0, 0, Buffer.alloc(8)),
      frame(frameType.settings, 0, 0),
      frame(frameType.data, 0, 1),
    ];
    for (const [i, piece] of kinds.entries()) {
      const from = `127.0.0.${10 + i}`;
      seen.ended.length = 0;
      const other = await called(port, from);
      for (let n = 0; n < 2; n++) assert.ok(await poured(await dial(port, from, open), many(piece), maxPoured), from);
      await until('the address lost its other connection', other.closed);
      assert.equal(seen.ended, ['flood', 'flood', 'address_in_debt'], from);
    }
  });
});

test('on HTTP/1.1 empty lines, chunks of a byte and their extensions end the connection', async () => {
  await withServer({}, async ({ port }) => {
    const body = 'POST /held HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n';
    const kinds: Readonly<Record<string, [string, string]>> = {
      'empty lines': [get('/'), '\r\n'],
      'chunks of a byte': [body, '1\r\nx\r\n'],
      'chunk extensions': [body, `1;${'e'.repeat(200)}\r\nx\r\n`],
    };
    for (const [name, [begin, piece]] of Object.entries(kinds)) {
      const peer = await dial(port, '127.0.0.2', begin);
      assert.ok(await poured(peer, many(Buffer.from(piece)), maxPoured), name);
    }
  });
});

test('large bodies in frames of usual size do not end the connection', async () => {
  await withServer({}, async ({ port }, seen) => {
    const session = connectHttp2(`http://127.0.0.1:${port}`);
    const stream = session.request({ ':path': '/held', ':method': 'POST' });
    const piece = Buffer.alloc(64 * 1024);
    const end = Date.now() + 1_500;
    while (Date.now() < end) {
      if (!stream.write(piece)) await new Promise((resolve) => stream.once('drain', resolve));
    }
    assert.not(stream.closed && session.closed);
    assert.equal(seen.ended, []);
    session.destroy();
  });
});

test('requests sent ahead over HTTP/1.1 have a bound: those within it are answered in order, then the connection ends', async () => {
  const waiting: NodeResponse[] = [];
  const onRequest: FrontServerOptions['onRequest'] = (_request, response) => void waiting.push(response);
  await withServer({ onRequest }, async (server, seen) => {
    const peer = await dial(server.port, '127.0.0.2', get('/').repeat(100));
    await until('the bound is reached', () => seen.ended.length > 0);
    assert.is(waiting.length, 64);
    for (const [i, response] of waiting.entries()) (response as import('node:http').ServerResponse).end(`answer ${i}.`);
    await until('closed', peer.closed);
    const text = peer.text();
    for (let i = 0; i < 64; i++) assert.match(text, `answer ${i}.`);
    assert.is(text.match(/HTTP\/1\.1 /g)?.length, 65);
    assert.match(text, /HTTP\/1\.1 429 /);
    assert.match(text, 'overloaded');
    assert.equal(seen.ended, ['pipelining']);
  });
});

test('a peer that sends far more ahead loses its connection at once', async () => {
  await withServer({}, async ({ port }, seen) => {
    const peer = await dial(port, '127.0.0.2', get('/held').repeat(2_000));
    await until('closed', peer.closed);
    assert.equal(seen.ended, ['pipelining', 'pipelining']);
  });
});

test('requests sent ahead end with their connection, also those whose turn to be answered had not come', async () => {
  await withServer({}, async (server) => {
    const peer = await dial(server.port, '127.0.0.2', get('/held').repeat(10));
    await until('all are open', () => server.requests === 10);
    peer.socket.destroy();
    await until('all are over', () => server.requests === 0);
  });
});

test('over TLS, records that carry nothing end the connection, and small requests do not', async () => {
  const { cert, key } = makeCertificate();
  await withServer({ tls: { cert, key } }, async ({ port }, seen) => {
    const dialled = async (localAddress: string, protocol: string): Promise<WatchedPeer> => {
      const socket = connect({ port, host: '127.0.0.1', localAddress });
      const tls = connectTls({ socket, ca: cert, host: '127.0.0.1', ALPNProtocols: [protocol] });
      const peer = createWatchedPeer(tls);
      await new Promise((resolve) => tls.once('secureConnect', resolve));
      return peer;
    };
    // Each write is a record. Its 22 bytes are seen by TLS alone, as those of a KeyUpdate are.
    const sent = (peer: WatchedPeer, bytes: Buffer): Promise<unknown> =>
      new Promise((resolve) => peer.socket.write(bytes, resolve));
    const honest = await dialled('127.0.0.3', 'http/1.1');
    const hostile = await dialled('127.0.0.2', 'h2');
    await sent(hostile, Buffer.concat([hello, frame(0xfa, 0, 0, Buffer.alloc(16_000)).subarray(0, 9)]));
    for (let i = 0; i < 12_000 && !hostile.closed(); i++) await sent(hostile, Buffer.alloc(1));
    await until('the hostile one is closed', hostile.closed);
    for (let i = 0; i < 300; i++) await sent(honest, Buffer.from(get('/')));
    await until('all are answered', () => honest.text().split('to /').length === 301);
    assert.not(honest.closed());
    assert.equal(seen.ended, ['useless_bytes']);
  });
});

test('a million pieces of a body, of one byte each, end the connection before they take memory or time', async () => {
  await withServer({}, async ({ port }, seen) => {
    const http1 = await dial(port, '127.0.0.2', 'POST /held HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n');
    http1.socket.write('1\r\nx\r\n'.repeat(1_000_000));
    const http2 = await dial(port, '127.0.0.3', Buffer.concat([hello, frame(frameType.headers, 4, 1, post)]));
    const piece = frame(frameType.data, 0, 1, Buffer.from('x'));
    http2.socket.write(Buffer.concat(Array<Buffer>(1_000_000).fill(piece)));
    const before = process.memoryUsage().heapUsed;
    await until('both closed', () => http1.closed() && http2.closed());
    assert.ok(process.memoryUsage().heapUsed - before < 100e6);
    assert.equal(seen.ended, ['useless_bytes', 'useless_bytes']);
  });
});

test.run();

/** Reading a real stream: order, positions, bounds, and what happens when the server or the stream goes away. */
import { type AddressInfo, createServer } from 'node:net';
import { type JetStreamManager, jetstream, jetstreamManager } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/nats-core';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { generationOf } from '../../lib/log-streams.js';
import { silentLogger } from '../../lib/logger.js';
import { shardStream, shardSubjects } from '../../lib/subjects.js';
import { type TestNats, withNats } from '../../lib/testing/nats.js';
import { KiB, MiB } from '../../lib/units.js';
import { type ByteBudget, createByteBudget } from './budget.js';
import { createBufferPool } from './buffer-pool.js';
import { createPullReader, type PullReader } from './pull-reader.js';

const stream = shardStream(0);

async function create(jsm: JetStreamManager): Promise<string> {
  return generationOf(await jsm.streams.add({ name: stream, subjects: [shardSubjects(0)], discard: 'new' }));
}

async function publish(nats: TestNats, count: number, bytes: number): Promise<void> {
  const js = jetstream(nats.nc);
  const data = new Uint8Array(bytes).fill(7);
  for (let at = 0; at < count; at += 16) {
    await Promise.all(
      Array.from({ length: Math.min(16, count - at) }, () => js.publish('ev.0.acme', data, { timeout: 10_000 })),
    );
  }
}

/** Messages come over a connection of the reader's own, or over the library's where the server wants TLS or a log-in. */
const ways = ['socket', 'library'] as const;
type Way = (typeof ways)[number];

/** The same connection, with some of it looking otherwise to the reader. */
const seenAs = (nc: NatsConnection, other: Readonly<Record<string, unknown>>): NatsConnection =>
  new Proxy(nc, {
    get(target, name) {
      if (Object.hasOwn(other, name)) return other[name as string];
      const value = Reflect.get(target, name) as unknown;
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });

async function withReader(
  way: Way,
  use: (at: {
    nats: TestNats;
    jsm: JetStreamManager;
    reader: PullReader;
    budget: ByteBudget;
    generation: string;
  }) => Promise<void>,
  limits: { total: number; ahead: number } = { total: 64 * MiB, ahead: 32 * MiB },
): Promise<void> {
  await withNats(async (nats) => {
    const jsm = await jetstreamManager(nats.nc);
    const generation = await create(jsm);
    const budget = createByteBudget(limits.total);
    const reader = createPullReader({
      nc: way === 'socket' ? nats.nc : seenAs(nats.nc, { info: { ...nats.nc.info, auth_required: true } }),
      jsm,
      stream,
      budget,
      buffers: createBufferPool(limits.total),
      aheadBytes: limits.ahead,
      logger: silentLogger,
    });
    try {
      await use({ nats, jsm, reader, budget, generation });
    } finally {
      await reader.close();
    }
  });
}

/** Takes messages until `count` are there; fails after 20 s. */
async function take(reader: PullReader, count: number): Promise<number[]> {
  const sequences: number[] = [];
  const until = Date.now() + 20_000;
  while (sequences.length < count) {
    const message = reader.peek();
    if (message === undefined) {
      assert.ok(Date.now() < until, `only ${sequences.length} of ${count} messages came`);
      await reader.wait(100);
      continue;
    }
    sequences.push(message.sequence);
    reader.take();
    assert.ok(message.data.every((byte) => byte === 7));
    reader.release([message], true);
  }
  return sequences;
}

const range = (from: number, to: number): number[] => Array.from({ length: to - from + 1 }, (_, i) => from + i);

for (const way of ways) {
  test(`${way}: messages come in order from any position, again and again`, async () => {
    await withReader(way, async ({ nats, reader, generation, budget }) => {
      await publish(nats, 50, 100);
      reader.seek(generation, 0);
      assert.equal(await take(reader, 50), range(1, 50));
      reader.seek(generation, 20);
      assert.equal(await take(reader, 10), range(21, 30));
      // What is at hand is kept; only what is below the new position goes.
      reader.seek(generation, 35);
      assert.equal(await take(reader, 15), range(36, 50));
      await publish(nats, 3, 100);
      assert.equal(await take(reader, 3), [51, 52, 53]);
      await reader.close();
      assert.is(budget.used, 0);
    });
  });

  test(`${way}: a new message arrives within milliseconds, not with a poll`, async () => {
    await withReader(way, async ({ nats, reader, generation }) => {
      reader.seek(generation, 0);
      await publish(nats, 1, 100);
      await take(reader, 1);
      const waits: number[] = [];
      for (let i = 0; i < 20; i++) {
        const start = performance.now();
        await publish(nats, 1, 100);
        await take(reader, 1);
        waits.push(performance.now() - start);
      }
      waits.sort((a, b) => a - b);
      assert.ok(waits[10]! < 50, `median ${waits[10]} ms`);
    });
  });

  test(`${way}: a reader whose messages are not taken stops reading at its bound`, async () => {
    await withReader(
      way,
      async ({ nats, reader, generation, budget }) => {
        await publish(nats, 400, 128 * KiB);
        reader.seek(generation, 0);
        let used = -1;
        for (let still = 0; still < 5; ) {
          await new Promise((resolve) => setTimeout(resolve, 200));
          still = budget.used === used ? still + 1 : 0;
          used = budget.used;
        }
        // One pull (8 MB here, the server's largest message) may go past it.
        assert.ok(used >= 8 * MiB && used <= 24 * MiB, `${used} bytes held`);
        assert.equal(await take(reader, 400), range(1, 400));
      },
      { total: 16 * MiB, ahead: 16 * MiB },
    );
  });

  test(`${way}: messages that were removed are skipped, and the sequences tell`, async () => {
    await withReader(way, async ({ nats, jsm, reader, generation }) => {
      await publish(nats, 10, 100);
      await jsm.streams.purge(stream, { seq: 4 });
      await jsm.streams.deleteMessage(stream, 7);
      reader.seek(generation, 0);
      assert.equal(await take(reader, 6), [4, 5, 6, 8, 9, 10]);
    });
  });

  test(`${way}: after nats-server was killed the log may be another one: what is not stored is read again (LOAD-8)`, async () => {
    await withReader(way, async ({ nats, reader, generation }) => {
      await publish(nats, 20, 100);
      reader.seek(generation, 0);
      assert.equal(await take(reader, 10), range(1, 10));
      nats.process().kill('SIGKILL');
      await nats.restart();
      const until = Date.now() + 15_000;
      while (true) {
        try {
          await publish(nats, 5, 100);
          break;
        } catch (error) {
          if (Date.now() > until) throw error;
        }
      }
      while (!reader.lost && Date.now() < until) await reader.wait(100);
      assert.ok(reader.lost);
      assert.is(reader.breaks, 1);
      reader.seek(generation, 8);
      assert.not(reader.lost);
      assert.equal((await take(reader, 17)).slice(0, 17), range(9, 25));
    });
  });

  test(`${way}: a stream that was made again is not read on (LOAD-8)`, async () => {
    await withReader(way, async ({ nats, jsm, reader, generation }) => {
      await publish(nats, 5, 100);
      reader.seek(generation, 0);
      await take(reader, 5);
      await jsm.streams.delete(stream);
      const next = await create(jsm);
      assert.is.not(next, generation);
      await publish(nats, 9, 100);
      const until = Date.now() + 15_000;
      while (!reader.lost && Date.now() < until) await reader.wait(100);
      assert.ok(reader.lost);
      assert.is(reader.peek(), undefined);
      reader.seek(next, 0);
      assert.equal(await take(reader, 9), range(1, 9));
    });
  });
}

test('messages that the reader misses and the leader of the stream has are not passed over', async () => {
  await withNats(async (nats) => {
    const jsm = await jetstreamManager(nats.nc);
    const generation = await create(jsm);
    await publish(nats, 10, 100);
    await jsm.streams.deleteMessage(stream, 7);
    // What a leader says that has message 7, while the reader's replica has lost it.
    let hasIt = true;
    let asked = 0;
    const request: NatsConnection['request'] = async (subject, ...rest) => {
      if (!subject.startsWith('$JS.API.STREAM.MSG.GET.')) return await nats.nc.request(subject, ...rest);
      asked++;
      const reply = await nats.nc.request(subject, ...rest);
      return hasIt ? Object.assign(Object.create(reply), { json: () => ({ message: { seq: 7 } }) }) : reply;
    };
    const gaps: number[][] = [];
    const reader = createPullReader({
      nc: seenAs(nats.nc, { request }),
      jsm,
      stream,
      budget: createByteBudget(64 * MiB),
      buffers: createBufferPool(64 * MiB),
      aheadBytes: MiB,
      onGap: (from, to) => gaps.push([from, to]),
      logger: silentLogger,
    });
    reader.seek(generation, 0);
    assert.equal(await take(reader, 6), range(1, 6));
    const until = Date.now() + 20_000;
    while (asked < 3 && Date.now() < until) await reader.wait(50);
    assert.ok(asked >= 3, `asked ${asked} times`);
    assert.is(reader.peek(), undefined);
    assert.equal(gaps, []);
    hasIt = false;
    assert.equal(await take(reader, 3), [8, 9, 10]);
    assert.equal(gaps, [[7, 7]]);
    await reader.close();
  });
});

test('a connection that the server refuses is tried again after a while, not in a loop', async () => {
  await withNats(async (nats) => {
    const jsm = await jetstreamManager(nats.nc);
    const generation = await create(jsm);
    let dials = 0;
    const info = { server_id: 'x', headers: true, max_payload: 1024 };
    const server = createServer((socket) => {
      dials++;
      socket.on('error', () => undefined);
      socket.on('data', () => socket.end("PONG\r\n-ERR 'maximum connections exceeded'\r\n"));
      socket.write(`INFO ${JSON.stringify(info)}\r\n`);
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const reader = createPullReader({
      nc: seenAs(nats.nc, { getServer: () => `127.0.0.1:${(server.address() as AddressInfo).port}` }),
      jsm,
      stream,
      budget: createByteBudget(64 * MiB),
      buffers: createBufferPool(64 * MiB),
      aheadBytes: MiB,
      logger: silentLogger,
    });
    reader.seek(generation, 0);
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    await reader.close();
    server.close();
    assert.ok(dials >= 2 && dials < 20, `${dials} dials`);
  });
});

test.run();

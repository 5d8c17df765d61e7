/** Messages on NATS's wire: whole, in order, and without a copy where that counts. */
import type { NatsConnection } from '@nats-io/nats-core';
import type { NatsConnectionImpl } from '@nats-io/nats-core/internal';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { silentLogger } from '../../lib/logger.js';
import { connectNats } from '../../lib/nats.js';
import { withNats } from '../../lib/testing/nats.js';
import { until } from '../../lib/testing/until.js';
import { createLogWire } from './log-wire.js';
import { createPayloadPool } from './payload-pool.js';

async function withConnection(use: (nc: NatsConnection, reader: NatsConnection) => Promise<void>): Promise<void> {
  await withNats(async (nats) => {
    const nc = await connectNats({ servers: nats.url, name: 'test', logger: silentLogger, timeoutMs: 5_000 });
    try {
      await use(nc, nats.nc);
    } finally {
      await nc.close();
    }
  });
}

const pool = createPayloadPool(128 * 1024, 4);
const payload = (size: number, fill: number): Buffer => pool.take(size).fill(fill);

test('messages of all sizes arrive whole and in order, also between those of the library', async () => {
  await withConnection(async (nc, reader) => {
    const wire = createLogWire(nc, () => undefined);
    const seen: { subject: string; reply: string | undefined; data: Buffer }[] = [];
    reader.subscribe('ev.>', {
      callback: (_error, { subject, reply, data }) => {
        seen.push({ subject, reply, data: Buffer.from(data) });
      },
    });
    await reader.flush();
    const sizes = [0, 1, 100, 20_000, 5, 128 * 1024, 16 * 1024, 16 * 1024 - 1, 3, 300 * 1024, 7];
    for (const [i, size] of sizes.entries()) {
      if (i % 3 === 0) nc.publish('ev.library', Buffer.from([i]));
      wire.send(`ev.${i}.acme`, `token-${i}`, payload(size, i));
    }
    await nc.flush();
    await until('all', () => seen.length >= sizes.length + Math.ceil(sizes.length / 3));
    let at = 0;
    for (const [i, size] of sizes.entries()) {
      if (i % 3 === 0) assert.equal(seen[at++]?.data, Buffer.from([i]));
      const { subject, reply, data } = seen[at++]!;
      assert.is(subject, `ev.${i}.acme`);
      assert.ok(reply?.endsWith(`.token-${i}`));
      assert.ok(data.equals(Buffer.alloc(size, i)), `message ${i} of ${size} bytes`);
    }
    assert.is(at, seen.length);
  });
});

test('a large message reaches the socket in the memory that it was written to', async () => {
  await withConnection(async (nc) => {
    const wire = createLogWire(nc, () => undefined);
    // Its subscription leaves first.
    await nc.flush();
    const { transport } = (nc as NatsConnectionImpl).protocol;
    const frames: Uint8Array[] = [];
    const send = transport.send.bind(transport);
    transport.send = (frame) => {
      frames.push(frame);
      send(frame);
    };
    const first = payload(60_000, 1);
    const second = payload(60_000, 2);
    wire.send('ev.0.acme', 'token-1', first);
    wire.send('ev.0.acme', 'token-2', second);
    assert.is(frames.length, 2);
    assert.is(frames[0]?.buffer, first.buffer);
    assert.is(frames[1]?.buffer, second.buffer);
    const line = Buffer.from((frames[0] as Uint8Array).subarray(0, 200)).toString('latin1');
    assert.match(line, /^PUB ev\.0\.acme _INBOX_admin\.\w+\.token-1 60000\r\n/);
  });
});

test('what cannot be sent is refused before anything is: too large, or on a closed connection', async () => {
  await withConnection(async (nc) => {
    const wire = createLogWire(nc, () => undefined);
    const before = nc.stats().outMsgs;
    const max = nc.info?.max_payload as number;
    assert.throws(() => wire.send('ev.0.acme', 'token', payload(max + 1, 0)), /at most/);
    assert.throws(() => wire.send('ev.0.acme', 'token', Buffer.alloc(10)), /no room/);
    assert.is(nc.stats().outMsgs, before);
    await nc.close();
    assert.throws(() => wire.send('ev.0.acme', 'token', payload(10, 0)), /closed/);
  });
});

test('answers come under the token of their message, and no more after close', async () => {
  await withConnection(async (nc, reader) => {
    const answers: string[] = [];
    const wire = createLogWire(nc, (token, reply) => answers.push(`${token}=${reply.string()}`));
    reader.subscribe('ev.>', { callback: (_error, message) => void message.respond(message.subject) });
    await reader.flush();
    wire.send('ev.0.acme', 'a', payload(10, 0));
    wire.send('ev.1.acme', 'b', payload(20_000, 0));
    await until('both answers', () => answers.length === 2);
    assert.equal(answers, ['a=ev.0.acme', 'b=ev.1.acme']);
    wire.close();
    wire.send('ev.2.acme', 'c', payload(10, 0));
    await wire.flush();
    await reader.flush();
    await wire.flush();
    assert.is(answers.length, 2);
  });
});

test('a buffer that came back is used again', () => {
  const one = pool.take(1_000);
  pool.give(one);
  const two = pool.take(128 * 1024);
  assert.is(two.buffer, one.buffer);
  // Larger than the pool's buffers: made for it alone, and not kept.
  const large = pool.take(200 * 1024);
  pool.give(large);
  assert.is.not(pool.take(200 * 1024).buffer, large.buffer);
});

test.run();

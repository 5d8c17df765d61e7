import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRandom } from '../../../lib/testing/batches.js';
import { KiB, MiB } from '../../../lib/units.js';
import { createMessageBuffers } from '../../held/message-buffers.js';
import { envelope } from './answers.js';
import { Envelopes } from './envelopes.js';

test('messages come out whole and in order, however they are cut into chunks, and their buffers are used again', () => {
  const random = createRandom(5);
  const sizes = [0, 1, 5, 100, 3_000, 16_384, 75_000, 262_144, 262_145, 700_000];
  for (let round = 0; round < 60; round++) {
    const messages = Array.from({ length: 12 }, (_, i) => ({
      flags: (i * 37) % 256,
      bytes: Buffer.alloc(sizes[Math.floor(random() * sizes.length)] as number, i + 1),
    }));
    const all = Buffer.concat(messages.map(({ flags, bytes }) => envelope(flags, bytes)));
    const envelopes = new Envelopes(MiB, 0, createMessageBuffers(4 * MiB));
    let seen = 0;
    for (let at = 0; at < all.length; ) {
      // Chunks of their own memory: what is looked at later must not depend on the next one.
      const size = 1 + Math.floor(random() ** 3 * 90_000);
      envelopes.push(Buffer.from(all.subarray(at, at + size)));
      at += size;
      // A reader that lags behind finds what has gathered.
      if (random() < 0.3) continue;
      for (let next = envelopes.next(); next !== undefined; next = envelopes.next()) {
        const expected = messages[seen++];
        assert.is(next.flags, expected?.flags);
        assert.ok(next.bytes.equals(expected?.bytes as Buffer), `message ${seen}`);
        next.bytes.fill(0xee);
        next.release?.();
      }
    }
    for (let next = envelopes.next(); next !== undefined; next = envelopes.next()) {
      assert.ok(next.bytes.equals(messages[seen++]?.bytes as Buffer));
    }
    assert.is(seen, messages.length);
    assert.not(envelopes.incomplete);
  }
});

test('a message over the limit is refused by its head alone', () => {
  const envelopes = new Envelopes(1_000, 0, createMessageBuffers(MiB));
  const head = envelope(0, Buffer.alloc(1_001)).subarray(0, 5);
  envelopes.push(head.subarray(0, 3));
  assert.is(envelopes.next(), undefined);
  assert.ok(envelopes.incomplete);
  envelopes.push(head.subarray(3));
  assert.throws(() => envelopes.next(), /message size 1001 is larger than configured readMaxBytes 1000/);
});

test('a small message does not keep a large chunk alive', () => {
  const envelopes = new Envelopes(MiB, 0, createMessageBuffers(MiB));
  envelopes.push(Buffer.concat([envelope(0, Buffer.alloc(100, 1)), envelope(0, Buffer.alloc(60_000, 2))]));
  const [small, large] = [envelopes.next(), envelopes.next()];
  assert.ok((small?.bytes.buffer.byteLength ?? 0) <= 16_384);
  assert.is(large?.bytes[59_999], 2);
});

test('unused buffers are kept up to the bound, and given to the next of their size', () => {
  const buffers = createMessageBuffers(64 * KiB);
  const [a, b, c] = [buffers.take(30_000), buffers.take(31_000), buffers.take(40_000)];
  assert.equal([a.length, b.length, c.length], [30_000, 31_000, 40_000]);
  for (const buffer of [a, b, c]) buffers.give(buffer);
  // 32 KiB twice is the bound.
  assert.ok([a.buffer, b.buffer].includes(buffers.take(29_000).buffer));
  assert.ok([a.buffer, b.buffer].includes(buffers.take(32_768).buffer));
  assert.not(buffers.take(40_000).buffer === c.buffer);
  assert.is(buffers.take(300_000).length, 300_000);
});

test('a buffer holds little more memory than its message has bytes, of whatever size', () => {
  const buffers = createMessageBuffers(MiB);
  for (const size of [1, 100, 4_000, 5_000, 8_191, 8_193, 20_000, 75_000, 262_144, 262_145, 1_000_000]) {
    const buffer = buffers.take(size);
    assert.is(buffer.length, size);
    // The smallest ones share slabs of 8 KiB.
    if (size > 4_096) assert.ok(buffer.buffer.byteLength <= size * 1.5, `${size}: ${buffer.buffer.byteLength}`);
    buffers.give(buffer);
    assert.is(buffers.take(size).length, size);
  }
});

test.run();

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { KiB } from '../../lib/units.js';
import { createMessageBuffers } from './message-buffers.js';

test('a buffer is used again for a message of about its size, up to 1 MiB and a little', () => {
  const buffers = createMessageBuffers(4 * KiB * KiB);
  for (const [first, next] of [
    [10 * KiB, 12 * KiB],
    [253 * KiB, 256 * KiB],
    [390 * KiB, 400 * KiB],
    [KiB * KiB + 1, KiB * KiB + 30 * KiB],
  ] as const) {
    const one = buffers.take(first);
    assert.is(one.length, first);
    buffers.give(one);
    const again = buffers.take(next);
    assert.is(again.length, next);
    assert.is(again.buffer, one.buffer);
    assert.ok(one.buffer.byteLength <= first * 1.4, 'it is not much larger than its message');
  }
});

test('what is not kept gives its memory back, also while something refers to it', () => {
  const buffers = createMessageBuffers(500 * KiB);
  const [kept, beyond, huge] = [400 * KiB, 400 * KiB, 4 * KiB * KiB].map((size) => buffers.take(size)) as [
    Buffer,
    Buffer,
    Buffer,
  ];
  for (const one of [kept, beyond, huge]) buffers.give(one);
  assert.is(kept.length, 400 * KiB);
  assert.equal([beyond.length, huge.length], [0, 0]);
  // Small ones share their memory with others.
  const [small, neighbour] = [buffers.take(100), buffers.take(100)];
  buffers.give(small);
  assert.is(neighbour.length, 100);
});

test.run();

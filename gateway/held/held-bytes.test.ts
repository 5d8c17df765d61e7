import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { heldBuffer, heldCopy } from './held-bytes.js';

test('a held piece keeps little memory alive, whatever size its neighbours and the pool of this Node have', () => {
  for (const size of [0, 1, 100, 4_000, 4_096, 4_097, 5_000, 8_192, 20_000, 40_000]) {
    const bytes = heldBuffer(size);
    assert.is(bytes.length, size);
    assert.ok(bytes.buffer.byteLength <= Math.max(8 * 1024, size), `${size}: ${bytes.buffer.byteLength}`);
  }
});

test('pieces do not overlap', () => {
  const pieces = Array.from({ length: 2_000 }, (_, i) => heldCopy(Buffer.alloc((i * 37) % 5_000, i)));
  pieces.forEach((piece, i) => {
    assert.ok(
      piece.every((byte) => byte === i % 256),
      `piece ${i}`,
    );
  });
});

test.run();

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { MiB } from '../../lib/units.js';
import { createBufferPool } from './buffer-pool.js';

test('a buffer is used again when it is full and no message in it is held, not before', () => {
  const pool = createBufferPool(8 * MiB);
  const buffer = pool.take(10);
  pool.hold(buffer);
  pool.hold(buffer);
  pool.letGo(buffer, true);
  pool.filled(buffer);
  assert.is(pool.free, 0);
  assert.is.not(pool.take(10).bytes, buffer.bytes);
  pool.letGo(buffer, true);
  assert.is(pool.free, 1);
  assert.is(pool.take(10).bytes, buffer.bytes);
  assert.is(pool.free, 0);
});

test('a buffer that is still being filled waits for that', () => {
  const pool = createBufferPool(8 * MiB);
  const buffer = pool.take(10);
  pool.hold(buffer);
  pool.letGo(buffer, true);
  assert.is(pool.free, 0);
  pool.filled(buffer);
  assert.is(pool.free, 1);
});

test('one that somebody may still read is never used again', () => {
  const pool = createBufferPool(8 * MiB);
  const buffer = pool.take(10);
  pool.hold(buffer);
  pool.hold(buffer);
  pool.letGo(buffer, false);
  pool.letGo(buffer, true);
  pool.filled(buffer);
  assert.is(pool.free, 0);
});

test('what is kept for later has a bound, and buffers of other sizes are not kept', () => {
  const pool = createBufferPool(2 * MiB);
  const buffers = Array.from({ length: 5 }, () => pool.take(1));
  for (const buffer of buffers) pool.filled(buffer);
  assert.is(pool.free, 2);
  const large = pool.take(3 * MiB);
  assert.is(large.bytes.length, 3 * MiB);
  assert.is(pool.free, 2);
  pool.filled(large);
  pool.filled(pool.first());
  assert.is(pool.free, 2);
});

test.run();

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { slabPool } from './buffer-pool.js';

const MiB = 1024 ** 2;

test('a slab is used again when it is full and no message in it is held, not before', () => {
  const pool = slabPool(8 * MiB);
  const slab = pool.take(10);
  pool.hold(slab);
  pool.hold(slab);
  pool.letGo(slab, true);
  pool.filled(slab);
  assert.is(pool.free, 0);
  assert.is.not(pool.take(10).bytes, slab.bytes);
  pool.letGo(slab, true);
  assert.is(pool.free, 1);
  assert.is(pool.take(10).bytes, slab.bytes);
  assert.is(pool.free, 0);
});

test('a slab that is still being filled waits for that', () => {
  const pool = slabPool(8 * MiB);
  const slab = pool.take(10);
  pool.hold(slab);
  pool.letGo(slab, true);
  assert.is(pool.free, 0);
  pool.filled(slab);
  assert.is(pool.free, 1);
});

test('one that somebody may still read is never used again', () => {
  const pool = slabPool(8 * MiB);
  const slab = pool.take(10);
  pool.hold(slab);
  pool.hold(slab);
  pool.letGo(slab, false);
  pool.letGo(slab, true);
  pool.filled(slab);
  assert.is(pool.free, 0);
});

test('what is kept for later has a bound, and slabs of other sizes are not kept', () => {
  const pool = slabPool(2 * MiB);
  const slabs = Array.from({ length: 5 }, () => pool.take(1));
  for (const slab of slabs) pool.filled(slab);
  assert.is(pool.free, 2);
  const large = pool.take(3 * MiB);
  assert.is(large.bytes.length, 3 * MiB);
  assert.is(pool.free, 2);
  pool.filled(large);
  pool.filled(pool.first());
  assert.is(pool.free, 2);
});

test.run();

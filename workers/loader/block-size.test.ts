import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createBlockSizer } from './block-size.js';

const full = { rows: 200_000, bytes: 64 * 1024 ** 2, delayMs: 1_000 };
const block = (rows: number, messages = 100) => ({
  lo: 1,
  hi: messages,
  rows,
  duplicate: 0,
  dead: 0,
  bytes: rows * 150,
});

test('blocks are halved until one passes, whatever the limits were; a single message cannot be halved', () => {
  const sizer = createBlockSizer(full);
  assert.equal(sizer.limits(), full);
  const tried: number[] = [];
  // A server that takes 700 rows.
  for (let rows = 40_000; rows > 700; rows = sizer.limits().rows) {
    tried.push(rows);
    assert.ok(sizer.smaller(block(rows)));
  }
  assert.equal(tried, [40_000, 20_000, 10_000, 5_000, 2_500, 1_250]);
  assert.not.ok(sizer.smaller(block(625, 1)));
  assert.is(sizer.limits().rows, 625);
  assert.is(sizer.limits().delayMs, 1_000);
});

test('they grow again after a number of blocks that passed, more slowly after many halvings', () => {
  const sizer = createBlockSizer(full);
  const grown = (): number => {
    const { rows } = sizer.limits();
    for (let blocks = 1; ; blocks++) {
      sizer.stored();
      if (sizer.limits().rows > rows) return blocks;
    }
  };
  sizer.smaller(block(200_000));
  assert.is(grown(), 16);
  assert.equal(sizer.limits(), full);
  for (let i = 0; i < 3; i++) sizer.smaller(block(sizer.limits().rows));
  assert.equal([grown(), grown(), grown()], [64, 64, 64]);
  assert.equal(sizer.limits(), full);
  // At its full size again it is as patient as in the beginning.
  sizer.smaller(block(200_000));
  assert.is(grown(), 16);
});

test.run();

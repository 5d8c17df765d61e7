import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRandom, makeUuid } from '../testing/batches.js';
import { shardOf } from './shard.js';

test('the shard of a batch never changes: these values are stored in logs already', () => {
  assert.equal(
    [
      shardOf('acme', '01', 16),
      shardOf('acme', '02', 16),
      shardOf('globex', '01', 16),
      shardOf('', '', 16),
      shardOf('acme', 'b-2026-01-01/17', 1024),
    ],
    [6, 5, 3, 0, 678],
  );
});

test('tenant and batch id do not run together', () => {
  assert.is.not(shardOf('ab', 'c', 2 ** 30), shardOf('a', 'bc', 2 ** 30));
});

test('batches spread evenly, also those whose ids differ in their last digit only', () => {
  const random = createRandom(3);
  for (const name of [() => makeUuid(random), (i: number) => `batch-${i}`]) {
    const counts = new Array<number>(8).fill(0);
    for (let i = 0; i < 8000; i++) counts[shardOf('acme', name(i), 8)]!++;
    // 1000 expected; 5 standard deviations are 148.
    for (const count of counts) assert.ok(Math.abs(count - 1000) < 150, `${counts}`);
  }
});

test('every shard number is below the number of shards', () => {
  for (let i = 0; i < 1000; i++) {
    const shard = shardOf('t', `${i}`, 3);
    assert.ok(shard === 0 || shard === 1 || shard === 2);
  }
});

test.run();

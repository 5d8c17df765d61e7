import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { median, medianOf, ratioOfRounds } from './medians.js';

test('the median is the middle value, or the mean of the middle two', () => {
  assert.is(median([3, 1, 100]), 3);
  assert.is(median([4, 1, 2, 100]), 3);
  assert.is(median([Number.NaN, 5]), 5);
  assert.ok(Number.isNaN(median([])));
});

test('figures of rounds are taken key by key', () => {
  const rounds = [{ a: 1, b: 10 }, { a: 3, b: 30 }, { a: 2 }];
  assert.equal(medianOf(rounds), { a: 2, b: 20 });
});

test('a ratio is taken within each round, so that a slow round for both sides does not move it', () => {
  assert.is(ratioOfRounds([10, 5, 11], [20, 10, 20]), 0.5);
});

test.run();

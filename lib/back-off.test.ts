import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { backOff, jittered, retryAfter } from './back-off.js';

test('waits double from the first to the last, however many failures there were', () => {
  const waits = { first: 100, last: 1_000 };
  assert.equal(
    [1, 2, 3, 4, 5, 6, 5_000].map((failures) => backOff(waits, failures)),
    [100, 200, 400, 800, 1_000, 1_000, 1_000],
  );
});

test('a wait of this process is shortened by up to a half; what a client is to wait is a half less or more', () => {
  const ends = [() => 0, () => 1];
  assert.equal(
    ends.map((random) => jittered(100, random)),
    [50, 100],
  );
  assert.equal(
    ends.map((random) => retryAfter(101, random)),
    [51, 152],
  );
});

test.run();

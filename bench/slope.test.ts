import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRandom } from '../lib/testing/batches.js';
import { type Sample, slopeOf } from './slope.js';

const samples = (seconds: number, value: (at: number) => number): Sample[] =>
  Array.from({ length: seconds * 2 }, (_, i) => ({ at: i / 2, value: value(i / 2) }));

test('a straight line has its slope, and no doubt about it', () => {
  const slope = slopeOf(samples(60, (at) => 100 + at / 6));
  assert.ok(Math.abs(slope.perMinute - 10) < 0.01);
  assert.ok(slope.high - slope.low < 0.5);
});

test("a garbage collector's saw-tooth is no trend", () => {
  const slope = slopeOf(samples(60, (at) => 100 + (at % 7) * 5));
  assert.ok(slope.low < 0 && slope.high > 0, JSON.stringify(slope));
});

test('a leak shows through a saw-tooth ten times its minute', () => {
  const slope = slopeOf(samples(300, (at) => 100 + (at % 7) * 5 + at / 2));
  assert.ok(slope.low > 20 && slope.high < 40, JSON.stringify(slope));
});

test('noise that wanders is not taken for a leak more often than one time in six', () => {
  const random = createRandom(3);
  let wrong = 0;
  for (let run = 0; run < 200; run++) {
    let wander = 0;
    const { low, high } = slopeOf(
      samples(60, () => {
        wander = wander * 0.95 + (random() - 0.5) * 4;
        return 200 + wander;
      }),
    );
    if (low > 0 || high < 0) wrong++;
  }
  assert.ok(wrong < 34, `${wrong} of 200`);
});

test('a few samples say nothing', () => {
  assert.is(slopeOf([]).high, Number.POSITIVE_INFINITY);
  assert.is(slopeOf([{ at: 1, value: 5 }]).low, Number.NEGATIVE_INFINITY);
});

test.run();

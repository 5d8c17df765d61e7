import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Sample } from '../slope.js';
import { bandOf, recoverySeconds } from './recovery.js';

const every = (step: number, until: number, value: (at: number) => number): Sample[] =>
  Array.from({ length: until / step }, (_, i) => ({ at: (i + 1) * step, value: value((i + 1) * step) }));

test('the band is what the base shows, with room, and not below what is not noticed', () => {
  const base = every(1, 100, (at) => at);
  assert.is(bandOf(base, 5).most, 96 * 1.5);
  assert.is(bandOf([{ at: 1, value: 2 }], 5).most, 5);
  assert.is(bandOf([], 5).most, 5);
});

test('recovery is the time until the measure is back and stays', () => {
  const samples = every(0.25, 20, (at) => (at > 5 && at <= 11.5 ? 100 : 10));
  assert.is(recoverySeconds(samples, { most: 20 }, 10), 1.75);
});

test('a moment within the band is not yet recovery', () => {
  const samples = every(0.25, 20, (at) => (at <= 14 && at % 1 !== 0 ? 100 : 10));
  assert.is(recoverySeconds(samples, { most: 20 }, 10), 4);
});

test('what never left the band is back at once: with the first sample after the step', () => {
  assert.is(
    recoverySeconds(
      every(0.25, 20, () => 10),
      { most: 20 },
      10,
    ),
    0.25,
  );
});

test('what stays above, or tells nothing, has not recovered', () => {
  assert.is(
    recoverySeconds(
      every(0.25, 20, () => 100),
      { most: 20 },
      10,
    ),
    Number.POSITIVE_INFINITY,
  );
  assert.is(
    recoverySeconds(
      every(0.25, 20, () => Number.NaN),
      { most: 20 },
      10,
    ),
    Number.POSITIVE_INFINITY,
  );
});

test.run();

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { RefusedRow } from './refused-row.js';

/** At which of these places the row is full. */
function fullAt(places: Iterable<number>): number | undefined {
  const row = new RefusedRow();
  for (const place of places) if (row.add(place)) return place;
  return undefined;
}

const to = (last: number): number[] => Array.from({ length: last }, (_, i) => i + 1);

test('a hundred refused batches in a row are too many, and 99 are not', () => {
  assert.is(fullAt(to(150)), 100);
  assert.is(fullAt(to(99)), undefined);
});

test('a good batch between them begins another row, whenever its answer comes', () => {
  assert.is(fullAt(to(150).filter((place) => place !== 60)), undefined);
  assert.is(fullAt(to(200).filter((place) => place !== 60)), 160);
  assert.is(fullAt(to(10_000).filter((place) => place % 100 !== 0)), undefined);
});

test('refusals that come in the wrong order count', () => {
  // 1, 3, 2, 4, 6, 5 …
  const swapped = to(201).map((place) => place + ([0, 1, -1][(place - 1) % 3] ?? 0));
  assert.equal(swapped.slice(0, 6), [1, 3, 2, 4, 6, 5]);
  assert.is(fullAt(swapped), 100);
});

test.run();

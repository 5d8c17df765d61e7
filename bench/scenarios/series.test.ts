import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { boundedSeries } from './series.js';

test('a short run is kept point by point', () => {
  const series = boundedSeries<number>(100, (a, b) => a + b);
  for (let i = 0; i < 50; i++) series.push(i);
  assert.equal(
    series.points,
    Array.from({ length: 50 }, (_, i) => i),
  );
});

test('a long run stays bounded, in order, and loses nothing but the last unfinished point', () => {
  const series = boundedSeries<{ from: number; sum: number }>(64, (a, b) => ({ from: a.from, sum: a.sum + b.sum }));
  for (let i = 0; i < 100_000; i++) series.push({ from: i, sum: 1 });
  assert.ok(series.points.length >= 32 && series.points.length < 64);
  const total = series.points.reduce((sum, point) => sum + point.sum, 0);
  assert.ok(total <= 100_000 && total > 95_000, `${total}`);
  assert.ok(series.points.every((point, i) => i === 0 || point.from > series.points[i - 1]!.from));
});

test.run();

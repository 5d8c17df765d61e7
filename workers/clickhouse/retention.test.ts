import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type DayContent, droppableDays } from './retention.js';

const day = (name: string, hi: number, shard = 0, generation = 'g'): DayContent => ({
  day: name,
  hi,
  shard,
  generation,
});
const streams = (firstSequence: number) => new Map([[0, { generation: 'g', firstSequence }]]);

test('days before the cutoff go, from it on they stay', () => {
  const contents = [day('2026-01-01', 10), day('2026-01-02', 20), day('2026-01-03', 30)];
  assert.equal(droppableDays(contents, streams(31), '2026-01-03'), ['2026-01-01', '2026-01-02']);
});

test('a day whose messages are still in the stream stays (LOAD-8)', () => {
  const contents = [day('2026-01-01', 10), day('2026-01-02', 20), day('2026-01-09', 30)];
  assert.equal(droppableDays(contents, streams(15), '2026-01-05'), ['2026-01-01']);
  assert.equal(droppableDays(contents, streams(10), '2026-01-05'), []);
});

test("the day of a shard's newest block stays: its position is read from there (LOAD-3)", () => {
  assert.equal(droppableDays([day('2026-01-01', 10), day('2026-01-02', 20)], streams(21), '2026-02-01'), [
    '2026-01-01',
  ]);
});

test('one shard that needs a day keeps it for all', () => {
  const contents = [day('2026-01-01', 10), day('2026-01-01', 7, 1), day('2026-01-09', 30), day('2026-01-09', 8, 1)];
  const both = new Map([...streams(31), [1, { generation: 'g', firstSequence: 7 }] as const]);
  assert.equal(droppableDays(contents, both, '2026-01-05'), []);
});

test('blocks of a stream that is gone hold nothing back', () => {
  const contents = [day('2026-01-01', 10, 0, 'old'), day('2026-01-09', 30)];
  assert.equal(droppableDays(contents, streams(1), '2026-01-05'), ['2026-01-01']);
});

test.run();

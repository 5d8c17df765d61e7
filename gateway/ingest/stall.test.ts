import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createStallWatch } from './stall.js';

const minute = 60_000;

function setting() {
  const stalls: number[] = [];
  const watch = createStallWatch(5 * minute, (ms) => stalls.push(ms));
  watch.look(1_000, 9_000_000);
  return { watch, stalls };
}

test('while it looks at its clocks in time, nothing is doubted, however long it runs', () => {
  const { watch, stalls } = setting();
  for (let ms = 1_000; ms < 600 * minute; ms += 4 * minute) {
    assert.not(watch.doubts(0, 1_000 + ms, 9_000_000 + ms));
  }
  assert.equal(stalls, []);
});

test('STALL-1, STALL-2: it is noticed with the first batch that is read after it, before any timer, by either clock', () => {
  for (const [now, wall] of [
    [5 * minute + 1, 5 * minute + 1],
    // Suspended with its machine: the monotonic clock did not run.
    [0, 5 * minute + 1],
    // The wall clock was set back meanwhile.
    [5 * minute + 1, -60 * minute],
  ] as const) {
    const { watch, stalls } = setting();
    assert.ok(watch.doubts(500, 1_000 + now, 9_000_000 + wall));
    assert.equal(stalls, [5 * minute + 1]);
  }
});

test('STALL-3: older connections, and those of the minute after, are doubted for as long as they live; later ones are not', () => {
  const { watch, stalls } = setting();
  const resumed = 1_000 + 120 * minute;
  const wall = (now: number): number => 9_000_000 - 1_000 + now;
  watch.look(resumed, wall(resumed));
  for (let now = resumed; now < resumed + 20 * minute; now += minute / 2) {
    assert.ok(watch.doubts(500, now, wall(now)));
    assert.ok(watch.doubts(resumed + minute - 1, now, wall(now)));
    assert.not(watch.doubts(resumed + minute, now, wall(now)));
  }
  assert.is(stalls.length, 1);
  watch.stalled(resumed + 30 * minute, 1);
  assert.ok(watch.doubts(resumed + 30 * minute, resumed + 30 * minute, wall(resumed + 30 * minute)));
});

test.run();

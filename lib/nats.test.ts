import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { reconnectPacing } from './nats.js';

/** Tries of a connection whose every try fails at once, as the library makes them: ms after the first ask. */
function tries(ms: number, random: () => number, wallShift = 0): number[] {
  let now = 1_000;
  const wait = reconnectPacing(() => now, random);
  const made: number[] = [];
  let lastWall = Number.NEGATIVE_INFINITY;
  while (now < 1_000 + ms) {
    const asked = wait();
    const wall = now - (made.length > 0 ? wallShift : 0);
    if (lastWall + asked <= wall) {
      made.push(now - 1_000);
      lastWall = now;
    } else {
      now += Math.min(asked, lastWall + asked - wall);
    }
  }
  return made;
}

test('the first try goes at once, and the next ones come 50 ms to 1 s apart, with back-off and jitter', () => {
  assert.equal(
    tries(4_000, () => 1),
    [0, 100, 300, 700, 1_500, 2_500, 3_500].map((ms) => ms),
  );
  assert.equal(
    tries(1_000, () => 0),
    [0, 50, 150, 350, 750],
  );
});

test('a wall clock that was set back by an hour does not keep a connection from trying', () => {
  assert.equal(tries(4_000, () => 0, 3_600_000).length, tries(4_000, () => 0).length);
});

test('a server that takes connections and drops them is not hammered; after a good connection the pace is new', () => {
  let now = 0;
  const wait = reconnectPacing(
    () => now,
    () => 1,
  );
  let dials = 0;
  for (; now < 10_000; now += 10) if (wait() === Number.NEGATIVE_INFINITY) dials++;
  assert.ok(dials < 15, `${dials} tries in 10 s`);
  now += 60_000;
  assert.is(wait(), Number.NEGATIVE_INFINITY);
  assert.is(wait(), 100);
});

test.run();

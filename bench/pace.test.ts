import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createClosedLoop, createOpenLoop } from './pace.js';

test('an open loop owes one batch per interval, the first at the start', () => {
  const pace = createOpenLoop(100, 1_000);
  assert.is(pace.due(999), 0);
  assert.is(pace.wait(990), 10);
  assert.is(pace.due(1_000), 1);
  assert.is(pace.take(1_000), 1_000);
  assert.is(pace.due(1_000), 0);
  assert.is(pace.wait(1_004), 6);
  assert.is(pace.due(1_010), 1);
});

test('a stall does not move the schedule: what was missed keeps its intended time', () => {
  const pace = createOpenLoop(100, 0);
  pace.take(0);
  assert.is(pace.due(55), 5);
  assert.equal([pace.take(55), pace.take(55), pace.take(55), pace.take(55), pace.take(55)], [10, 20, 30, 40, 50]);
  assert.is(pace.due(55), 0);
  assert.is(pace.wait(55), 5);
});

test('an open loop sends exactly rate × time over a long run, whatever the ticks', () => {
  const pace = createOpenLoop(1_234.5, 7);
  let taken = 0;
  for (let now = 7; now <= 60_007; now += 1 + (taken % 13)) {
    for (let due = pace.due(now); due > 0; due--) {
      assert.ok(pace.take(now) <= now);
      taken++;
    }
  }
  assert.ok(Math.abs(taken - 1_234.5 * 60) <= 20, `${taken} taken`);
});

test('a closed loop is always due and intends to send now', () => {
  const pace = createClosedLoop();
  assert.is(pace.due(5), Number.POSITIVE_INFINITY);
  assert.is(pace.take(5), 5);
  assert.is(pace.wait(5), 0);
});

test.run();

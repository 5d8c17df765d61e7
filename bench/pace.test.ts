import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createClosedLoop, createOpenLoop, createPhasedLoop } from './pace.js';

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

test('a loop of phases sends what each asks for, at times that a stall does not move, and nothing afterwards', () => {
  const phases = [
    { seconds: 1, perSecond: 10 },
    { seconds: 1, perSecond: 0 },
    { seconds: 2, perSecond: 100 },
  ];
  const pace = createPhasedLoop(phases, 1_000, 0.5);
  assert.is(pace.due(1_049), 0);
  assert.is(Math.round(pace.wait(1_000)), 50);
  const times: number[] = [];
  // One tick a phase: what was missed keeps its time.
  for (const now of [1_999, 2_999, 5_500]) for (let due = pace.due(now); due > 0; due--) times.push(pace.take(now));
  const within = (from: number, to: number) => times.filter((at) => at >= from && at < to).length;
  assert.equal([within(1_000, 2_000), within(2_000, 3_000), within(3_000, 5_000)], [10, 0, 200]);
  assert.equal(times.map(Math.round), [...times].sort((a, b) => a - b).map(Math.round));
  assert.is(Math.round(times[1]! - times[0]!), 100);
  assert.is(pace.due(1e9), 0);
  assert.is(pace.wait(5_500), Number.POSITIVE_INFINITY);
});

test('a closed loop is always due and intends to send now', () => {
  const pace = createClosedLoop();
  assert.is(pace.due(5), Number.POSITIVE_INFINITY);
  assert.is(pace.take(5), 5);
  assert.is(pace.wait(5), 0);
});

test.run();

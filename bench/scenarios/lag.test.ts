import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createLagMeter } from './lag.js';

test('lag is the age of the oldest event that is not stored', () => {
  const meter = createLagMeter();
  for (let at = 1; at <= 10; at++) meter.acked(at, at * 100);
  assert.is(meter.lag(10, 1000), 0);
  assert.is(meter.lag(10, 700), 3);
  assert.is(meter.lag(10.5, 750), 3);
  assert.is(meter.lag(10, 0), 10);
});

test('what is stored before its acknowledgement was heard of is not behind', () => {
  const meter = createLagMeter();
  meter.acked(1, 100);
  assert.is(meter.lag(1.2, 150), 0);
});

test('a silence before the missing event does not count as its age', () => {
  const meter = createLagMeter();
  meter.acked(1, 100);
  for (let at = 2; at <= 100; at++) meter.acked(at, 100);
  meter.acked(101, 300);
  assert.ok(meter.lag(102, 100) <= 2);
});

test('the curve stays bounded', () => {
  const meter = createLagMeter();
  for (let i = 1; i <= 100_000; i++) meter.acked(i, i);
  assert.is(meter.lag(100_000, 99_990), 10);
  assert.ok(meter.lag(100_000, 0) <= 10_000);
});

test.run();

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { CallBudget } from './call-budget.js';

test('a hundred may be taken at once, and not one more', () => {
  const budget = new CallBudget({ max: 100, backPerSecond: 10 }, 0);
  for (let i = 0; i < 100; i++) assert.ok(budget.take(0), String(i));
  assert.not(budget.take(0));
});

test('what is refused costs nothing: a budget that is empty fills up while more is asked for', () => {
  const budget = new CallBudget({ max: 100, backPerSecond: 10 }, 0);
  for (let i = 0; i < 10_000; i++) budget.take(0);
  assert.not(budget.take(100, 2));
  assert.ok(budget.take(100));
});

test('with time ten come back a second, and never more than a hundred', () => {
  const budget = new CallBudget({ max: 100, backPerSecond: 10 }, 0);
  for (let i = 0; i < 100; i++) budget.take(0);
  for (let i = 0; i < 10; i++) assert.ok(budget.take(1_000), String(i));
  assert.not(budget.take(1_000));
  const later = 24 * 3_600_000;
  for (let i = 0; i < 100; i++) assert.ok(budget.take(later), String(i));
  assert.not(budget.take(later));
});

test('a client whose key was revoked, and that tries again each second, goes on for a day', () => {
  const budget = new CallBudget({ max: 100, backPerSecond: 10 }, 0);
  for (let second = 0; second < 86_400; second++) assert.ok(budget.take(second * 1_000), String(second));
});

test('a connection with as many useful calls may go on with the others forever', () => {
  const budget = new CallBudget({ max: 100, backPerSecond: 10 }, 0);
  for (let i = 0; i < 100_000; i++) {
    budget.giveBack();
    assert.ok(budget.take(10), String(i));
  }
});

test.run();

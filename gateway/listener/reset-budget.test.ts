import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ResetBudget } from './reset-budget.js';

test('a hundred calls may be taken back at once, and not one more', () => {
  const budget = new ResetBudget(0);
  for (let i = 0; i < 100; i++) assert.ok(budget.reset(0, 0), String(i));
  assert.not(budget.reset(0, 0));
});

test('with time ten come back a second, and never more than a hundred', () => {
  const budget = new ResetBudget(0);
  for (let i = 0; i < 100; i++) budget.reset(0, 0);
  for (let i = 0; i < 10; i++) assert.ok(budget.reset(0, 1_000), String(i));
  assert.not(budget.reset(0, 1_000));
  const later = 24 * 3_600_000;
  for (let i = 0; i < 100; i++) assert.ok(budget.reset(0, later), String(i));
  assert.not(budget.reset(0, later));
});

test('calls that end at their deadline are not counted: a proxy with 256 of them at once keeps its connection', () => {
  const budget = new ResetBudget(0);
  for (let i = 0; i < 10_000; i++) assert.ok(budget.reset(400, 2_000));
});

test('who has answers for most of its calls may take back the others, forever', () => {
  const budget = new ResetBudget(0);
  for (let i = 0; i < 100_000; i++) {
    budget.answered();
    assert.ok(budget.reset(5, 10), String(i));
  }
});

test.run();

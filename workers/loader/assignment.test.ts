import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { expiryMs, liveWorkers, neighbourOf, shardsOf } from './assignment.js';

test('every shard has exactly one worker, whichever worker looks', () => {
  for (let workers = 1; workers <= 7; workers++) {
    const live = Array.from({ length: workers }, (_, i) => `w${i}`);
    const taken = live.flatMap((worker) => shardsOf(worker, live, 16)).sort((a, b) => a - b);
    assert.equal(
      taken,
      Array.from({ length: 16 }, (_, i) => i),
    );
  }
});

test('a worker that is not among the live ones takes none', () => {
  assert.equal(shardsOf('x', ['a', 'b'], 4), []);
});

test('each of several is asked by exactly one other', () => {
  const live = ['a', 'b', 'c'];
  assert.equal(live.map((worker) => neighbourOf(worker, live)).sort(), live);
  assert.is(neighbourOf('c', live), 'a');
  assert.is(neighbourOf('a', ['a']), undefined);
  assert.is(neighbourOf('x', live), undefined);
});

test('a worker is gone when it was not heard for longer than the expiry', () => {
  const heard = new Map([
    ['b', 1_000],
    ['a', 1_000 + expiryMs],
  ]);
  assert.equal(liveWorkers(heard, 1_000 + expiryMs), ['a', 'b']);
  assert.equal(liveWorkers(heard, 1_001 + expiryMs), ['a']);
  assert.not.ok(heard.has('b'));
});

test.run();

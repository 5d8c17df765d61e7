import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRandom, integer } from '../../lib/testing/batches.js';
import { createDeadlines } from './deadlines.js';

function bench() {
  let time = 1_000;
  let timer: { at: number; callback: () => void } | undefined;
  const expired: { name: string; at: number }[] = [];
  const deadlines = createDeadlines<string>({
    tickMs: 10,
    now: () => time,
    after: (ms, callback) => {
      assert.is(timer, undefined, 'one timer for all');
      timer = { at: time + ms, callback };
      return () => {
        timer = undefined;
      };
    },
    expired: (name) => expired.push({ name, at: time }),
  });
  return {
    deadlines,
    expired,
    timerSet: () => timer !== undefined,
    now: () => time,
    advance(ms: number) {
      const end = time + ms;
      while (timer !== undefined && timer.at <= end) {
        time = timer.at;
        const { callback } = timer;
        timer = undefined;
        callback();
      }
      time = end;
    },
  };
}

test('a deadline is reported after it has passed, two ticks late at most, and once', () => {
  const random = createRandom(5);
  const b = bench();
  const due = new Map<string, number>();
  for (let i = 0; i < 500; i++) {
    const at = b.now() + integer(random, 0, 300);
    due.set(`d${i}`, at);
    b.deadlines.add(`d${i}`, at);
    b.advance(random() * 5);
  }
  b.advance(1_000);
  assert.is(b.expired.length, 500);
  assert.is(new Set(b.expired.map(({ name }) => name)).size, 500);
  for (const { name, at } of b.expired) {
    const late = at - (due.get(name) ?? 0);
    assert.ok(late >= 0 && late <= 20, `${late} ms late`);
  }
});

test('what settled in time is not told, and leaves neither memory nor timer', () => {
  const b = bench();
  const bucket = b.deadlines.add('a', b.now() + 50);
  assert.ok(b.timerSet());
  b.deadlines.remove('a', bucket);
  assert.is(b.deadlines.size, 0);
  b.advance(100);
  assert.equal(b.expired, []);
  assert.not(b.timerSet());
});

test.run();

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Acked, TimeSlot } from './tally.js';
import {
  fairness,
  judgeErrors,
  judgeFairness,
  judgeLatency,
  judgeMemory,
  judgeRecovery,
  judgeStored,
  judgeUptime,
  type StoredBatches,
  uptime,
} from './verdicts.js';

const slot = (at: number, ok: number, failed = 0, waiting = 0): TimeSlot => ({
  at,
  ok,
  failed,
  waiting,
  acked: 0,
  ack: { p50: 1, p95: 1, p99: 1 },
});
const seconds = (n: number, of: (second: number) => TimeSlot[]): TimeSlot[] =>
  Array.from({ length: n }, (_, i) => of(i)).flat();

test('a second counts as up when calls succeed in it', () => {
  const good = seconds(10, (s) => [250, 500, 750, 1000].map((ms) => slot(s * 1000 + ms, 5)));
  assert.equal(uptime(good), { up: 10, seconds: 10 });
  assert.ok(judgeUptime(uptime(good)).passed);
});

test('a second without an answer while calls wait is down, and one without calls does not count', () => {
  const mixed = [slot(900, 5), slot(1900, 0, 0, 7), slot(2900, 0, 0, 0), slot(3900, 5)];
  assert.equal(uptime(mixed), { up: 2, seconds: 3 });
  assert.not(judgeUptime(uptime(mixed)).passed);
});

test('a second in which more than 5 % of the answers are failures is down', () => {
  assert.equal(uptime([slot(900, 95, 5), slot(1900, 94, 6), slot(2900, 0, 3)]), { up: 1, seconds: 3 });
});

test('one second of 2000 may be down, two may not; none at all is no uptime', () => {
  assert.ok(judgeUptime({ up: 1999, seconds: 2000 }).passed);
  assert.not(judgeUptime({ up: 1997, seconds: 2000 }).passed);
  assert.not(judgeUptime({ up: 0, seconds: 0 }).passed);
});

test('latency is held to P95 < 100 ms and P99 < 250 ms', () => {
  const passed = (p95: number, p99: number) => judgeLatency({ p50: 1, p95, p99 }).map((verdict) => verdict.passed);
  assert.equal(passed(99, 249), [true, true]);
  assert.equal(passed(100, 250), [false, false]);
  assert.equal(passed(Number.NaN, Number.NaN), [false, false]);
});

test('errors are held to 0.1 % of the answers', () => {
  assert.ok(judgeErrors(0, 1000).passed);
  assert.ok(judgeErrors(9, 10_000).passed);
  assert.not(judgeErrors(10, 10_000).passed);
  assert.not(judgeErrors(0, 0).passed);
});

const acked: Acked[] = [
  { events: 50, idSum: 7, batches: { 5: 10 } },
  { events: 60, idSum: 9, batches: { 5: 4, 20: 2 } },
];
const whole: StoredBatches[] = [
  { tenant: 'a', rows: 5, batches: 10, idSum: 7 },
  { tenant: 'b', rows: 5, batches: 4, idSum: 4 },
  { tenant: 'b', rows: 20, batches: 2, idSum: 5 },
];
const stored = (rows: StoredBatches[], unresolved = 0) => judgeStored(['a', 'b'], acked, rows, unresolved);
const changed = (at: number, change: Partial<StoredBatches>) =>
  whole.map((row, i) => (i === at ? { ...row, ...change } : row));

test('what is stored as acknowledged is whole', () => {
  assert.ok(stored(whole).passed);
});

test('a lost batch, a doubled one, and one of a stranger are each found', () => {
  assert.match(stored(changed(0, { batches: 9 })).found, /a: 1 of 10 batches of 5 events not stored/);
  const doubled = [...changed(0, { batches: 9 }), { tenant: 'a', rows: 10, batches: 1, idSum: 1 }];
  assert.match(stored(doubled).found, /a: 1 batches of 10 events beyond/);
  assert.match(stored([...whole, { tenant: 'c', rows: 1, batches: 1, idSum: 0 }]).found, /c: rows of a customer/);
  assert.not(stored(changed(0, { batches: 9 })).passed);
  assert.not(stored(doubled).passed);
});

test('a lost batch is not made good by one that no client heard of, nor by the batch of another customer', () => {
  assert.match(stored(changed(0, { idSum: 8 })).found, /a: other event_ids/);
  const swapped = [...changed(0, { batches: 11 })].map((row, i) => (i === 1 ? { ...row, batches: 3 } : row));
  assert.not(stored(swapped).passed);
});

test('a batch without an answer may be stored once, and no acknowledged one may be missing for it', () => {
  assert.ok(stored(changed(0, { batches: 11, idSum: 8 }), 1).passed);
  assert.not(stored(changed(0, { batches: 12 }), 1).passed);
  assert.not(stored(changed(0, { batches: 9 }), 1).passed);
  assert.not(stored([...changed(0, { batches: 9 }), { tenant: 'a', rows: 10, batches: 1, idSum: 0 }], 1).passed);
});

test('a run that stored nothing proves nothing', () => {
  assert.not(judgeStored(['a'], [{ events: 0, idSum: 0, batches: {} }], [], 0).passed);
});

test('memory fails when it clearly grows, and not for noise', () => {
  assert.ok(judgeMemory('gateway', { perMinute: 30, low: 4, high: 56 }, 5).passed);
  assert.not(judgeMemory('gateway', { perMinute: 30, low: 6, high: 54 }, 5).passed);
  assert.not(judgeMemory('gateway', { perMinute: Number.NaN, low: -1, high: 1 }, 5).passed);
});

test('recovery is held to its bound, and never is not soon enough', () => {
  assert.ok(judgeRecovery('recovery', 3.1, 3.1, '20 ms').passed);
  assert.not(judgeRecovery('recovery', 3.2, 3.1, '20 ms').passed);
  assert.not(judgeRecovery('recovery', Number.POSITIVE_INFINITY, 3.1, '20 ms').passed);
});

test('shares are fair when all are served alike', () => {
  assert.is(fairness([1, 1, 1, 1]), 1);
  assert.is(fairness([1, 0, 0, 0]), 0.25);
  assert.ok(judgeFairness('fair shares', [1, 0.99, 1]).passed);
  assert.not(judgeFairness('fair shares', [1, 1, 1, 1, 1, 1, 1, 1, 1, 0.9]).passed);
  assert.not(judgeFairness('fair shares', [1, 0.2, 1]).passed);
});

test.run();

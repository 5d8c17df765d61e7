import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createLiveWorkers, expiryMs, heartbeatMs, type LiveWorkers, neighbourOf, shardsOf } from './live-workers.js';

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

/** Worker b, which hears a and itself every second until `untilMs`: a at 0, b 40 ms later. */
function pair(untilMs: number): LiveWorkers {
  const workers = createLiveWorkers('b');
  for (let ms = 0; ms <= untilMs; ms += heartbeatMs) {
    workers.heard('a', ms);
    workers.heard('b', ms + 40);
  }
  return workers;
}

test('a new worker knows the live ones at its first heartbeat', () => {
  const workers = createLiveWorkers('b');
  workers.heard('a', 0);
  assert.is(workers.known(10), undefined, 'before it is heard itself');
  workers.heard('b', 20);
  assert.equal(workers.known(20), ['a', 'b']);
});

test('a worker is gone when it is silent for longer than the expiry, while this one is heard (LIVE-1)', () => {
  const workers = pair(0);
  for (let ms = heartbeatMs; ms < expiryMs; ms += heartbeatMs) workers.heard('b', ms);
  workers.heard('b', expiryMs);
  assert.equal(workers.known(expiryMs), ['a', 'b']);
  workers.heard('b', expiryMs + 1);
  assert.equal(workers.known(expiryMs + 1), ['b']);
});

test('a worker that leaves is gone at once; an entry of this one that is deleted by mistake changes nothing', () => {
  const workers = pair(1_000);
  workers.gone('b');
  assert.equal(workers.known(1_100), ['a', 'b']);
  workers.gone('a');
  assert.equal(workers.known(1_100), ['b']);
});

test('while nothing is heard, no moment takes another worker for gone (LIVE-1)', () => {
  const workers = pair(2_000);
  for (let ms = 2_040; ms < 12_000; ms += 5) {
    const known = workers.known(ms);
    assert.ok(known === undefined || String(known) === 'a,b', `at ${ms}: ${known}`);
    assert.is(workers.isIsolated(ms), ms > 2_040 + expiryMs);
  }
});

test('after a silence the others have the expiry to be heard, whatever order heartbeats come in (LIVE-2)', () => {
  for (const silence of [2_100, expiryMs, 10_000]) {
    const workers = pair(2_000);
    const back = 2_040 + silence;
    workers.heard('b', back);
    assert.is(workers.known(back), undefined);
    for (let ms = back + heartbeatMs; ms < back + expiryMs; ms += heartbeatMs) workers.heard('b', ms);
    workers.heard('a', back + expiryMs - 10);
    assert.is(workers.known(back + expiryMs - 1), undefined);
    assert.equal(workers.known(back + expiryMs), ['a', 'b']);
  }
});

test('a worker that stays away after a silence is gone once the others had their time (LIVE-2)', () => {
  const workers = pair(2_000);
  for (let ms = 10_000; ms <= 10_000 + expiryMs; ms += heartbeatMs) workers.heard('b', ms);
  assert.equal(workers.known(10_000 + expiryMs), ['b']);
});

test.run();

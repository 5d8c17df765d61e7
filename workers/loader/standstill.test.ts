import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createStandstill } from './standstill.js';

function scene() {
  let now = 0;
  const still = createStandstill({ afterMs: 20_000, now: () => now });
  return {
    still,
    after: (ms: number, work: boolean) => {
      now += ms;
      return still.look(work);
    },
  };
}

test('a shard with something to load and without a stored block stands still after 20 s, with the last reason', () => {
  const { still, after } = scene();
  still.failed('storing a block fails', new Error('ClickHouse 60 UNKNOWN_TABLE'));
  assert.is(after(19_000, true), undefined);
  assert.equal(after(2_000, true), { seconds: 21, reason: 'storing a block fails: ClickHouse 60 UNKNOWN_TABLE' });
  still.moved();
  assert.is(after(1_000, true), undefined);
  // Nothing was heard of at all.
  assert.match(after(20_000, true)?.reason ?? '', /nothing has failed/);
});

test('a shard without work does not stand still, however long, and its old failures are no reason for later', () => {
  const { still, after } = scene();
  still.failed('reading back', 'down');
  assert.is(after(100_000, false), undefined);
  assert.is(after(15_000, true), undefined);
  assert.match(after(15_000, true)?.reason ?? '', /nothing has failed/);
});

test('a stopped shard stands still at once, also when its stream is empty', () => {
  const { still, after } = scene();
  still.stopped('the stream went backwards');
  assert.equal(after(0, false), { seconds: 0, reason: 'the stream went backwards', halted: true });
  still.moved();
  assert.is(after(0, false), undefined);
});

test.run();

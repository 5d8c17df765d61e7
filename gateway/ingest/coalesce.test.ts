import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRandom, integer, pick } from '../../lib/testing/batches.js';
import type { FlushReason } from '../metrics.js';
import { createCoalescer, type Group } from './coalesce.js';

interface Item {
  readonly id: number;
  readonly key: string;
  readonly bytes: number;
  readonly addedAt: number;
}

/** A coalescer with a clock that the test moves, and all that left it. */
function bench(options: { maxBytes: number; largeBytes: number; maxDelay: number }) {
  let time = 0;
  let timer: { at: number; callback: () => void } | undefined;
  let timersSet = 0;
  const left: { group: Group<Item>; reason: FlushReason; at: number }[] = [];
  const coalescer = createCoalescer<Item>({
    ...options,
    now: () => time,
    after: (ms, callback) => {
      assert.is(timer, undefined, 'one timer for all keys');
      timersSet++;
      const mine = { at: time + ms, callback };
      timer = mine;
      return () => {
        if (timer === mine) timer = undefined;
      };
    },
    emit: (group, reason) => left.push({ group, reason, at: time }),
  });
  return {
    coalescer,
    left,
    reasons: () => left.map(({ reason }) => reason),
    timersSet: () => timersSet,
    timerSet: () => timer !== undefined,
    now: () => time,
    advance(ms: number) {
      const end = time + ms;
      while (timer !== undefined && timer.at <= end) {
        time = Math.max(time, timer.at);
        const { callback } = timer;
        timer = undefined;
        callback();
      }
      time = end;
    },
    add(id: number, key: string, bytes: number) {
      coalescer.add(key, { id, key, bytes, addedAt: time }, bytes);
    },
  };
}

const usual = { maxBytes: 100, largeBytes: 50, maxDelay: 3 };

/** As the publisher does when the window lets a message out. */
const seal = (entry: { group: Group<Item> } | undefined): Group<Item> => {
  assert.ok(entry !== undefined);
  entry.group.sealed = true;
  return entry.group;
};

test('the first batch of an idle key leaves at once, the next ones wait together for its ack', () => {
  const b = bench(usual);
  b.add(1, 'a', 10);
  assert.equal(b.reasons(), ['idle']);
  const first = seal(b.left[0]);
  b.add(2, 'a', 10);
  b.add(3, 'a', 10);
  assert.is(b.left.length, 1);
  b.coalescer.settled(first);
  assert.equal(b.reasons(), ['idle', 'idle']);
  assert.equal(
    b.left[1]?.group.items.map((item) => item.id),
    [2, 3],
  );
});

test('a group leaves after the delay though no ack has come', () => {
  const b = bench(usual);
  b.add(1, 'a', 10);
  seal(b.left[0]);
  b.add(2, 'a', 10);
  b.advance(2.9);
  assert.is(b.left.length, 1);
  b.advance(0.1);
  assert.equal(b.reasons(), ['idle', 'delay']);
});

test('a group leaves when it is full, and never grows past the bound', () => {
  const b = bench(usual);
  b.add(1, 'a', 10);
  seal(b.left[0]);
  for (let id = 2; id <= 5; id++) b.add(id, 'a', 30);
  assert.equal(b.reasons(), ['idle', 'size']);
  assert.equal(
    b.left[1]?.group.items.map((item) => item.id),
    [2, 3, 4],
  );
});

test('a large batch waits for none and overtakes none', () => {
  const b = bench(usual);
  b.add(1, 'a', 10);
  seal(b.left[0]);
  b.add(2, 'a', 90);
  assert.equal(b.reasons(), ['idle', 'large']);
  seal(b.left[1]);
  b.add(3, 'a', 20);
  b.add(4, 'a', 500);
  assert.equal(b.reasons(), ['idle', 'large', 'size', 'large']);
  assert.equal(
    b.left[2]?.group.items.map((item) => item.id),
    [3],
  );
  assert.equal(
    b.left[3]?.group.items.map((item) => item.id),
    [4],
  );
});

test('a message that waits for the window takes more batches of its key until it is full or sent', () => {
  const b = bench(usual);
  b.add(1, 'a', 40);
  b.add(2, 'a', 40);
  b.add(3, 'b', 40);
  assert.equal(
    b.left.map(({ group }) => group.items.length),
    [2, 1],
  );
  b.add(4, 'a', 40);
  assert.is(b.left[0]?.group.bytes, 80);
  seal(b.left[0]);
  b.advance(3);
  assert.equal(
    b.left[2]?.group.items.map((item) => item.id),
    [4],
  );
});

test('nothing is remembered of a key once its last ack is in, and no timer runs', () => {
  const b = bench(usual);
  for (let id = 0; id < 50; id++) b.add(id, `k${id}`, 10);
  assert.is(b.coalescer.keys, 50);
  assert.is(b.timerSet(), false);
  for (const entry of b.left) b.coalescer.settled(seal(entry));
  assert.is(b.coalescer.keys, 0);
});

test('a drain lets go of all that is gathered', () => {
  const b = bench(usual);
  for (const key of ['a', 'b']) {
    b.add(1, key, 10);
    seal(b.left[b.left.length - 1]);
    b.add(2, key, 10);
  }
  b.coalescer.flush();
  assert.equal(b.reasons(), ['idle', 'idle', 'drain', 'drain']);
  assert.is(b.timerSet(), false);
});

test('under any load every batch leaves once, in order, in time and in bounds (random, seeded)', () => {
  for (let seed = 1; seed <= 300; seed++) {
    const random = createRandom(seed);
    const options = {
      maxBytes: integer(random, 20, 400),
      largeBytes: integer(random, 10, 300),
      maxDelay: pick(random, [0, 1, 3, 20]),
    };
    const b = bench(options);
    const keys = Array.from({ length: integer(random, 1, 6) }, (_, i) => `k${i}`);
    // A publisher with a window: seals in order, acks in any order.
    const window = integer(random, 1, 8);
    const wire: Group<Item>[] = [];
    let sealedUpTo = 0;
    const pump = () => {
      while (wire.length < window && sealedUpTo < b.left.length) wire.push(seal(b.left[sealedUpTo++]));
    };
    const ack = () => {
      const group = wire.splice(integer(random, 0, wire.length - 1), 1)[0];
      if (group !== undefined) b.coalescer.settled(group);
    };
    const count = 400;
    for (let id = 0; id < count; id++) {
      b.add(id, pick(random, keys), pick(random, [1, 5, 20, 60, 350]));
      pump();
      const step = random();
      if (step < 0.4) b.advance(random() * options.maxDelay);
      if (step > 0.3) ack();
      pump();
    }
    // COALESCE-3, before any further ack: all of it is out once the delay has passed.
    b.advance(options.maxDelay);
    const items = b.left.flatMap(({ group }) => group.items);
    assert.is(items.length, count, `seed ${seed}: all left`);
    assert.is(new Set(items.map((item) => item.id)).size, count, `seed ${seed}: each once`);
    for (const key of keys) {
      const ids = items.filter((item) => item.key === key).map((item) => item.id);
      assert.equal(
        ids,
        ids.toSorted((x, y) => x - y),
        `seed ${seed}: order within ${key}`,
      );
    }
    for (const { group, at } of b.left) {
      assert.is(
        group.bytes,
        group.items.reduce((sum, item) => sum + item.bytes, 0),
      );
      assert.ok(group.items.length === 1 || group.bytes <= options.maxBytes, `seed ${seed}: size bound`);
      for (const item of group.items) {
        assert.is(item.key, group.key);
        assert.ok(at - item.addedAt <= options.maxDelay + 1e-6, `seed ${seed}: time bound`);
      }
    }
    while (wire.length > 0 || sealedUpTo < b.left.length) {
      pump();
      ack();
    }
    assert.is(b.coalescer.keys, 0, `seed ${seed}: nothing is left behind`);
    assert.is(b.timerSet(), false);
  }
});

test.run();

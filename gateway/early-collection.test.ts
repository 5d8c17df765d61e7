import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { crampedBytes, createEarlyCollection, shortBytes, wasteBytes } from './early-collection.js';

/** A process of which `live` bytes are in use, and what is above them is garbage. A collection takes `takesMs`. */
function scene({ takesMs = 0 } = {}) {
  const state = { now: 0, holdsMuch: true, rss: shortBytes, rssReads: 0, live: 1_000, garbage: 0, collections: 0 };
  const look = createEarlyCollection({
    used: () => state.live + state.garbage,
    rss: () => {
      state.rssReads++;
      return state.rss;
    },
    holdsMuch: () => state.holdsMuch,
    collect: () => {
      state.garbage = 0;
      state.collections++;
      state.now += takesMs;
    },
    now: () => state.now,
  });
  return { state, look };
}

test('COLLECT-1: while memory is not short, V8 decides alone', () => {
  const { state, look } = scene();
  state.rss = shortBytes - 1;
  assert.not(look());
  state.garbage = 10 * wasteBytes;
  assert.not(look());
  state.rss = shortBytes;
  state.holdsMuch = false;
  assert.not(look(), 'ordinary traffic at the highest rate');
  state.holdsMuch = true;
  assert.ok(look());
  state.holdsMuch = false;
  state.rss = crampedBytes;
  state.garbage = 10 * wasteBytes;
  assert.ok(Array.from({ length: 8 }, look).includes(true));
});

test('COLLECT-2: a collection follows so much new memory since the least that was in use', () => {
  const { state, look } = scene();
  state.garbage = wasteBytes;
  assert.not(look(), 'all that is known may be in use');
  // V8 has collected itself.
  state.garbage = 0;
  assert.not(look());
  state.garbage = wasteBytes - 1;
  assert.not(look());
  state.garbage = wasteBytes;
  assert.ok(look());
  // What is in use is no reason to collect again and again.
  state.live += wasteBytes;
  assert.ok(look());
  for (let i = 0; i < 10; i++) assert.not(look());
  assert.is(state.collections, 2);
});

test('COLLECT-3: at most a third of the time goes into collections', () => {
  const { state, look } = scene({ takesMs: 50 });
  look();
  for (; state.now < 10_000; state.now++) {
    state.garbage = 2 * wasteBytes;
    look();
  }
  assert.ok(state.collections > 50 && state.collections <= 10_000 / 150 + 1, `${state.collections} collections`);

  // Many connections hold as much.
  Object.assign(state, { now: 20_000, rss: crampedBytes, holdsMuch: false, collections: 0 });
  for (; state.now < 40_000; state.now++) {
    state.garbage = 2 * wasteBytes;
    look();
  }
  assert.ok(state.collections >= 7 && state.collections <= 20_000 / 2_550 + 1, `${state.collections} collections`);
});

test('COLLECT-4: resident memory is read only when a collection may be due, and in calm one look in eight', () => {
  const { state, look } = scene();
  for (let i = 0; i < 80; i++) look();
  assert.is(state.rssReads, 0, 'no waste');
  state.rss = shortBytes - 1;
  state.garbage = wasteBytes;
  for (let i = 0; i < 80; i++) look();
  assert.is(state.rssReads, 80);
  state.holdsMuch = false;
  for (let i = 0; i < 80; i++) look();
  assert.is(state.rssReads, 90);
});

test.run();

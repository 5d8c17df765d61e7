import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createUnfinished } from './unfinished.js';
import { createUnreadWatch } from './unread-answers.js';

const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** A watch that ends after 400 ms, with room for 1,000 bytes. */
function scene() {
  const unfinished = createUnfinished({
    maxBytes: 1_000,
    maxTenantBytes: 1_000,
    beyondNarrow: () => 0,
    isFull: () => false,
    random: () => 0.5,
    everyTick: () => () => {},
  });
  const ends: string[] = [];
  const watch = createUnreadWatch(unfinished, 'acme', ({ code }) => ends.push(code), 400);
  return { unfinished, ends, watch };
}

test('a client that makes no room ends its stream, once, and its bytes are given back', async () => {
  const { unfinished, ends, watch } = scene();
  watch.blocked();
  watch.hold(500);
  assert.is(unfinished.bytes, 500);
  await wait(100);
  assert.equal(ends, []);
  await wait(400);
  assert.equal(ends, ['answers_unread']);
  assert.is(unfinished.bytes, 0);
});

test('a client that reads slowly keeps its stream, as long as it makes room now and then', async () => {
  const { unfinished, ends, watch } = scene();
  for (let i = 0; i < 5; i++) {
    watch.blocked();
    watch.hold(100);
    await wait(100);
    watch.drained();
  }
  assert.is(unfinished.bytes, 0);
  await wait(500);
  assert.equal(ends, []);
  watch.close();
});

test('more unread answers than there is room for end the stream at once', () => {
  const { unfinished, ends, watch } = scene();
  watch.blocked();
  watch.hold(2_500);
  assert.equal(ends, ['overloaded']);
  assert.is(unfinished.bytes, 0);
  watch.close();
});

test.run();

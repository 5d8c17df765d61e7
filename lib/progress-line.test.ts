import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createProgressLine } from './progress-line.js';

/** What is written while a line shows 1, 2 … every 20 ms for a quarter of a second. Time is the subject. */
async function written(isTTY: boolean, elsewhereMs: number): Promise<string[]> {
  const texts: string[] = [];
  const line = createProgressLine({ isTTY, write: (text: string) => texts.push(text) > 0 } as never, elsewhereMs);
  for (let n = 1; n <= 13; n++) {
    line.show(`${n} of 13`);
    await sleep(20);
  }
  line.clear();
  line.clear();
  return texts;
}

test('in a terminal a line is written over now and then, and cleared once', async () => {
  const texts = await written(true, 1);
  assert.ok(texts.length >= 2 && texts.length <= 4, JSON.stringify(texts));
  for (const text of texts.slice(0, -1)) assert.match(text.replace('\r\u001b[K', '<clear>'), /^<clear>\d+ of 13$/);
  assert.is(texts.at(-1), '\r\u001b[K');
});

test('elsewhere lines come at their interval, and nothing is cleared', async () => {
  assert.equal(await written(false, 60_000), []);
  const texts = await written(false, 50);
  assert.ok(texts.length >= 1 && texts.length <= 5, JSON.stringify(texts));
  for (const text of texts) assert.match(text, /^\d+ of 13\n$/);
});

test.run();

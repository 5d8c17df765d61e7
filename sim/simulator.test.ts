/** Of ten thousand worlds none may lose or double an event: the first 500. simulator.long.test.ts has the others. A failure prints the seed, and how to look at it. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { runWorld } from './run.js';
import { assertBroken, assertWhole } from './testing/worlds.js';

test('worlds 1 to 500: all that was acknowledged is stored once, and every world comes to rest', () =>
  assertWhole(1, 500));

test('a log that loses its end, or a stream that is removed: only what it forgot is lost, and nothing that was committed', () =>
  assertBroken(10_001, 10_100));

/** FNV-1a of all that a world says. */
async function hashOf(seed: number, breakLog: boolean): Promise<number> {
  let hash = 0x811c9dc5;
  await runWorld(seed, {
    breakLog,
    trace(ms, who, what) {
      const line = `${ms} ${who} ${what}`;
      for (let i = 0; i < line.length; i++) hash = Math.imul(hash ^ line.charCodeAt(i), 0x01000193);
    },
  });
  return hash >>> 0;
}

test('the same seed is the same world, word for word', async () => {
  const hashes = new Set<number>();
  for (let seed = 1; seed <= 40; seed++) {
    const hash = await hashOf(seed, seed % 2 === 0);
    assert.is(await hashOf(seed, seed % 2 === 0), hash, `seed ${seed}`);
    hashes.add(hash);
  }
  assert.is(hashes.size, 40);
});

test.run();

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { uuidV7 } from './uuid-v7.js';

test('has the form of version 7 and carries the time', () => {
  const id = uuidV7(1_800_000_000_000);
  assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  assert.is(Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16), 1_800_000_000_000);
});

test('never repeats and stays in order, also when the clock stands still or goes back', () => {
  const ids: string[] = [];
  for (let i = 0; i < 20_000; i++) ids.push(uuidV7(1_800_000_000_001 - (i % 2)));
  assert.is(new Set(ids).size, ids.length);
  assert.equal([...ids].sort(), ids);
});

test.run();

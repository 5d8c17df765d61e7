import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createJsonTurns } from './json-turns.js';

const long = 128 * 1024;

/** Turns of an event loop that the test makes. */
function loop() {
  const waiting: (() => void)[] = [];
  const turns = createJsonTurns((callback) => waiting.push(callback));
  const read: string[] = [];
  function* slices(owner: string, count: number): Generator<void> {
    for (let i = 1; i <= count; i++) {
      read.push(owner);
      if (i < count) yield;
    }
  }
  const take = (
    owner: string,
    { size = long, count = 1, signal }: { size?: number; count?: number; signal?: AbortSignal } = {},
  ) => Promise.resolve(turns.take(owner, size, slices(owner, count), signal));
  const turn = async (): Promise<void> => {
    for (const callback of waiting.splice(0)) callback();
    await new Promise((resolve) => setTimeout(resolve));
  };
  return { turns, read, take, turn };
}

test('one slice of a long text is read in each turn of the event loop, tenants in turn', async () => {
  const { turns, read, take, turn } = loop();
  const all = [take('flood'), take('flood'), take('flood'), take('flood'), take('acme'), take('acme')];
  await turn();
  assert.equal(read, ['flood']);
  await turn();
  assert.equal(read, ['flood', 'flood']);
  await turn();
  assert.equal(read, ['flood', 'flood', 'acme']);
  assert.is(turns.waiting, 3);
  for (let i = 0; i < 3; i++) await turn();
  assert.equal(read, ['flood', 'flood', 'acme', 'flood', 'acme', 'flood']);
  await Promise.all(all);
  assert.is(turns.waiting, 0);
});

test('a text of many slices lets others go on between them, and is given up when its caller has gone away', async () => {
  const { turns, read, take, turn } = loop();
  const gone = new AbortController();
  const all = [take('flood', { count: 3 }), take('acme', { count: 2 })];
  const given = take('other', { count: 1_000, signal: gone.signal }).catch((reason: unknown) => reason);
  for (let i = 0; i < 8; i++) await turn();
  await Promise.all(all);
  assert.equal(read.slice(1, 7), ['flood', 'acme', 'other', 'flood', 'acme', 'other']);
  gone.abort('gone');
  await turn();
  await turn();
  assert.is(await given, 'gone');
  assert.is(turns.waiting, 0);
});

test('short texts never wait', async () => {
  const { read, take } = loop();
  void take('flood');
  void take('flood');
  void take('acme', { size: long - 1, count: 3 });
  assert.equal(read, ['acme', 'acme', 'acme']);
});

test('whose caller has gone away is not read, and what it throws is thrown', async () => {
  const { turns, read, take, turn } = loop();
  const gone = new AbortController();
  const first = take('acme');
  const second = take('acme', { signal: gone.signal }).catch((reason: unknown) => reason);
  const third = take('acme');
  gone.abort('gone');
  for (let i = 0; i < 4; i++) await turn();
  assert.is(await second, 'gone');
  await Promise.all([first, third]);
  assert.equal(read, ['acme', 'acme']);
  // biome-ignore lint/correctness/useYield: it fails before.
  const failing = (function* (): Generator<void> {
    throw new Error('no JSON');
  })();
  const thrown = await Promise.resolve(turns.take('acme', long, failing)).catch((reason: unknown) => String(reason));
  assert.is(thrown, 'Error: no JSON');
});

test.run();

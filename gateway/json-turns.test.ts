import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createJsonTurns } from './json-turns.js';

const long = new Uint8Array(128 * 1024);

/** Turns of an event loop that the test makes. */
function loop() {
  const waiting: (() => void)[] = [];
  const turns = createJsonTurns((callback) => waiting.push(callback));
  const read: string[] = [];
  const take = (owner: string, text: Uint8Array = long, signal?: AbortSignal) =>
    Promise.resolve(turns.take(owner, text, () => void read.push(owner), signal));
  const turn = async (): Promise<void> => {
    for (const callback of waiting.splice(0)) callback();
    await new Promise((resolve) => setTimeout(resolve));
  };
  return { turns, read, take, turn };
}

test('one long text is read in each turn of the event loop, tenants in turn', async () => {
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

test('short texts never wait', async () => {
  const { read, take } = loop();
  void take('flood');
  void take('flood');
  void take('acme', long.subarray(1));
  assert.equal(read, ['acme']);
});

test('whose caller has gone away is not read, and what it throws is thrown', async () => {
  const { turns, read, take, turn } = loop();
  const gone = new AbortController();
  const first = take('acme');
  const second = take('acme', long, gone.signal).catch((reason: unknown) => reason);
  const third = take('acme');
  gone.abort('gone');
  for (let i = 0; i < 4; i++) await turn();
  assert.is(await second, 'gone');
  await Promise.all([first, third]);
  assert.equal(read, ['acme', 'acme']);
  const thrown = await Promise.resolve(
    turns.take('acme', long, () => {
      throw new Error('no JSON');
    }),
  ).catch((reason: unknown) => String(reason));
  assert.is(thrown, 'Error: no JSON');
});

test.run();

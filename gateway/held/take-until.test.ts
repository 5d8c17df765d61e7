import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Stop, takeUntil } from './take-until.js';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

/** Gives `items`, then waits forever. */
async function* endless<T>(items: Iterable<T>): AsyncGenerator<T> {
  yield* items;
  await new Promise(() => {});
}

async function read<T>(source: AsyncIterable<T>): Promise<(T | string)[]> {
  const all: (T | string)[] = [];
  try {
    for await (const item of source) all.push(item);
    all.push('end');
  } catch (error) {
    all.push((error as Error).message);
  }
  return all;
}

test('what comes before the stop is given, then the iteration ends, or throws the reason', async () => {
  for (const [reason, last] of [
    [undefined, 'end'],
    [new Error('late'), 'late'],
  ] as const) {
    let left = 0;
    const begin = (stop: Stop) => {
      setTimeout(stop, 20, reason);
      return () => {
        left++;
      };
    };
    assert.equal(await read(takeUntil(endless([1, 2]), begin)), [1, 2, last]);
    assert.is(left, 1);
  }
});

test('a stop at once gives nothing, and the end or failure of the source is passed on', async () => {
  const at = (stop: Stop) => {
    stop(new Error('at once'));
    return () => {};
  };
  assert.equal(await read(takeUntil(endless([1]), at)), ['at once']);
  const never = () => () => {};
  const failing = async function* () {
    yield 1;
    throw new Error('broken');
  };
  assert.equal(await read(takeUntil(failing(), never)), [1, 'broken']);
});

test('hundreds of thousands of items leave nothing behind while the stop is still to come', async () => {
  const items = function* () {
    for (let i = 0; i < 300_000; i++) yield i;
  };
  let before = 0;
  let after = 0;
  for await (const i of takeUntil(endless(items()), () => () => {})) {
    if (i === 100_000) {
      collect();
      before = process.memoryUsage().heapUsed;
    }
    if (i < 299_999) continue;
    collect();
    after = process.memoryUsage().heapUsed;
    break;
  }
  assert.ok(after - before < 2_000_000, `${after - before} bytes stay of 200,000 items`);
});

test.run();

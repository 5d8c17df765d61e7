import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { shareFigures } from './shared-figures.js';

test('who asks while a collection is due shares it, and gets no figures from before the question', async () => {
  let collected = 0;
  const figures = shareFigures({ apartMs: 20, collect: () => Promise.resolve(String(++collected)) });
  assert.is(await figures(), '1');
  const all = await Promise.all(Array.from({ length: 1_000 }, figures));
  assert.equal([...new Set(all)], ['2']);
  assert.is(await figures(), '3');
});

test('a collection that fails does so for those that shared it, and not for later ones', async () => {
  let collected = 0;
  const figures = shareFigures({
    apartMs: 5,
    collect: () => (++collected === 2 ? Promise.reject(new Error('no figures')) : Promise.resolve('figures')),
  });
  await figures();
  const failed = await Promise.allSettled([figures(), figures()]);
  assert.equal(
    failed.map(({ status }) => status),
    ['rejected', 'rejected'],
  );
  assert.is(await figures(), 'figures');
});

test.run();

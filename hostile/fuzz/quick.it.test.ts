/** The quick part of `npm run hostile -- fuzz`. The whole, a million requests, is in `npm run test:long`. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { page } from './command.js';
import { planOf } from './plan.js';
import { fuzz } from './run.js';

test('the same seed sends the same requests, whichever is sent first', () => {
  for (const index of [0, 7, 49, 1_000_049]) {
    const [first, again] = [planOf(3, index, 4), planOf(3, index, 4)];
    assert.equal({ ...first, random: undefined }, { ...again, random: undefined });
    assert.is(first.random(), again.random());
    assert.is(first.valid !== undefined, index % 50 === 49);
  }
  assert.not.equal(planOf(3, 0, 4).request, planOf(4, 0, 4).request);
});

test('2,000 mutated requests get an answer each, and valid ones between them are in the log once', async () => {
  const figures = await fuzz({ seed: 7, from: 0, requests: 2_000, memorySeconds: 0, say: () => {} });
  assert.equal(figures.failures, [], page(figures));
  assert.equal([figures.valid.sent, figures.valid.accepted, figures.valid.stored], [40, 40, 40]);
});

test.run();

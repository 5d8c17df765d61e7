/**
 * `npm run chaos -- --quick`: everything for half a minute. Longer runs are in docs/reliability.md.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { page, summary } from './report.js';
import { type RunOptions, type RunResult, run } from './run.js';

const seed = 7;

const options: RunOptions = {
  seed,
  kills: Number.POSITIVE_INFINITY,
  faults: Number.POSITIVE_INFINITY,
  minFailpoint: 0,
  maxMs: 30_000,
  only: [],
  rate: 2_000,
  clients: 3,
  durability: 'accepted',
  pace: 0.6,
  oneByOne: false,
  cluster: undefined,
  control: undefined,
  keep: false,
  say: () => {},
  progress: () => {},
  interrupted: new AbortController().signal,
};

test('whatever is killed, stopped and cut off under load: what was acknowledged is stored, each event once, as it was sent', async () => {
  const result: RunResult = await run(options);
  const told = page(result, seed);
  // How fast a machine recovers that has other things to do is not tested here.
  const { lost, doubled, altered, foreign, ledger, undead, undelivered, stuck } = result;
  assert.equal(
    { lost, doubled, altered, foreign, ledger, undead, undelivered, stuck },
    { lost: 0, doubled: 0, altered: 0, foreign: 0, ledger: 0, undead: [], undelivered: 0, stuck: undefined },
    told,
  );
  assert.ok(result.acked > 500, told);
  assert.ok(result.schedule.kills >= 5 && result.schedule.faults > result.schedule.kills, told);
  const line = summary(result, seed);
  for (const key of ['kills', 'faults', 'acked', 'stored', 'lost', 'doubled', 'recovery_ms', 'seed'])
    assert.ok(key in line, key);
  assert.is(line.lost, 0);
  assert.is(line.doubled, 0);
});

test.run();

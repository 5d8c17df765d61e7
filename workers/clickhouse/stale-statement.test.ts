/** Statements that hold a block's name: which of them are killed, and when (STALE-1 to STALE-3). The server is a script. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { silentLogger } from '../../lib/logger.js';
import { StatementError } from './client.js';
import { createStaleStatements } from './stale-statement.js';

function scene(progress: () => string | undefined | Error) {
  const killed: string[] = [];
  let now = 0;
  const stale = createStaleStatements(
    {
      rows: async <T>(_query: string, parameters?: Record<string, unknown>) => {
        assert.is(parameters?.id, 'sluice-g-0-7');
        const at = progress();
        if (at instanceof Error) throw at;
        return (at === undefined ? [] : [{ progress: at }]) as T[];
      },
      command: async (statement) => void killed.push(statement),
    },
    { logger: silentLogger, now: () => now },
  );
  return {
    killed,
    async busyFor(ms: number, everyMs = 500) {
      for (const until = now + ms; now < until; now += everyMs) await stale.busy(0, 'sluice-g-0-7');
    },
    over: () => stale.over(0),
  };
}

test('a statement that does not move is killed within 2 s, by its id and for this user alone', async () => {
  const { killed, busyFor } = scene(() => '(0,2097152)');
  await busyFor(1_500);
  assert.equal(killed, []);
  await busyFor(600);
  assert.equal(killed, ["KILL QUERY WHERE query_id = 'sluice-g-0-7' AND user = currentUser() ASYNC"]);
});

test('one that moves is left alone, however long it takes; so is one that the server does not list', async () => {
  let bytes = 0;
  const moving = scene(() => `(0,${bytes++})`);
  await moving.busyFor(60_000);
  assert.equal(moving.killed, []);
  const unlisted = scene(() => undefined);
  await unlisted.busyFor(60_000);
  assert.equal(unlisted.killed, []);
});

test('each kill in a row takes twice as long, so that a slow server finishes one at last', async () => {
  const { killed, busyFor, over } = scene(() => 'same');
  await busyFor(30_000);
  assert.is(killed.length, 4);
  over();
  await busyFor(2_100);
  assert.is(killed.length, 5);
});

test('without the right to look or to kill it goes on trying, and never rejects', async () => {
  const refused = scene(() => new StatementError('fatal', 'ClickHouse 497 ACCESS_DENIED', 497, undefined));
  await refused.busyFor(10_000);
  assert.equal(refused.killed, []);
});

test.run();

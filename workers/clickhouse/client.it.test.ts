import { createServer } from 'node:net';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { clickhouseClientOptions, resolveOptions } from '../../lib/config/index.js';
import { silentLogger } from '../../lib/logger.js';
import { withClickHouse } from '../../lib/testing/clickhouse.js';
import { freeze } from '../../lib/testing/freeze.js';
import { freePort } from '../../lib/testing/nats.js';
import { type ClickHouse, createClickHouse, StatementError } from './client.js';

async function withClickHouseClient(
  flags: Record<string, string>,
  use: (clickhouse: ClickHouse) => Promise<void>,
): Promise<void> {
  const clickhouse = createClickHouse(resolveOptions(clickhouseClientOptions, flags, {}), silentLogger);
  try {
    await use(clickhouse);
  } finally {
    await clickhouse.close();
  }
}

async function failure(work: Promise<unknown>): Promise<StatementError> {
  const error = await work.then(
    () => assert.unreachable('it should have failed'),
    (e: unknown) => e,
  );
  assert.instance(error, StatementError);
  return error as StatementError;
}

test('no subscriber, or an answer that does not come in time, is transient: the outcome is unknown', async () => {
  await withClickHouseClient({ clickhouseUrl: `http://127.0.0.1:${await freePort()}` }, async (clickhouse) => {
    assert.is(await clickhouse.ping(), false);
    const error = await failure(clickhouse.rows('SELECT 1'));
    assert.equal([error.kind, error.clickhouseCode], ['transient', undefined]);
  });
  await withClickHouse(async ({ url, process }) => {
    await withClickHouseClient({ clickhouseUrl: url, clickhouseTimeout: '1s' }, async (clickhouse) => {
      assert.is(await clickhouse.ping(), true);
      await freeze(process());
      assert.is((await failure(clickhouse.rows('SELECT 1'))).kind, 'transient');
      process().kill('SIGCONT');
      for (let i = 0; i < 50 && !(await clickhouse.ping()); i++)
        await new Promise((resolve) => setTimeout(resolve, 20));
      assert.equal(await clickhouse.rows('SELECT 1 AS one'), [{ one: 1 }]);
    });
  });
});

test('an answer that stops half-way ends with the time-out of the statement, whatever was asked', async () => {
  const half = 'HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 100\r\n\r\n{"a":';
  const server = createServer((socket) => socket.on('data', () => socket.write(half)).on('error', () => undefined));
  const port = await freePort();
  await new Promise<void>((resolve) => server.listen(port, '127.0.0.1', resolve));
  try {
    await withClickHouseClient(
      { clickhouseUrl: `http://127.0.0.1:${port}`, clickhouseTimeout: '1s' },
      async (clickhouse) => {
        const since = performance.now();
        const errors = await Promise.all([
          failure(clickhouse.rows('SELECT 1')),
          failure(clickhouse.command('SELECT 1')),
          failure(clickhouse.insertBlock({ query: 'INSERT INTO t FORMAT CSV', settings: {} }, 'q', [Buffer.from('1')])),
        ]);
        assert.equal(
          errors.map(({ kind }) => kind),
          ['transient', 'transient', 'transient'],
        );
        assert.ok(performance.now() - since < 5_000);
        assert.is(clickhouse.stats().active, 0);
      },
    );
  } finally {
    server.close();
  }
});

test('statements at fault are fatal, a running id is busy, and the pool is bounded, counted and given back', async () => {
  await withClickHouse(async ({ url }) => {
    const flags = { clickhouseUrl: url, clickhousePoolSize: '2', clickhousePoolWait: '300ms' };
    await withClickHouseClient(flags, async (clickhouse) => {
      for (const [statement, code] of [
        ['SELEC 1', 62],
        ['SELECT 1 FROM missing', 60],
        ['SELECT nope', 47],
      ] as const) {
        const error = await failure(clickhouse.rows(statement));
        assert.equal([error.kind, error.clickhouseCode], ['fatal', code]);
      }
      const slow = clickhouse.command('SELECT sleepEachRow(0.5) FROM numbers(3)', { queryId: 'one' });
      let again = await failure(clickhouse.command('SELECT sleep(0.2)', { queryId: 'one' }));
      assert.equal([again.kind, again.clickhouseCode], ['busy', 216]);
      const other = clickhouse.command('SELECT sleepEachRow(0.5) FROM numbers(3)');
      assert.equal([clickhouse.stats().active, clickhouse.stats().waiting], [2, 0]);
      const late = failure(clickhouse.rows('SELECT 1'));
      assert.is(clickhouse.stats().waiting, 1);
      again = await late;
      assert.is(again.kind, 'transient');
      assert.match(again.message, /--clickhouse-pool-size/);
      await Promise.all([slow, other]);
      const { active, waiting, wait_timeouts: timeouts, waited_seconds: waited } = clickhouse.stats();
      assert.equal([active, waiting, timeouts], [0, 0, 1]);
      assert.ok(waited >= 0.29, `${waited}`);
      assert.equal(await clickhouse.rows('SELECT 2 AS two'), [{ two: 2 }]);
    });
  });
});

test.run();

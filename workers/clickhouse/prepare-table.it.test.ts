/**
 * A worker's start on tables that an operator has changed: what fits is left alone, what is too narrow is widened, and what cannot
 * be loaded is named. On the real engine.
 */
import { pino } from 'pino';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRandom } from '../../lib/testing/batches.js';
import { withNats } from '../../lib/testing/nats.js';
import { until } from '../../lib/testing/until.js';
import { withEventsTable } from '../testing/events-table.js';
import { storedPayload } from '../testing/payloads.js';
import { startWorkerProcess } from '../testing/worker-process.js';
import type { ClickHouse } from './client.js';
import { eventsTable } from './connect.js';
import { failedMutations, prepareTable, TableError } from './prepare-table.js';
import { type BlockConstants, blockName, insertStatement } from './schema/index.js';

const target = eventsTable('sluice');
const random = createRandom(17);

interface Scene {
  readonly url: string;
  readonly clickhouse: ClickHouse;
  alter(change: string): Promise<void>;
  /** Type and codec of each column. */
  columns(): Promise<Map<string, string>>;
  /** Prepares the table. @returns the statements that it logged, and what it rejected with */
  prepare(): Promise<{ statements: string[]; error: unknown }>;
  store(block: number, events: number): Promise<void>;
}

async function withTable(use: (scene: Scene) => Promise<void>): Promise<void> {
  await withEventsTable(target, async (clickhouse, url) => {
    await use({
      url,
      clickhouse,
      alter: (change) => clickhouse.command(`ALTER TABLE sluice.events ${change}`),
      async columns() {
        const rows = await clickhouse.rows<{ name: string; type: string; codec: string }>(
          "SELECT name, type, compression_codec AS codec FROM system.columns WHERE database = 'sluice' AND table = 'events'",
        );
        return new Map(rows.map(({ name, type, codec }) => [name, `${type} ${codec}`.trim()]));
      },
      async prepare() {
        const lines: string[] = [];
        const logger = pino({ level: 'info' }, { write: (line: string) => void lines.push(line) });
        let error: unknown;
        await prepareTable(clickhouse, target, logger).catch((reason: unknown) => {
          error = reason;
        });
        const statements = lines.flatMap((line) => (JSON.parse(line) as { statement?: string }).statement ?? []);
        return { statements, error };
      },
      async store(block, events) {
        const constants: BlockConstants = {
          ...{ day: '2026-03-01', stream: 's', shard: 0, block: BigInt(block), lo: BigInt(block), hi: BigInt(block) },
          ...{ accepted: events, duplicate: 0, dead: 0 },
        };
        const body = [storedPayload(random, { tenant: 'acme', batchId: `b${block}`, events })];
        await clickhouse.insertBlock(insertStatement(target, constants, body), blockName(constants), body);
      },
    });
  });
}

test('types and codecs that an operator chose stay, and are loaded; labels and columns that are missing are added and logged', async () => {
  await withTable(async ({ clickhouse, alter, columns, prepare, store }) => {
    await store(1, 20);
    for (const change of [
      'MODIFY COLUMN name LowCardinality(String)',
      'MODIFY COLUMN touch_channel String',
      'MODIFY COLUMN device_utc_offset_minutes Int64',
      "MODIFY COLUMN occurred_at DateTime64(6, 'UTC')",
      'MODIFY COLUMN user_id String CODEC(ZSTD(9))',
      'MODIFY COLUMN device_model LowCardinality(Nullable(String))',
      'MODIFY COLUMN _attempt UInt64',
      "ADD COLUMN campaign_id String MATERIALIZED concat(touch_source, '/', touch_campaign)",
    ]) {
      await alter(change);
    }
    const chosen = await columns();
    assert.equal(await prepare(), { statements: [], error: undefined });
    assert.equal(await columns(), chosen);
    await store(2, 30);

    const newer = "Enum8('unspecified' = 0, 'ios' = 1, 'android' = 2, 'web' = 3, 'fridge' = 100)";
    await alter(`MODIFY COLUMN device_platform ${newer}`);
    await alter('DROP COLUMN app_build');
    const { statements, error } = await prepare();
    assert.is(error, undefined);
    assert.is(statements.length, 2, statements.join('\n'));
    assert.match(statements.join('\n'), /MODIFY COLUMN `device_platform` Enum8\(.*'web' = 3,.*'fridge' = 100\)/);
    assert.match(statements.join('\n'), /ADD COLUMN IF NOT EXISTS `app_build`/);
    await store(3, 40);
    const [row] = await clickhouse.rows<{ n: string }>('SELECT toString(count()) AS n FROM sluice.events');
    assert.is(row?.n, '90');
  });
});

test('a column that cannot hold what is wanted is named with both types, and nothing of it is changed', async () => {
  await withTable(async ({ clickhouse, alter, columns, prepare, store }) => {
    await store(1, 5);
    await alter('DROP COLUMN app_build');
    await alter('ADD COLUMN app_build UInt64');
    await alter('DROP COLUMN app_sdk');
    await alter("ADD COLUMN app_sdk String MATERIALIZED 'x'");
    const before = await columns();
    const { error } = await prepare();
    assert.instance(error, TableError);
    const { message } = error as TableError;
    assert.match(message, /column app_build is UInt64, and should be .*String.*: it holds values of another kind/);
    assert.match(message, /column app_sdk is String, .*: it is MATERIALIZED and takes no values/);
    assert.equal(await columns(), before);
    assert.equal(await failedMutations(clickhouse, target), []);

    await alter('RENAME COLUMN app_build TO app_build_number');
    await alter('RENAME COLUMN app_sdk TO app_sdk_x');
    assert.is((await prepare()).error, undefined);
    await store(2, 5);
  });
});

test('a projection that stands in the way of a change is named, and the change is not tried', async () => {
  await withTable(async ({ alter, prepare, store }) => {
    await alter("MODIFY COLUMN type Enum8('unspecified' = 0, 'install' = 1)");
    await alter('ADD PROJECTION by_type (SELECT type, count() GROUP BY type)');
    const { statements, error } = await prepare();
    assert.equal(statements, []);
    assert.instance(error, TableError);
    assert.match(
      (error as Error).message,
      /column type is Enum8.* the projection by_type prevents: .*DROP PROJECTION by_type/,
    );
    await alter('DROP PROJECTION by_type');
    assert.is((await prepare()).error, undefined);
    await alter('ADD PROJECTION by_type (SELECT type, count() GROUP BY type)');
    assert.equal(await prepare(), { statements: [], error: undefined }, "one that is in no column's way is left alone");
    await store(1, 10);
  });
});

test('a mutation that failed is named; a worker whose table does not fit says so, waits, and ends with 3', async () => {
  await withTable(async ({ url, clickhouse, alter, prepare, store }) => {
    await store(1, 10);
    // The embedded engine waits for it, and says so; a server would not.
    await alter("UPDATE name = toString(throwIf(1, 'no')) WHERE 1").catch(() => undefined);
    await until('the mutation has failed', async () => (await failedMutations(clickhouse, target)).length > 0);
    const [failed] = await failedMutations(clickhouse, target);
    assert.match(failed?.command ?? '', /UPDATE name/);
    assert.is((await prepare()).error, undefined, 'it is in no way until rows are to change');
    await clickhouse.command(`KILL MUTATION WHERE mutation_id = '${failed?.id}'`);
    assert.equal(await failedMutations(clickhouse, target), []);

    await alter('DROP COLUMN app_build');
    await alter('ADD COLUMN app_build UInt64');
    await withNats(async (nats) => {
      const worker = await startWorkerProcess({ natsUrl: nats.url, clickhouseUrl: url }, false);
      const told = new Promise<{ waits?: string }>((resolve) => worker.child.once('message', resolve as never));
      try {
        assert.match((await told).waits ?? '', /column app_build is UInt64/);
        assert.match(worker.output(), /the events table does not fit/);
        assert.not.match(worker.output(), /cannot reach ClickHouse/);
      } finally {
        worker.child.kill('SIGTERM');
      }
      assert.is(await worker.exited, 3);
    });
  });
});

test.run();

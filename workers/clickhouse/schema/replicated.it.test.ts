/**
 * LOAD-4. No Keeper runs here, and the embedded engine makes no replicated table. So: the statements as text, every setting's name
 * against the engine, and what the token does on a plain table with the setting to remember tokens.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { clickhouseClientOptions, resolveOptions } from '../../../lib/config/index.js';
import { silentLogger } from '../../../lib/logger.js';
import { createRandom } from '../../../lib/testing/batches.js';
import { withClickHouse } from '../../../lib/testing/clickhouse.js';
import { storedPayload } from '../../testing/payloads.js';
import { createClickHouse } from '../client.js';
import {
  type BlockConstants,
  createStatements,
  insertStatement,
  readingSettings,
  type TableTarget,
  tombstoneStatement,
} from './index.js';

const target: TableTarget = {
  database: 'sluice',
  table: 'events',
  engine: 'ReplicatedMergeTree',
  asksInsertSelect: true,
};
const constants: BlockConstants = {
  day: '2026-03-01',
  stream: '20260301T000000Z',
  shard: 3,
  block: 7n,
  lo: 1n,
  hi: 2n,
  accepted: 2,
  duplicate: 0,
  dead: 0,
};

test('a replicated block has a token, a quorum in one order, and a probe that waits for all before it (LOAD-4)', () => {
  const [, create = ''] = createStatements(target);
  assert.match(create, /ENGINE = ReplicatedMergeTree\('\/clickhouse\/tables\/\{shard\}\//);
  assert.match(create, /replicated_deduplication_window = 100000, replicated_deduplication_window_seconds = 604800/);
  for (const { settings } of [insertStatement(target, constants, undefined), tombstoneStatement(target, constants)]) {
    const { insert_deduplicate, insert_deduplication_token, deduplicate_insert_select } = settings;
    const { insert_quorum, insert_quorum_parallel, select_sequential_consistency } = settings;
    assert.equal(
      { insert_deduplicate, insert_deduplication_token, deduplicate_insert_select },
      {
        insert_deduplicate: 1,
        insert_deduplication_token: 'sluice-20260301T000000Z-3-7',
        deduplicate_insert_select: 'enable_even_for_bad_queries',
      },
    );
    assert.equal(
      { insert_quorum, insert_quorum_parallel, select_sequential_consistency },
      { insert_quorum: 'auto', insert_quorum_parallel: 0, select_sequential_consistency: 1 },
    );
  }
  assert.equal(readingSettings(target), { select_sequential_consistency: 1 });
  const older = insertStatement({ ...target, asksInsertSelect: false }, constants, undefined);
  assert.not.ok('deduplicate_insert_select' in older.settings);
  const plain: TableTarget = { ...target, engine: 'MergeTree' };
  assert.equal(readingSettings(plain), {});
  assert.not.ok(
    Object.keys(insertStatement(plain, constants, undefined).settings).some((name) => /quorum|token/.test(name)),
  );
});

test('the engine knows every setting, and takes a token once even when the probe sees nothing (LOAD-4)', async () => {
  await withClickHouse(async ({ url }) => {
    const clickhouse = createClickHouse(
      resolveOptions(clickhouseClientOptions, { clickhouseUrl: url }, {}),
      silentLogger,
    );
    try {
      const names = async (table: string): Promise<Set<string>> =>
        new Set((await clickhouse.rows<{ name: string }>(`SELECT name FROM system.${table}`)).map(({ name }) => name));
      const [settings, tableSettings] = [await names('settings'), await names('merge_tree_settings')];
      const statement = insertStatement(target, constants, undefined);
      assert.equal(
        [...Object.keys(statement.settings), ...Object.keys(readingSettings(target))].filter(
          (name) => !settings.has(name),
        ),
        [],
      );
      const [database = '', create = ''] = createStatements(target);
      const named = /SETTINGS ([\s\S]*)$/.exec(create)?.[1]?.split(', ') ?? [];
      assert.equal(
        named.map((one) => one.split(' = ')[0] ?? '').filter((name) => !tableSettings.has(name)),
        [],
      );
      await clickhouse.command(database);
      await clickhouse.command(
        create
          .replace(/ReplicatedMergeTree\([^)]*\)/, 'MergeTree')
          .replace('non_replicated_deduplication_window = 0', 'non_replicated_deduplication_window = 100'),
      );
      const blind = { ...statement, query: statement.query.replace(/WHERE \(SELECT count[\s\S]*?\) = 0 /, '') };
      assert.not.equal(blind.query, statement.query);
      const count = async (): Promise<number> =>
        Number((await clickhouse.rows<{ n: string }>('SELECT toString(count()) AS n FROM sluice.events'))[0]?.n);
      const random = createRandom(2);
      // Another worker cut the block elsewhere: it has the same name, and other bytes.
      const [mine, theirs] = [2, 5].map((events) =>
        storedPayload(random, { tenant: 'acme', batchId: `b${events}`, events }),
      );
      await clickhouse.insertBlock(blind, 'one', [mine as Uint8Array]);
      await clickhouse.insertBlock(blind, 'two', [theirs as Uint8Array]);
      assert.is(await count(), 2);
    } finally {
      await clickhouse.close();
    }
  });
});

test.run();

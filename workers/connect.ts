/**
 * Reaching what a worker needs, in whatever order it comes up: each step is tried until it succeeds.
 */
import type { NatsConnection } from '@nats-io/nats-core';
import type { WorkerConfig } from '../lib/config/index.js';
import { UsageError } from '../lib/errors.js';
import type { Log } from '../lib/log.js';
import { readShardSetting } from '../lib/log-streams.js';
import type { ShardSetting } from '../lib/shard-setting.js';
import {
  type ColumnInfo,
  createStatements,
  indexStatements,
  migrations,
  settingStatements,
  type TableTarget,
} from './schema/index.js';
import { connectWarehouse, type Warehouse } from './warehouse.js';

/** The events table of an installation. On a single server or the embedded engine: no Keeper, no token (fact F7). */
export const eventsTable = (database: string, engine: TableTarget['engine'] = 'MergeTree'): TableTarget => ({
  database,
  table: 'events',
  engine,
});

/** Tries until it succeeds, 0.1 to 2 s apart with jitter. Rejects only when stopped, or with a UsageError. */
export async function patiently<T>(what: string, log: Log, signal: AbortSignal, attempt: () => Promise<T>): Promise<T> {
  for (let failures = 0; ; failures++) {
    if (signal.aborted) throw new Error('stopped');
    try {
      return await attempt();
    } catch (error) {
      if (error instanceof UsageError) throw error;
      const waitMs = Math.min(250 * 2 ** Math.min(failures, 5), 2_000) * (0.5 + Math.random() / 2);
      log.warn({ error: String(error), waitMs: Math.round(waitMs) }, `cannot reach ${what} yet`);
      await new Promise((resolve) => setTimeout(resolve, waitMs));
    }
  }
}

/** The warehouse, with the events table brought up to the contract. Many workers may do this at once. */
export async function openWarehouse(
  config: WorkerConfig,
  log: Log,
  signal: AbortSignal,
): Promise<{ warehouse: Warehouse; target: TableTarget }> {
  const warehouse = connectWarehouse(config, log);
  const target = eventsTable(config.clickhouseDatabase, config.clickhouseEngine as TableTarget['engine']);
  return {
    warehouse,
    target: await patiently('the warehouse', log, signal, async () => {
      await prepareTable(warehouse, target);
      return { ...target, asksInsertSelect: await asksInsertSelect(warehouse) };
    }),
  };
}

/** L4: whether the server has a setting of that name, without which the token of our INSERT would be passed over. */
async function asksInsertSelect(warehouse: Warehouse): Promise<boolean> {
  const found = await warehouse.rows("SELECT name FROM system.settings WHERE name = 'deduplicate_insert_select'");
  return found.length > 0;
}

/** Creates what is missing and adds what the contract has gained; old rows stay as they are. */
export async function prepareTable(warehouse: Warehouse, target: TableTarget): Promise<void> {
  for (const statement of createStatements(target)) await warehouse.command(statement);
  const columns = await warehouse.rows<ColumnInfo>(
    'SELECT name, type FROM system.columns WHERE database = {database:String} AND table = {table:String} ORDER BY position',
    { database: target.database, table: target.table },
  );
  for (const statement of migrations(target, columns)) await warehouse.command(statement);
  const indices = await warehouse.rows<{ name: string }>(
    'SELECT name FROM system.data_skipping_indices WHERE database = {database:String} AND table = {table:String}',
    { database: target.database, table: target.table },
  );
  for (const statement of indexStatements(target, new Set(indices.map(({ name }) => name)))) {
    await warehouse.command(statement);
  }
  const known = await warehouse.rows<{ name: string }>('SELECT name FROM system.merge_tree_settings');
  const [made] = await warehouse.rows<{ engine_full: string }>(
    'SELECT engine_full FROM system.tables WHERE database = {database:String} AND name = {table:String}',
    { database: target.database, table: target.table },
  );
  const names = new Set(known.map(({ name }) => name));
  for (const statement of settingStatements(target, names, made?.engine_full ?? '')) await warehouse.command(statement);
}

/** The number of shards, as soon as a gateway has settled it. */
export async function knownShards(nc: NatsConnection, log: Log, signal: AbortSignal): Promise<ShardSetting> {
  let told = false;
  while (true) {
    const setting = await patiently('the settings', log, signal, () => readShardSetting(nc));
    if (setting !== undefined) return setting;
    if (!told) log.info('waiting for a gateway to create the shards');
    told = true;
    await new Promise((resolve) => setTimeout(resolve, 300));
    if (signal.aborted) throw new Error('stopped');
  }
}

/**
 * Connects to what a worker needs, in any order of start: each step repeats until it succeeds, and says what it waits for.
 */
import type { NatsConnection } from '@nats-io/nats-core';
import { backOff, jittered } from '../../lib/back-off.js';
import type { WorkerConfig } from '../../lib/config/index.js';
import { UsageError } from '../../lib/errors.js';
import type { Logger } from '../../lib/logger.js';
import { readShardSetting } from '../../lib/shard-number.js';
import type { ShardSetting } from '../../lib/shard-setting.js';
import { type ClickHouse, createClickHouse } from './client.js';
import { prepareTable, TableError } from './prepare-table.js';
import type { TableTarget } from './schema/index.js';

/** What a worker waits for while it starts; `table`: ClickHouse answers, and an operator has to change its events table. */
export type WaitsFor = 'warehouse' | 'table' | 'shards';

/** Told each time that a step of the start has failed. */
export type OnWaiting = (what: WaitsFor, why: string) => void;

/** The events table of an installation. On a single server or the embedded engine: no Keeper, no token (FACT-7). */
export const eventsTable = (database: string, engine: TableTarget['engine'] = 'MergeTree'): TableTarget => ({
  database,
  table: 'events',
  engine,
});

/**
 * Tries until it succeeds, 0.1 to 2 s apart with jitter. Rejects only when stopped, or with a UsageError.
 * @param tell says what failed, in place of a line that something cannot be reached
 */
export async function patiently<T>(
  what: string,
  logger: Logger,
  signal: AbortSignal,
  attempt: () => Promise<T>,
  tell: (error: unknown, waitMs: number) => void = (error, waitMs) =>
    logger.warn({ error: String(error), waitMs }, `cannot reach ${what} yet`),
): Promise<T> {
  for (let failures = 1; ; failures++) {
    if (signal.aborted) throw new Error('stopped');
    try {
      return await attempt();
    } catch (error) {
      if (error instanceof UsageError) throw error;
      const waitMs = jittered(backOff({ first: 250, last: 2_000 }, failures));
      tell(error, Math.round(waitMs));
      await new Promise((resolve) => setTimeout(resolve, waitMs));
    }
  }
}

/** ClickHouse, with the events table brought up to the contract. Many workers may do this at once. */
export async function openClickHouse(
  config: WorkerConfig,
  logger: Logger,
  signal: AbortSignal,
  onWaiting: OnWaiting = () => undefined,
): Promise<{ clickhouse: ClickHouse; target: TableTarget }> {
  const clickhouse = createClickHouse(config, logger);
  const target = eventsTable(config.clickhouseDatabase, config.clickhouseEngine as TableTarget['engine']);
  let told: string | undefined;
  const tell = (error: unknown, waitMs: number): void => {
    if (error instanceof TableError) {
      if (told !== error.message)
        logger.error({ reason: error.message }, 'the events table does not fit: waiting until it does');
      told = error.message;
      onWaiting('table', error.message);
    } else {
      logger.warn({ error: String(error), waitMs }, 'cannot reach ClickHouse yet');
      onWaiting('warehouse', String(error));
    }
  };
  const prepared = async (): Promise<TableTarget> => {
    await prepareTable(clickhouse, target, logger);
    return { ...target, asksInsertSelect: await asksInsertSelect(clickhouse) };
  };
  return { clickhouse, target: await patiently('ClickHouse', logger, signal, prepared, tell) };
}

/** LOAD-4: whether the server has a setting of that name, without which the token of our INSERT would be passed over. */
async function asksInsertSelect(clickhouse: ClickHouse): Promise<boolean> {
  const found = await clickhouse.rows("SELECT name FROM system.settings WHERE name = 'deduplicate_insert_select'");
  return found.length > 0;
}

/** The number of shards, as soon as a gateway has settled it; and, when it was edited or lost, as soon as that is mended. */
export async function knownShards(
  nc: NatsConnection,
  logger: Logger,
  signal: AbortSignal,
  onWaiting: OnWaiting = () => undefined,
): Promise<ShardSetting> {
  let told: string | undefined;
  while (true) {
    let why = 'no gateway has created the shards yet';
    try {
      const setting = await patiently('the settings', logger, signal, () => readShardSetting(nc));
      if (setting !== undefined) return setting;
    } catch (error) {
      if (!(error instanceof UsageError)) throw error;
      why = error.message;
      onWaiting('shards', why);
    }
    if (told !== why) logger.warn({ why }, 'waiting for the number of shards');
    told = why;
    await new Promise((resolve) => setTimeout(resolve, 300));
    if (signal.aborted) throw new Error('stopped');
  }
}

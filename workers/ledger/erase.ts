/**
 * Erasure of one user: every row of a tenant's `user_id` leaves ClickHouse, and the log can no longer bring one back.
 *
 * LOAD-8 fixes the order. It removes loaded messages from the streams first, and then deletes the rows.
 *
 * No block may vanish: LOAD-2 and LOAD-3 ask ClickHouse whether a block is stored, and where the last one ends. A worker that is frozen
 * with this block would store it again. So a block with only this user's rows gets a tombstone first: a row with the block's constants
 * and without an event (tenant '').
 */
import type { JetStreamManager } from '@nats-io/jetstream';
import { UsageError } from '../../lib/errors.js';
import { generationOf } from '../../lib/log-streams.js';
import type { Logger } from '../../lib/logger.js';
import { streamInfo } from '../../lib/stream-info.js';
import { shardStream, tenantIdPattern } from '../../lib/subjects.js';
import type { ClickHouse } from '../clickhouse/client.js';
import { failedMutations, mutationText } from '../clickhouse/prepare-table.js';
import { quote } from '../clickhouse/schema/columns.js';
import type { TableTarget } from '../clickhouse/schema/index.js';
import { tableName } from '../clickhouse/schema/index.js';
import { createClickHouseBlockStore, type LastBlock } from '../loader/block-store.js';
import { hasLostItsEnd } from '../reader/end.js';

export interface EraseOptions {
  readonly tenant: string;
  readonly userId: string;
  readonly clickhouse: ClickHouse;
  readonly target: TableTarget;
  readonly jsm: JetStreamManager;
  /** Streams that may hold the user: those of the installation, and any other EV_ stream that holds messages. */
  readonly shards: readonly number[];
  /** How long to wait until what is in the log now has been loaded, ms. */
  readonly waitMs: number;
  readonly logger: Logger;
}

export interface Erasure {
  /** Rows that were deleted. */
  readonly rows: number;
  /** Messages removed from the streams; of all tenants, and all of them loaded. */
  readonly messages: number;
  /**
   * Messages that were in the log when the erasure began and are not loaded yet: they may hold events of the user. Run
   * the erasure again when the workers have caught up.
   */
  readonly unloaded: number;
}

/**
 * Erases, and waits until ClickHouse says that it is done.
 * @throws UsageError when the tenant or the user id is not one, a stream lost its end (LOAD-8), or a mutation of the table has failed
 */
export async function eraseUser(options: EraseOptions): Promise<Erasure> {
  const { tenant, userId, clickhouse, target, jsm, logger } = options;
  if (!tenantIdPattern.test(tenant))
    throw new UsageError(`"${tenant}" is not a tenant id: see \`sluice tenant list\`.`);
  if (userId === '' || userId.length > 4096) throw new UsageError('--user-id is empty or too long.');
  // Rows go by a mutation, and one that fails stands in the way of all later ones: better not to begin.
  const [failed] = await failedMutations(clickhouse, target);
  if (failed !== undefined) throw new UsageError(`Nothing was erased. ${mutationText(failed)}`);
  const store = createClickHouseBlockStore(clickhouse, target);
  const deadline = Date.now() + options.waitMs;
  let messages = 0;
  let unloaded = 0;
  /** Rows of blocks that come later are not of this erasure. */
  const bounds: string[] = [];
  for (const shard of options.shards) {
    const stream = shardStream(shard);
    const before = await streamInfo(jsm, stream);
    const generation = generationOf(before);
    const { first_seq: first, last_seq: last, messages: present } = before.state;
    let loaded: LastBlock;
    for (let told = false; ; told = true) {
      loaded = await store.lastBlock(shard, generation, undefined);
      if (loaded.hi >= last || present === 0 || Date.now() >= deadline) break;
      if (!told) logger.info({ shard, loaded: loaded.hi, last }, 'waiting for the workers to load what is in the log');
      await new Promise((resolve) => setTimeout(resolve, 250));
    }
    const { hi } = loaded;
    if (present > 0) unloaded += Math.max(0, last - Math.max(hi, first - 1));
    const now = await streamInfo(jsm, stream);
    if (hi > 0 && generationOf(now) === generation) {
      if (await hasLostItsEnd(jsm, now, loaded)) {
        throw new UsageError(
          `The stream ${stream} lost its end: it may hold messages that were never loaded, and erasing would remove them. ` +
            'See `sluice shards`, mend the shard, and run the erasure again.',
        );
      }
      messages += (await jsm.streams.purge(stream, { seq: hi + 1 })).purged;
    }
    bounds.push(`NOT (_stream = ${quote(generation)} AND _shard = ${shard} AND _hi > ${hi})`);
  }
  const table = tableName(target);
  // Mutations are kept as text, so their values cannot be query parameters.
  const theirs = [`tenant = ${quote(tenant)}`, `user_id = ${quote(userId)}`, ...bounds].join(' AND ');
  const [row] = await clickhouse.rows<{ n: string }>(`SELECT toString(count()) AS n FROM ${table} WHERE ${theirs}`);
  const rows = Number(row?.n ?? 0);
  if (rows > 0) {
    // With its counts, so that the ledger still knows what the block held (audit.ts), and its time, by which a log that lost
    // its end is known (LOAD-8).
    const name = '_day, _stream, _shard, _block, _lo, _hi, _accepted, _duplicate, _dead, _hi_at';
    await clickhouse.command(
      `INSERT INTO ${table} (${name}) SELECT ${name} FROM ${table} ` +
        `WHERE (_day, _stream, _shard, _block) IN (SELECT _day, _stream, _shard, _block FROM ${table} WHERE ${theirs}) ` +
        `GROUP BY ${name} HAVING count() = countIf(${theirs})`,
    );
    // A mutation rewrites the parts that hold the user, so the values leave the disk; 2: every replica has done it.
    await clickhouse.command(`ALTER TABLE ${table} DELETE WHERE ${theirs}`, { settings: { mutations_sync: 2 } });
  }
  logger.info({ tenant, rows, messages, unloaded }, 'erased a user');
  return { rows, messages, unloaded };
}

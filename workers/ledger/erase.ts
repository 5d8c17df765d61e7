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

/** What the log of one shard still had to do with an erasure. */
interface EmptiedShard {
  readonly messages: number;
  readonly unloaded: number;
  /** Rows of blocks that come later are not of this erasure: a condition for them. */
  readonly bound: string;
}

/** The last block, once all up to this message is loaded, or the deadline is over. */
async function loadedBy(
  { logger, ...options }: EraseOptions,
  { shard, generation, last }: { readonly shard: number; readonly generation: string; readonly last: number },
  deadline: number,
): Promise<LastBlock> {
  const store = createClickHouseBlockStore(options.clickhouse, options.target);
  for (let told = false; ; told = true) {
    const loaded = await store.lastBlock(shard, generation, undefined);
    if (loaded.hi >= last || Date.now() >= deadline) return loaded;
    if (!told) logger.info({ shard, loaded: loaded.hi, last }, 'waiting for the workers to load what is in the log');
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

/** Removes what is loaded from the stream of a shard. */
async function emptyShard(options: EraseOptions, shard: number, deadline: number): Promise<EmptiedShard> {
  const { jsm } = options;
  const stream = shardStream(shard);
  const before = await streamInfo(jsm, stream);
  const generation = generationOf(before);
  const { first_seq: first, last_seq: last, messages: present } = before.state;
  const loaded = await loadedBy(options, { shard, generation, last: present === 0 ? 0 : last }, deadline);
  const { hi } = loaded;
  const unloaded = present === 0 ? 0 : Math.max(0, last - Math.max(hi, first - 1));
  const bound = `NOT (_stream = ${quote(generation)} AND _shard = ${shard} AND _hi > ${hi})`;
  const now = await streamInfo(jsm, stream);
  if (hi === 0 || generationOf(now) !== generation) return { messages: 0, unloaded, bound };
  if (await hasLostItsEnd(jsm, now, loaded)) {
    throw new UsageError(
      `The stream ${stream} lost its end: it may hold messages that were never loaded, and erasing would remove them. ` +
        'See `sluice shards`, mend the shard, and run the erasure again.',
    );
  }
  const { purged } = await jsm.streams.purge(stream, { seq: hi + 1 });
  return { messages: purged, unloaded, bound };
}

/** @param theirs the condition for the rows. @returns how many there were */
async function deleteRows({ clickhouse, target }: EraseOptions, theirs: string): Promise<number> {
  const table = tableName(target);
  const [row] = await clickhouse.rows<{ n: string }>(`SELECT toString(count()) AS n FROM ${table} WHERE ${theirs}`);
  const rows = Number(row?.n ?? 0);
  if (rows === 0) return 0;
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
  return rows;
}

/**
 * Erases, and waits until ClickHouse says that it is done.
 * @throws UsageError when the tenant or the user id is not one, a stream lost its end (LOAD-8), or a mutation of the table has failed
 */
export async function eraseUser(options: EraseOptions): Promise<Erasure> {
  const { tenant, userId, clickhouse, target, logger } = options;
  if (!tenantIdPattern.test(tenant))
    throw new UsageError(`"${tenant}" is not a tenant id: see \`sluice tenant list\`.`);
  if (userId === '' || userId.length > 4096) throw new UsageError('--user-id is empty or too long.');
  // Rows go by a mutation, and one that fails stands in the way of all later ones: better not to begin.
  const [failed] = await failedMutations(clickhouse, target);
  if (failed !== undefined) throw new UsageError(`Nothing was erased. ${mutationText(failed)}`);
  const deadline = Date.now() + options.waitMs;
  let messages = 0;
  let unloaded = 0;
  const bounds: string[] = [];
  for (const shard of options.shards) {
    const emptied = await emptyShard(options, shard, deadline);
    messages += emptied.messages;
    unloaded += emptied.unloaded;
    bounds.push(emptied.bound);
  }
  // Mutations are kept as text, so their values cannot be query parameters.
  const theirs = [`tenant = ${quote(tenant)}`, `user_id = ${quote(userId)}`, ...bounds].join(' AND ');
  const rows = await deleteRows(options, theirs);
  logger.info({ tenant, rows, messages, unloaded }, 'erased a user');
  return { rows, messages, unloaded };
}

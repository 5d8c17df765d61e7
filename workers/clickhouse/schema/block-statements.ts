/** The INSERTs of a block. */
import { isLeftOut } from '../../../lib/failpoint.js';
import type { BlockRows } from './block-rows.js';
import { quote } from './columns.js';
import { readingSettings, type TableTarget, tableName } from './target.js';

/** What is the same in every row of a block. */
export interface BlockConstants {
  /** YYYY-MM-DD, UTC, of the block's first message. */
  readonly day: string;
  /** Generation of the stream. */
  readonly stream: string;
  readonly shard: number;
  readonly block: bigint;
  /** First and last log sequence. */
  readonly lo: bigint;
  readonly hi: bigint;
  /** Rows of the block; rows left out as duplicates (LOAD-5) or as dead letters (LOAD-6). */
  readonly accepted: number;
  readonly duplicate: number;
  readonly dead: number;
  /** When the log took the message `hi`, ms. @default 0: not known */
  readonly hiAtMs?: number;
}

export interface InsertStatement {
  /** Ends with FORMAT Protobuf: the data follows in the body; or takes no data. */
  readonly query: string;
  readonly settings: Readonly<Record<string, string | number>>;
}

/** The name of a block, and the id of the query that inserts it: ClickHouse runs only one of that id at a time. */
export const blockName = (c: Pick<BlockConstants, 'stream' | 'shard' | 'block'>): string =>
  `sluice-${c.stream.replace(/[^0-9A-Za-z]/g, '')}-${c.shard}-${c.block}`;

/** More rows and bytes than any block has: what is below these limits becomes one part (LOAD-1). */
const oneBlock = { rows: 16_777_216, bytes: 8 * 1024 ** 3 };

/** The constants of a block, as expressions. */
const valuesOf = (c: BlockConstants): readonly (readonly [string, string])[] => [
  ['_day', `toDate(${quote(c.day)})`],
  ['_stream', quote(c.stream)],
  ['_shard', String(c.shard)],
  ['_block', String(c.block)],
  ['_lo', String(c.lo)],
  ['_hi', String(c.hi)],
  ['_accepted', String(c.accepted)],
  ['_duplicate', String(c.duplicate)],
  ['_dead', String(c.dead)],
  ['_hi_at', `fromUnixTimestamp64Milli(toInt64(${Math.floor(c.hiAtMs ?? 0)}), 'UTC')`],
];

/** LOAD-2: the check and the insert are one statement, and ClickHouse runs one of this query_id at a time. */
const absent = (target: TableTarget, c: BlockConstants): string =>
  `(SELECT count() FROM ${tableName(target)} WHERE _day = toDate(${quote(c.day)}) AND _stream = ${quote(c.stream)} ` +
  `AND _shard = ${c.shard} AND _block = ${c.block}) ${isLeftOut('insert-if-absent') ? '>=' : '='} 0`;

const oneThread = { max_insert_threads: 1, max_threads: 1 };

const blockSettings = (target: TableTarget, c: BlockConstants): Record<string, string | number> => ({
  // LOAD-1: one INSERT, one part.
  ...oneThread,
  async_insert: 0,
  min_insert_block_size_rows: oneBlock.rows,
  min_insert_block_size_bytes: oneBlock.bytes,
  max_insert_block_size: oneBlock.rows,
  // Not cut into pieces on the way, only to be put together again.
  max_block_size: 1_048_576,
  ...(target.engine === 'ReplicatedMergeTree' ? replicated(target, c) : { insert_deduplicate: 0 }),
});

/**
 * LOAD-4. Query ids exclude each other on one server only, and the probe sees what its replica has. So Keeper has the last word on the
 * block's name, and what was answered is on most replicas, in one order: else a read with sequential consistency would be impossible.
 */
const replicated = (target: TableTarget, c: BlockConstants): Record<string, string | number> => ({
  insert_deduplicate: 1,
  insert_deduplication_token: blockName(c),
  // By default only a SELECT that passes for repeatable is deduplicated. Ours is named by its block, whatever is in it.
  ...(target.asksInsertSelect === true ? { deduplicate_insert_select: 'enable_even_for_bad_queries' } : {}),
  insert_quorum: 'auto',
  insert_quorum_parallel: 0,
  insert_quorum_timeout: quorumMs,
  ...readingSettings(target),
});

const quorumMs = 30_000;

/** The INSERT of a block, if absent (LOAD-2). */
export function insertRows(target: TableTarget, c: BlockConstants, rows: BlockRows): InsertStatement {
  const constants = valuesOf(c);
  const into = [...rows.into, ...constants.map(([name]) => name)];
  const select = [...rows.select, ...constants.map(([, value]) => value)];
  return {
    query:
      `INSERT INTO ${tableName(target)} (${into.map((name) => `\`${name}\``).join(', ')}) ` +
      `SELECT ${select.join(', ')} FROM ${rows.input} WHERE ${absent(target, c)} FORMAT Protobuf`,
    settings: { ...rows.settings, ...blockSettings(target, c) },
  };
}

/** Reads and computes the rows, and stores nothing. @param types of the columns */
export function tryRows(rows: BlockRows, types: ReadonlyMap<string, string>): InsertStatement {
  const structure = rows.into.map((name) => `\`${name}\` ${types.get(name)}`).join(', ');
  return {
    query:
      `INSERT INTO FUNCTION null(${quote(structure)}) ` +
      `SELECT ${rows.select.join(', ')} FROM ${rows.input} FORMAT Protobuf`,
    settings: { ...rows.settings, ...oneThread },
  };
}

/** One row without an event, if absent. */
export function insertTombstone(target: TableTarget, c: BlockConstants): InsertStatement {
  const constants = valuesOf(c);
  return {
    query:
      `INSERT INTO ${tableName(target)} (${constants.map(([name]) => `\`${name}\``).join(', ')}) ` +
      `SELECT ${constants.map(([, value]) => value).join(', ')} WHERE ${absent(target, c)}`,
    settings: blockSettings(target, c),
  };
}

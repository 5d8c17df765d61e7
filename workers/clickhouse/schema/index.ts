/**
 * The events table and every statement on its shape, derived from the descriptors.
 *
 *   columns.ts         fields → columns, their types, and how they are selected from the input
 *   format-schema.ts   the schema for ClickHouse's Protobuf reader
 *   field-presence.ts  which columns a block has values for
 *   compatible.ts      whether a column as it is can hold what the contract wants
 *   index.ts           the statements
 *
 * Run against the embedded engine 26.7; the statements use nothing that a server of 25.6 or newer lacks.
 */

import type { DescMessage } from '@bufbuild/protobuf';
import { StoredBatchSchema } from '#gen/sluice/log/v1/log_pb.js';
import { eventRules, type FieldNode, type MessageNode } from '../../../lib/contract/rules.js';
import { isLeftOut } from '../../../lib/failpoint.js';
import { batchColumns, blockColumns, type Column, columnsOf, quote } from './columns.js';
import { fitOf } from './compatible.js';
import { createWalker, everything, type FieldPresence, isFlattened } from './field-presence.js';
import { inputFormat } from './format-schema.js';

export interface TableTarget {
  readonly database: string;
  readonly table: string;
  /** ReplicatedMergeTree takes its path and replica from the server's macros. */
  readonly engine: 'MergeTree' | 'ReplicatedMergeTree';
  /** The server has the setting deduplicate_insert_select (26.x), by which it may pass over the token of an INSERT … SELECT. */
  readonly asksInsertSelect?: boolean;
}

/** `database.table`, quoted. */
export const tableName = (target: TableTarget): string => `\`${target.database}\`.\`${target.table}\``;

/** A row of system.columns. */
export interface ColumnInfo {
  readonly name: string;
  readonly type: string;
  /** MATERIALIZED, ALIAS and EPHEMERAL columns take no values. @default '' */
  readonly default_kind?: string;
}

/** A projection or an index of the table that a user made. */
export interface DerivedFrom {
  readonly name: string;
  /** Its SELECT. */
  readonly query: string;
}

/** A column that cannot hold what the contract wants, and that no worker may change. */
export interface Misfit {
  readonly column: string;
  readonly found: string;
  readonly wanted: string;
  /** And what to do. */
  readonly why: string;
}

/** What a worker does to a table that is there: it adds and widens. */
export interface Migration {
  readonly statements: readonly string[];
  readonly misfits: readonly Misfit[];
}

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

/** A contract's table: everything below for one version of the descriptors. */
export interface Schema {
  createStatements(target: TableTarget): string[];
  migrations(target: TableTarget, existing: readonly ColumnInfo[], projections?: readonly DerivedFrom[]): Migration;
  /** @param existing names in system.data_skipping_indices. Old parts get theirs in the background. */
  indexStatements(target: TableTarget, existing: ReadonlySet<string>): string[];
  /**
   * @param known names in the server's system.merge_tree_settings
   * @param engineFull of the table, in system.tables
   */
  settingStatements(target: TableTarget, known: ReadonlySet<string>, engineFull: string): string[];
  /**
   * @param payloads what the block holds: columns that it has nothing for are left to their defaults. Undefined: all are named.
   */
  insertStatement(
    target: TableTarget,
    constants: BlockConstants,
    payloads: readonly Uint8Array[] | undefined,
  ): InsertStatement;
  /**
   * Reads and computes what {@link insertStatement} would, and stores nothing (LOAD-6). All columns are named: which of them are read of
   * a batch depends on what else is in the block, so that a batch may be refused in one block and not in another.
   */
  trialStatement(): InsertStatement;
  /**
   * The INSERT of a block that has messages and no row to store: one row with the block's constants and no event in it
   * (tenant ''), if absent. It takes no data.
   */
  tombstoneStatement(target: TableTarget, constants: BlockConstants): InsertStatement;
}

/** The name of a block, and the id of the query that inserts it: ClickHouse runs only one of that id at a time. */
export const blockName = (c: Pick<BlockConstants, 'stream' | 'shard' | 'block'>): string =>
  `sluice-${c.stream.replace(/[^0-9A-Za-z]/g, '')}-${c.shard}-${c.block}`;

const tableOf = ({ database, table }: TableTarget): string => `\`${database}\`.\`${table}\``;

const define = ({ name, type, codec }: Omit<Column, 'select'>): string =>
  `\`${name}\` ${type}${codec === undefined ? '' : ` CODEC(${codec})`}`;

/** More rows and bytes than any block has: what is below these limits becomes one part (LOAD-1). */
const oneBlock = { rows: 16_777_216, bytes: 8 * 1024 ** 3 };

/** Skipping indices. A table that an older version made gets those that it lacks. */
const indices: readonly { readonly name: string; readonly definition: string }[] = [
  // Within a tenant, rows lie in order of arrival (see ORDER BY): their times are close together.
  { name: 'by_time', definition: 'occurred_at TYPE minmax GRANULARITY 1' },
  // Retried batches are looked up by this (LOAD-5), a hundred at a time: at 1 % of false answers each nearly every granule would
  // be read for one of them.
  { name: 'by_batch', definition: '_batch TYPE bloom_filter(0.0001) GRANULARITY 4' },
  // What was retried of late is asked after a recovery (LOAD-5, DEDUP-2): granules without a retry, and old ones, are passed over.
  { name: 'by_attempt', definition: '_attempt TYPE minmax GRANULARITY 1' },
  { name: 'by_arrival', definition: 'received_at TYPE minmax GRANULARITY 1' },
];

/** The day of a row: no block has the number 0. */
export const partitionKey = "if(_block = 0 AND _shard = 0 AND _stream = '', toDate(0), _day)";

const tableSettings: readonly string[] = [
  // Blocks are not deduplicated by ClickHouse on plain MergeTree (FACT-7); LOAD-2 is what makes retries harmless.
  'non_replicated_deduplication_window = 0',
  'max_bytes_to_merge_at_max_space_in_pool = 10737418240',
  "lightweight_mutation_projection_mode = 'rebuild'",
  "deduplicate_merge_projection_mode = 'rebuild'",
];

/** LOAD-4: tokens are remembered for a week or 100,000 blocks: longer than any INSERT that hangs. */
const replicatedTableSettings: readonly string[] = [
  'replicated_deduplication_window = 100000',
  'replicated_deduplication_window_seconds = 604800',
];

/**
 * Settings that only cost or save work: given to every table that does not set them, an older one too, as far as the server
 * knows them. What an operator has set stays.
 */
const workSettings: readonly (readonly [string, string])[] = [
  // A block is written as one compact part (12 files, where a wide one of 58 columns has 245): making and removing that many
  // files costs as much CPU as compressing the data. What a few blocks are merged into is wide.
  ['min_bytes_for_wide_part', '268435456'],
  // Otherwise blocks are merged five or so at a time: in the first 10 million rows each row was written again 1.5 times, with
  // sixteen 1.0 times.
  ['min_parts_to_merge_at_once', '16'],
  // … and so a day that has ended, or has been quiet for long, may be left with some dozens of parts: they become one, or a few.
  ['min_age_to_force_merge_seconds', '21600'],
  ['min_age_to_force_merge_on_partition_only', '1'],
  ['enable_max_bytes_limit_for_min_age_to_force_merge', '1'],
  // Newer servers count distinct values of every column in every merge, for a planner that has nothing to choose here.
  ['auto_statistics_types', "''"],
];

export function schemaOf(storedBatch: DescMessage, event: MessageNode): Schema {
  const eventColumns = columnsOf(event);
  const columns = [...batchColumns.slice(0, 1), ...eventColumns, ...batchColumns.slice(1), ...blockColumns];
  const types = new Map(columns.map(({ name, type }) => [name, type]));
  const names = new Set(columns.map(({ name }) => name));
  if (names.size !== columns.length) {
    const twice = columns.find(({ name }, i) => columns.findIndex((other) => other.name === name) !== i);
    throw new Error(`two fields of the contract make the same column: ${twice?.name}`);
  }
  const walker = createWalker(event, optionalBatchFields(storedBatch));

  /** Names, expressions and input of the rows of a block that has these fields. */
  const rowsOf = (presence: FieldPresence) => {
    const has = (path: string): boolean => presence(walker.ids.get(path) ?? 0);
    const batchField = (name: string): boolean => !walker.ids.has(`.${name}`) || has(`.${name}`);
    const held = heldBy(event, has, '');
    const reading = { event: held.fields.length === 0 ? event : held, batchField };
    const rows = [...columnsOf(reading.event), ...batchColumns.filter(({ name }) => batchField(name))];
    return {
      into: rows.map(({ name }) => name),
      select: rows.map((column) => column.select),
      format: inputFormat(storedBatch, event, reading),
    };
  };
  /** Events as rows. The hash is taken per batch, before the rows are multiplied. */
  const inputOf = ({ format }: ReturnType<typeof rowsOf>): string =>
    `(SELECT events, ${format.batchFields.join(', ')}, reinterpretAsUInt128(sipHash128(tenant, batch_id)) AS batch_hash ` +
    `FROM input(${quote(format.structure)})) ARRAY JOIN events AS e`;
  const readSettings = ({ format }: ReturnType<typeof rowsOf>) => ({
    format_schema_source: 'string',
    format_schema: format.schema,
    format_schema_message_name: `${format.message}`,
  });
  /** By what blocks hold. A handful in practice; the bound is for a client that sends every mixture. */
  const known = new Map<string, ReturnType<typeof rowsOf>>();
  const rowsIn = (payloads: readonly Uint8Array[] | undefined): ReturnType<typeof rowsOf> => {
    const { key, presence } =
      payloads === undefined ? { key: 'everything', presence: everything } : walker.presenceIn(payloads);
    let rows = known.get(key);
    if (rows === undefined) {
      rows = rowsOf(presence);
      if (known.size >= maxKnown) known.clear();
      known.set(key, rows);
    }
    return rows;
  };

  return {
    createStatements(target) {
      const engine =
        target.engine === 'ReplicatedMergeTree'
          ? "ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')"
          : 'MergeTree';
      const parts = [
        ...columns.map(define),
        ...indices.map(({ name, definition }) => `INDEX ${name} ${definition}`),
        // One row per block and part, written and merged with the part: what "is block k there?" (LOAD-2) and "which is the
        // last one?" (LOAD-3) read, instead of every row. It needs no trust beyond the part itself.
        'PROJECTION blocks (SELECT _day, _stream, _shard, _block, count(), min(_lo), max(_hi), max(_block) ' +
          'GROUP BY _day, _stream, _shard, _block)',
      ];
      return [
        `CREATE DATABASE IF NOT EXISTS \`${target.database}\``,
        `CREATE TABLE IF NOT EXISTS ${tableOf(target)} (\n  ${parts.join(',\n  ')}\n) ENGINE = ${engine}\n` +
          // The key of a partition is its day, whatever the other columns hold. They are named in it because ClickHouse keeps,
          // in memory, least and greatest of each of its columns for every part: "is block k there?" (LOAD-2) then opens no part
          // but the block's own, and costs the same with a thousand parts as with one.
          `PARTITION BY ${partitionKey}\n` +
          // A block comes sorted by this (workers/loader/sort-by-tenant.ts), so nothing is sorted when it is stored, and merging joins
          // runs of rows instead of picking row by row from every part. Within a tenant, rows lie in order of arrival: the
          // index by_time finds times. (Merging column by column, ClickHouse's default, costs half of merging whole rows.)
          'ORDER BY (tenant, _shard, _block)\n' +
          `SETTINGS ${[...tableSettings, ...(target.engine === 'MergeTree' ? [] : replicatedTableSettings)].join(', ')}`,
      ];
    },

    /** New columns are added at the end; what the contract lost stays. */
    migrations(target, existing, projections = []) {
      const present = new Map(existing.map((column) => [column.name, column]));
      const statements: string[] = [];
      const misfits: Misfit[] = [];
      for (const column of columns) {
        const { name, type: wanted } = column;
        const found = present.get(name);
        if (found === undefined) {
          statements.push(`ALTER TABLE ${tableOf(target)} ADD COLUMN IF NOT EXISTS ${define(column)}`);
          continue;
        }
        const change = changeOf(target, found, wanted, positions.has(name), projections);
        if (typeof change === 'string') statements.push(change);
        else if (change !== undefined) misfits.push({ column: name, found: found.type, wanted, ...change });
      }
      return { statements, misfits };
    },

    indexStatements(target, existing) {
      return indices
        .filter(({ name }) => !existing.has(name))
        .flatMap(({ name, definition }) => [
          `ALTER TABLE ${tableOf(target)} ADD INDEX IF NOT EXISTS ${name} ${definition}`,
          `ALTER TABLE ${tableOf(target)} MATERIALIZE INDEX ${name}`,
        ]);
    },

    settingStatements(target, known, engineFull) {
      const missing = workSettings.filter(([name]) => known.has(name) && !new RegExp(`\\b${name} = `).test(engineFull));
      if (missing.length === 0) return [];
      return [`ALTER TABLE ${tableOf(target)} MODIFY SETTING ${missing.map((pair) => pair.join(' = ')).join(', ')}`];
    },

    insertStatement(target, c, payloads) {
      const rows = rowsIn(payloads);
      const constants = valuesOf(c);
      const into = [...rows.into, ...constants.map(([name]) => name)];
      const select = [...rows.select, ...constants.map(([, value]) => value)];
      return {
        query:
          `INSERT INTO ${tableOf(target)} (${into.map((name) => `\`${name}\``).join(', ')}) ` +
          `SELECT ${select.join(', ')} FROM ${inputOf(rows)} WHERE ${absent(target, c)} FORMAT Protobuf`,
        settings: { ...readSettings(rows), ...blockSettings(target, c) },
      };
    },

    trialStatement() {
      const rows = rowsIn(undefined);
      const structure = rows.into.map((name) => `\`${name}\` ${types.get(name)}`).join(', ');
      return {
        query:
          `INSERT INTO FUNCTION null(${quote(structure)}) ` +
          `SELECT ${rows.select.join(', ')} FROM ${inputOf(rows)} FORMAT Protobuf`,
        settings: { ...readSettings(rows), ...oneThread },
      };
    },

    tombstoneStatement(target, c) {
      const constants = valuesOf(c);
      return {
        query:
          `INSERT INTO ${tableOf(target)} (${constants.map(([name]) => `\`${name}\``).join(', ')}) ` +
          `SELECT ${constants.map(([, value]) => value).join(', ')} WHERE ${absent(target, c)}`,
        settings: blockSettings(target, c),
      };
    },
  };
}

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
  `(SELECT count() FROM ${tableOf(target)} WHERE _day = toDate(${quote(c.day)}) AND _stream = ${quote(c.stream)} ` +
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

/** LOAD-4: of statements that ask what is stored. On a replica that lacks something the answer is an error, and tried again. */
export const readingSettings = (target: TableTarget): Record<string, string | number> =>
  target.engine === 'ReplicatedMergeTree' ? { select_sequential_consistency: 1 } : {};

const maxKnown = 256;

/** Fields of the batch that most batches lack: they are opt-in. */
const optInFields: ReadonlySet<string> = new Set(['client_address', 'user_agent']);
const optionalBatchFields = (storedBatch: DescMessage): ReadonlyMap<string, number> =>
  new Map(storedBatch.fields.filter(({ name }) => optInFields.has(name)).map(({ name, number }) => [name, number]));

/** An enum's column has its least value as default: only when that is 0 does leaving it out read as an absent field. */
const mayBeLeftOut = ({ kind, cardinality, enum: of }: FieldNode): boolean =>
  kind !== 'enum' || cardinality !== 'singular' || (of?.values ?? []).every(({ number }) => number >= 0);

/** The tree without the fields that no event has. */
function heldBy(message: MessageNode, has: (path: string) => boolean, prefix: string): MessageNode {
  const fields = message.fields.flatMap((field): FieldNode[] => {
    if (!isFlattened(field)) return has(`${prefix}${field.name}`) || !mayBeLeftOut(field) ? [field] : [];
    const inner = heldBy(field.message as MessageNode, has, `${prefix}${field.name}.`);
    return inner.fields.length === 0 ? [] : [{ ...field, message: inner }];
  });
  return { ...message, fields };
}

/** Columns that tell where a message is: their values are compared. */
const positions: ReadonlySet<string> = new Set(blockColumns.map(({ name }) => name));

/** The statement that lets the column hold what is wanted, or why there is none; undefined when it holds that. */
function changeOf(
  target: TableTarget,
  found: ColumnInfo,
  wanted: string,
  exact: boolean,
  projections: readonly DerivedFrom[],
): string | { readonly why: string } | undefined {
  const { name, type, default_kind: kind = '' } = found;
  if (kind !== '' && kind !== 'DEFAULT') {
    return { why: `it is ${kind} and takes no values: make it an ordinary column, or rename it` };
  }
  const fit = fitOf(type, wanted, exact);
  if (fit.kind === 'fits') return undefined;
  if (fit.kind === 'misfit') {
    return { why: `${fit.why}. Give the column the wanted type, or rename it and the worker adds another` };
  }
  // ClickHouse refuses the change of a column that a projection reads.
  const by = projections.find(({ query }) => new RegExp(`\\b${name}\\b`).test(query));
  if (by === undefined) return `ALTER TABLE ${tableOf(target)} MODIFY COLUMN \`${name}\` ${fit.to}`;
  return {
    why:
      `it must become ${fit.to}, which the projection ${by.name} prevents: ALTER TABLE ${tableOf(target)} DROP PROJECTION ` +
      `${by.name}. The worker then goes on, and the projection can be added again`,
  };
}

const current = schemaOf(StoredBatchSchema, eventRules);

export const {
  createStatements,
  migrations,
  indexStatements,
  settingStatements,
  insertStatement,
  trialStatement,
  tombstoneStatement,
} = current;

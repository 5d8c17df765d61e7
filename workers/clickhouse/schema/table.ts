/** The events table: how it is made, and how a table that is there is brought up to the contract. */
import { blockColumns, type Column } from './columns.js';
import { fitOf } from './compatible.js';
import { type TableTarget, tableName } from './target.js';

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

/** A column as the table has it. */
export type TableColumn = Omit<Column, 'select'>;

const define = ({ name, type, codec }: TableColumn): string =>
  `\`${name}\` ${type}${codec === undefined ? '' : ` CODEC(${codec})`}`;

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

/** Statements that make database and table. */
export function createTable(target: TableTarget, columns: readonly TableColumn[]): string[] {
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
    `CREATE TABLE IF NOT EXISTS ${tableName(target)} (\n  ${parts.join(',\n  ')}\n) ENGINE = ${engine}\n` +
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
}

/** New columns are added at the end; what the contract lost stays. */
export function migrateTable(
  target: TableTarget,
  columns: readonly TableColumn[],
  existing: readonly ColumnInfo[],
  projections: readonly DerivedFrom[],
): Migration {
  const present = new Map(existing.map((column) => [column.name, column]));
  const statements: string[] = [];
  const misfits: Misfit[] = [];
  for (const column of columns) {
    const { name, type: wanted } = column;
    const found = present.get(name);
    if (found === undefined) {
      statements.push(`ALTER TABLE ${tableName(target)} ADD COLUMN IF NOT EXISTS ${define(column)}`);
      continue;
    }
    const change = changeOf(target, found, wanted, positions.has(name), projections);
    if (typeof change === 'string') statements.push(change);
    else if (change !== undefined) misfits.push({ column: name, found: found.type, wanted, ...change });
  }
  return { statements, misfits };
}

/** @param existing names in system.data_skipping_indices */
export function addIndices(target: TableTarget, existing: ReadonlySet<string>): string[] {
  return indices
    .filter(({ name }) => !existing.has(name))
    .flatMap(({ name, definition }) => [
      `ALTER TABLE ${tableName(target)} ADD INDEX IF NOT EXISTS ${name} ${definition}`,
      `ALTER TABLE ${tableName(target)} MATERIALIZE INDEX ${name}`,
    ]);
}

/** Sets what costs or saves work, where the table does not. */
export function addSettings(target: TableTarget, known: ReadonlySet<string>, engineFull: string): string[] {
  const missing = workSettings.filter(([name]) => known.has(name) && !new RegExp(`\\b${name} = `).test(engineFull));
  if (missing.length === 0) return [];
  return [`ALTER TABLE ${tableName(target)} MODIFY SETTING ${missing.map((pair) => pair.join(' = ')).join(', ')}`];
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
  if (by === undefined) return `ALTER TABLE ${tableName(target)} MODIFY COLUMN \`${name}\` ${fit.to}`;
  return {
    why:
      `it must become ${fit.to}, which the projection ${by.name} prevents: ALTER TABLE ${tableName(target)} DROP PROJECTION ` +
      `${by.name}. The worker then goes on, and the projection can be added again`,
  };
}

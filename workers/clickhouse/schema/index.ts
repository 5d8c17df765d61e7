/**
 * The events table and every statement on its shape, derived from the descriptors.
 *
 *   target.ts          which table is meant
 *   table.ts           the table: making and migrating it
 *   block-rows.ts      what the INSERT of a block names and reads
 *   block-statements.ts  the INSERTs of a block
 *   columns.ts         fields → columns, their types, and how they are selected from the input
 *   format-schema.ts   the schema for ClickHouse's Protobuf reader
 *   field-presence.ts  which columns a block has values for
 *   compatible.ts      whether a column as it is can hold what the contract wants
 *   index.ts           all of it for one version of the descriptors
 *
 * Run against the embedded engine 26.7; the statements use nothing that a server of 25.6 or newer lacks.
 */

import type { DescMessage } from '@bufbuild/protobuf';
import { StoredBatchSchema } from '#gen/sluice/log/v1/log_pb.js';
import { eventRules, type MessageNode } from '../../../lib/contract/rules.js';
import { createBlockRows } from './block-rows.js';
import { type BlockConstants, type InsertStatement, insertRows, insertTombstone, tryRows } from './block-statements.js';
import { batchColumns, blockColumns, columnsOf } from './columns.js';
import {
  addIndices,
  addSettings,
  type ColumnInfo,
  createTable,
  type DerivedFrom,
  type Migration,
  migrateTable,
  type TableColumn,
} from './table.js';
import type { TableTarget } from './target.js';

export { type BlockConstants, blockName, type InsertStatement } from './block-statements.js';
export { type ColumnInfo, type DerivedFrom, type Migration, type Misfit, partitionKey } from './table.js';
export { readingSettings, type TableTarget, tableName } from './target.js';

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

/** The columns of the table. @throws Error when two fields of the contract make the same column */
function allColumns(event: MessageNode): TableColumn[] {
  const columns = [...batchColumns.slice(0, 1), ...columnsOf(event), ...batchColumns.slice(1), ...blockColumns];
  const names = columns.map(({ name }) => name);
  const twice = names.find((name, i) => names.indexOf(name) !== i);
  if (twice !== undefined) throw new Error(`two fields of the contract make the same column: ${twice}`);
  return columns;
}

export function schemaOf(storedBatch: DescMessage, event: MessageNode): Schema {
  const columns = allColumns(event);
  const types = new Map(columns.map(({ name, type }) => [name, type]));
  const rowsIn = createBlockRows(storedBatch, event);
  return {
    createStatements: (target) => createTable(target, columns),
    migrations: (target, existing, projections = []) => migrateTable(target, columns, existing, projections),
    indexStatements: addIndices,
    settingStatements: addSettings,
    insertStatement: (target, constants, payloads) => insertRows(target, constants, rowsIn(payloads)),
    trialStatement: () => tryRows(rowsIn(undefined), types),
    tombstoneStatement: insertTombstone,
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

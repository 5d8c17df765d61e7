/**
 * Adapts the events table to the contract when a worker starts. It adds what is missing, widens what is too narrow
 * (schema/compatible.ts), logs each change, and changes nothing else. Many workers of several versions may do this at once.
 */
import type { Logger } from '../../lib/logger.js';
import { type ClickHouse, StatementError, type StatementErrorKind } from './client.js';
import {
  type ColumnInfo,
  createStatements,
  type DerivedFrom,
  indexStatements,
  type Misfit,
  migrations,
  settingStatements,
  type TableTarget,
  tableName,
} from './schema/index.js';

/** The table cannot be loaded as it is, and an operator has to change it. ClickHouse answers. */
export class TableError extends Error {
  override readonly name = 'TableError';
}

/** Kinds of errors that are no word on the table. */
const passing: ReadonlySet<StatementErrorKind> = new Set(['large', 'transient', 'unclear']);

/** ClickHouse's errors that say: this table cannot be changed so. ALTER_OF_COLUMN_IS_FORBIDDEN, UNFINISHED (a mutation failed). */
const refusals: ReadonlySet<number | undefined> = new Set([524, 341]);

/** @throws TableError when the table does not fit; StatementError when ClickHouse cannot be reached, or is in trouble */
export async function prepareTable(clickhouse: ClickHouse, target: TableTarget, logger?: Logger): Promise<void> {
  const of = { database: target.database, table: target.table };
  const where = 'WHERE database = {database:String} AND table = {table:String}';
  for (const statement of createStatements(target)) await change(clickhouse, target, statement);
  const columns = await clickhouse.rows<ColumnInfo>(
    `SELECT name, type, default_kind FROM system.columns ${where} ORDER BY position`,
    of,
  );
  const projections = await clickhouse.rows<DerivedFrom>(`SELECT name, query FROM system.projections ${where}`, of);
  const { statements, misfits } = migrations(target, columns, projections);
  for (const statement of statements) await change(clickhouse, target, statement, logger);
  if (misfits.length > 0) throw new TableError(misfitText(target, misfits));
  const indices = await clickhouse.rows<{ name: string }>(`SELECT name FROM system.data_skipping_indices ${where}`, of);
  for (const statement of indexStatements(target, new Set(indices.map(({ name }) => name)))) {
    await change(clickhouse, target, statement, logger);
  }
  const known = await clickhouse.rows<{ name: string }>('SELECT name FROM system.merge_tree_settings');
  const [made] = await clickhouse.rows<{ engine_full: string }>(
    'SELECT engine_full FROM system.tables WHERE database = {database:String} AND name = {table:String}',
    of,
  );
  const names = new Set(known.map(({ name }) => name));
  for (const statement of settingStatements(target, names, made?.engine_full ?? '')) {
    await change(clickhouse, target, statement, logger);
  }
  if (logger !== undefined) await tellMutations(clickhouse, target, logger);
}

/** Those that fail, and those that take long: nothing is changed about them. */
async function tellMutations(clickhouse: ClickHouse, target: TableTarget, logger: Logger): Promise<void> {
  for (const mutation of await failedMutations(clickhouse, target)) logger.error(mutation, mutationText(mutation));
  const slow = await clickhouse.rows<Omit<FailedMutation, 'reason'> & { readonly parts: string }>(
    'SELECT mutation_id AS id, substring(command, 1, 300) AS command, toString(parts_to_do) AS parts FROM system.mutations ' +
      'WHERE database = {database:String} AND table = {table:String} AND NOT is_done ' +
      "AND latest_fail_reason = '' AND create_time < now() - INTERVAL 10 MINUTE",
    { database: target.database, table: target.table },
  );
  for (const mutation of slow) logger.warn(mutation, 'a mutation of the events table has not ended for ten minutes');
}

function misfitText(target: TableTarget, misfits: readonly Misfit[]): string {
  const each = misfits.map(
    ({ column, found, wanted, why }) => `column ${column} is ${found}, and should be ${wanted}: ${why}`,
  );
  return `The table ${tableName(target)} cannot be loaded as it is: ${each.join('; ')}.`;
}

async function change(clickhouse: ClickHouse, target: TableTarget, statement: string, logger?: Logger): Promise<void> {
  logger?.info({ statement }, 'changing the events table');
  try {
    await clickhouse.command(statement);
  } catch (error) {
    if (!(error instanceof StatementError) || error.clickhouseCode === undefined) throw error;
    if (passing.has(error.kind) && !refusals.has(error.clickhouseCode)) throw error;
    const failed = await failedMutations(clickhouse, target);
    throw new TableError(
      [`ClickHouse refuses "${statement.slice(0, 300)}": ${error.message}.`, ...failed.map(mutationText)].join(' '),
      { cause: error },
    );
  }
}

/** A change of rows that ClickHouse tries again and again, in the way of all later ones. */
export interface FailedMutation {
  readonly id: string;
  readonly command: string;
  readonly reason: string;
}

/** Those of the events table that have failed and are still tried. */
export const failedMutations = (clickhouse: ClickHouse, target: TableTarget): Promise<FailedMutation[]> =>
  clickhouse.rows<FailedMutation>(
    'SELECT mutation_id AS id, substring(command, 1, 300) AS command, substring(latest_fail_reason, 1, 300) AS reason ' +
      'FROM system.mutations WHERE database = {database:String} AND table = {table:String} AND NOT is_done ' +
      "AND latest_fail_reason != '' ORDER BY create_time",
    { database: target.database, table: target.table },
  );

export const mutationText = ({ id, command, reason }: FailedMutation): string =>
  `The mutation ${id} ${command} of the events table fails (${reason}), and stands in the way of later ones, an erasure too: ` +
  `KILL MUTATION WHERE mutation_id = '${id}', and undo what it was to do.`;

/** Which table is meant, and how its server is asked. */

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

/** LOAD-4: of statements that ask what is stored. On a replica that lacks something the answer is an error, and tried again. */
export const readingSettings = (target: TableTarget): Record<string, string | number> =>
  target.engine === 'ReplicatedMergeTree' ? { select_sequential_consistency: 1 } : {};

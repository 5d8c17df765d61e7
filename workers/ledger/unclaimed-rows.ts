/** Rows of a tenant's batches that no copy in the log has accounted for yet, for audit-tenant.ts. */
import type { LoadedCopy } from './compared-copies.js';
import type { StoredRows } from './ledger-store.js';

export interface UnclaimedRows {
  /**
   * TENANT-2. Takes the rows of a copy's block, as many as the copy has events.
   * @param rows of its batch, in all blocks of its shard and stream generation. Those of one block may differ in their attempt: one entry each
   * @returns how many there were
   */
  claim(copy: LoadedCopy, rows: readonly StoredRows[], events: number): number;
  /** Ends the blocks before this message. @returns what is left of each batch there */
  close(below: number): { readonly row: StoredRows; readonly rows: number }[];
}

export function createUnclaimedRows(): UnclaimedRows {
  const left = new Map<string, { rows: number; readonly row: StoredRows }>();
  return {
    claim(copy, rows, events) {
      let claimed = 0;
      for (const row of rows) {
        if (copy.sequence < row.lo || copy.sequence > row.hi || row.attempt !== copy.attempt) continue;
        const key = `${row.block} ${row.attempt} ${copy.batchId}`;
        const entry = left.get(key) ?? { rows: row.rows, row };
        left.set(key, entry);
        const taken = Math.min(entry.rows, events - claimed);
        entry.rows -= taken;
        claimed += taken;
      }
      return claimed;
    },
    close(below) {
      const closed = [...left].filter(([, { row }]) => row.hi < below);
      for (const [key] of closed) left.delete(key);
      return closed.map(([, entry]) => entry).filter(({ rows }) => rows > 0);
    },
  };
}

/**
 * What ClickHouse has of a run: rows by client and case, each event id once.
 */
import { type ClickHouseClient, ClickHouseLogLevel, createClient } from '@clickhouse/client';
import type { CaseName } from './cases.js';

export interface StoredRows {
  /** Rows of a case, and distinct event ids among them. */
  of(run: string, name: CaseName): Promise<{ readonly rows: number; readonly ids: number }>;
  close(): Promise<void>;
}

export function openStoredRows(url: string): StoredRows {
  const client: ClickHouseClient = createClient({ url, log: { level: ClickHouseLogLevel.OFF } });
  return {
    async of(run, name) {
      const answer = await client.query({
        query:
          'SELECT count() AS rows, uniqExact(event_id) AS ids FROM sluice.events WHERE startsWith(event_id, {prefix: String})',
        query_params: { prefix: `${run}-${name}-` },
        format: 'JSONEachRow',
      });
      const [row] = await answer.json<{ rows: string; ids: string }>();
      return { rows: Number(row?.rows), ids: Number(row?.ids) };
    },
    close: () => client.close(),
  };
}

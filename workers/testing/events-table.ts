import { clickhouseClientOptions, resolveOptions } from '../../lib/config/index.js';
import { silentLogger } from '../../lib/logger.js';
import { withClickHouse } from '../../lib/testing/clickhouse.js';
import { type ClickHouse, createClickHouse } from '../clickhouse/client.js';
import { prepareTable } from '../clickhouse/prepare-table.js';
import type { TableTarget } from '../clickhouse/schema/index.js';

/** Runs `use` with an engine of its own and the events table in it; ends both, also after an error. */
export async function withEventsTable(
  target: TableTarget,
  use: (clickhouse: ClickHouse, url: string) => Promise<void>,
): Promise<void> {
  await withClickHouse(async ({ url }) => {
    const options = resolveOptions(clickhouseClientOptions, { clickhouseUrl: url }, {});
    const clickhouse = createClickHouse(options, silentLogger);
    try {
      await prepareTable(clickhouse, target);
      await use(clickhouse, url);
    } finally {
      await clickhouse.close();
    }
  });
}

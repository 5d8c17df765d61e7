/**
 * `sluice query`: a statement to ClickHouse, and its answer as a table.
 */
import { createClient } from '@clickhouse/client';
import type { StackConfig } from '../lib/config/index.js';
import { UsageError } from '../lib/errors.js';
import { addresses } from './stack-file.js';

/** Prints what ClickHouse answers. @throws UsageError with ClickHouse's words, or when it cannot be reached */
export async function query(config: StackConfig, statement: string, format: string): Promise<void> {
  if (!/^\w+$/.test(format))
    throw new UsageError(`"${format}" is not a format; for example PrettyCompact, JSONEachRow, CSV.`);
  const { clickhouse } = addresses(config);
  const client = createClient({
    url: clickhouse,
    username: config.clickhouseUser,
    password: config.clickhousePassword,
    database: config.clickhouseDatabase,
    application: 'sluice query',
    request_timeout: 600_000,
    log: { level: 127 },
  });
  const bare = statement.trim().replace(/;$/, '');
  try {
    const { stream } = await client.exec({
      query: /\bFORMAT\s+\w+$/i.test(bare) ? bare : `${bare} FORMAT ${format}`,
      clickhouse_settings: { output_format_pretty_color: 0, output_format_pretty_max_rows: '10000' },
    });
    for await (const chunk of stream) process.stdout.write(chunk as Buffer);
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    throw new UsageError(
      code === 'ECONNREFUSED'
        ? `No ClickHouse answers at ${clickhouse}: \`npm start\` runs one, --data or --clickhouse-url says where it is.`
        : `ClickHouse: ${message}`,
    );
  } finally {
    await client.close();
  }
}

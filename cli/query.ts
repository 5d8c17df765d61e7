/**
 * `sluice query`: a statement to ClickHouse, and its answer as a table.
 */
import { once } from 'node:events';
import type { Readable } from 'node:stream';
import { createClient } from '@clickhouse/client';
import { clickhouseTls } from '../lib/clickhouse-tls.js';
import type { StackConfig } from '../lib/config/index.js';
import { UsageError } from '../lib/errors.js';
import { withoutCredentials } from '../lib/nats-login.js';
import { print } from '../lib/terminal.js';
import { addresses } from './stack-file.js';

/** To standard output, no faster than it is read. */
async function show(answer: Readable): Promise<void> {
  const text = new TextDecoder();
  for await (const chunk of answer as AsyncIterable<Buffer>) {
    const written = process.stdout.isTTY ? print(text.decode(chunk, { stream: true })) : process.stdout.write(chunk);
    if (!written) await once(process.stdout, 'drain');
  }
}

/** Prints what ClickHouse answers. @throws UsageError with ClickHouse's words, or when it cannot be reached */
export async function query(config: StackConfig, statement: string, format: string): Promise<void> {
  if (!/^\w+$/.test(format))
    throw new UsageError(`"${format}" is not a format; for example PrettyCompact, JSONEachRow, CSV.`);
  const { clickhouse, clickhousePassword } = addresses(config);
  const client = createClient({
    url: clickhouse,
    username: config.clickhouseUser,
    password: clickhousePassword,
    ...clickhouseTls(clickhouse, config.clickhouseTlsCa),
    database: config.clickhouseDatabase,
    application: 'sluice query',
    request_timeout: 600_000,
    log: { level: 127 },
  });
  const bare = statement.replace(/[\s;]+$/, '');
  if (bare.trim() === '') throw new UsageError('The statement is empty; for example "SELECT count() FROM events".');
  try {
    const { stream } = await client.exec({
      query: bare,
      // For a statement without a FORMAT of its own, wherever in it that would stand.
      http_headers: { 'X-ClickHouse-Format': format },
      clickhouse_settings: { output_format_pretty_color: 0, output_format_pretty_max_rows: '10000' },
    });
    await show(stream);
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    throw new UsageError(
      code === 'ECONNREFUSED'
        ? `No ClickHouse answers at ${withoutCredentials(clickhouse)}: \`npm start\` runs one, --data or --clickhouse-url says where it is.`
        : `ClickHouse: ${message}`,
    );
  } finally {
    await client.close();
  }
}

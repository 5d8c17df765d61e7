/**
 * How many events were stored late: longer after the gateway took them than a bound. When a block was committed is what was heard of
 * the workers (watermark.ts).
 */
import type { ClickHouseClient } from '@clickhouse/client';
import type { Watermark } from './watermark.js';

export async function countLate(
  clickhouse: ClickHouseClient,
  table: string,
  watermark: Watermark,
  lateMs: number,
): Promise<number> {
  const ask = async <T>(query: string): Promise<T[]> => {
    const answer = await clickhouse.query({ query, format: 'JSONEachRow' });
    return await answer.json<T>();
  };
  const blocks = await ask<{ stream: string; shard: number; block: string; hi: string; received: string }>(
    'SELECT toString(_stream) AS stream, _shard AS shard, toString(_block) AS block, toString(max(_hi)) AS hi, ' +
      `toString(min(toUnixTimestamp64Milli(received_at))) AS received FROM ${table} WHERE tenant != '' GROUP BY _stream, _shard, _block`,
  );
  let late = 0;
  for (const { stream, shard, block, hi, received } of blocks) {
    const storedAt = watermark.timeOf(shard, Number(hi));
    if (storedAt === undefined || storedAt - Number(received) <= lateMs) continue;
    const [row] = await ask<{ n: string }>(
      `SELECT toString(count()) AS n FROM ${table} WHERE _stream = '${stream}' AND _shard = ${shard} AND _block = ${block} ` +
        `AND toUnixTimestamp64Milli(received_at) < ${storedAt - lateMs}`,
    );
    late += Number(row?.n ?? 0);
  }
  return late;
}

/**
 * Retention by day: drops whole partitions that are older than the setting, when LOAD-8 allows it.
 */
import type { JetStreamManager } from '@nats-io/jetstream';
import { isStreamMissing } from '../../lib/jetstream-errors.js';
import { generationOf } from '../../lib/log-streams.js';
import type { Logger } from '../../lib/logger.js';
import { streamInfo } from '../../lib/stream-info.js';
import { shardStream } from '../../lib/subjects.js';
import { utcDay } from '../../lib/timestamp.js';
import { dayMs } from '../../lib/units.js';
import type { ClickHouse } from './client.js';
import { partitionKey, type TableTarget, tableName } from './schema/index.js';

/** The last message of one shard and stream generation that is stored in one day. */
export interface DayContent {
  readonly day: string;
  readonly shard: number;
  readonly generation: string;
  readonly hi: number;
}

/** The stream of a shard as it is now. */
export interface StreamStart {
  readonly generation: string;
  readonly firstSequence: number;
}

/**
 * The days that may go, oldest first.
 *
 * LOAD-8: a day stays while a message of one of its blocks is in its stream. And the day with the newest block of a shard's
 * stream stays whatever its age: the position of the shard is read from it. So the last day of a shard that gets no more
 * events is kept until newer ones arrive.
 * @param cutoff the first day to keep
 */
export function droppableDays(
  contents: readonly DayContent[],
  streams: ReadonlyMap<number, StreamStart>,
  cutoff: string,
): string[] {
  const newest = new Map<number, number>();
  for (const { shard, generation, hi } of contents) {
    if (streams.get(shard)?.generation === generation) newest.set(shard, Math.max(newest.get(shard) ?? 0, hi));
  }
  const kept = new Set<string>();
  for (const { day, shard, generation, hi } of contents) {
    const stream = streams.get(shard);
    // Messages of a generation that is gone are in no stream.
    if (stream?.generation !== generation) continue;
    if (hi >= stream.firstSequence || hi === newest.get(shard)) kept.add(day);
  }
  return [...new Set(contents.map((content) => content.day))].filter((day) => day < cutoff && !kept.has(day)).sort();
}

export interface RetentionOptions {
  readonly clickhouse: ClickHouse;
  readonly target: TableTarget;
  readonly jsm: JetStreamManager;
  readonly shards: number;
  /** Days to keep, today included. */
  readonly days: number;
  readonly nowMs: number;
  readonly logger: Logger;
}

/** Drops what is too old. @returns the days that were dropped. Rejects when the log or ClickHouse cannot be reached. */
export async function dropOldDays(options: RetentionOptions): Promise<string[]> {
  const { clickhouse, target, jsm, shards, logger } = options;
  const cutoff = utcDay(options.nowMs - (options.days - 1) * dayMs);
  const table = tableName(target);
  const rows = await clickhouse.rows<{ day: string; shard: number; generation: string; hi: string }>(
    'SELECT toString(_day) AS day, toUInt32(_shard) AS shard, toString(_stream) AS generation, ' +
      `toString(max(_hi)) AS hi FROM ${table} GROUP BY _day, _shard, _stream`,
  );
  const contents = rows.map((row) => ({ ...row, shard: Number(row.shard), hi: Number(row.hi) }));
  if (!contents.some((content) => content.day < cutoff)) return [];
  // Asked after ClickHouse: a stream only loses messages from its beginning, so this errs towards keeping. A shard
  // whose stream cannot be seen is a reason to drop nothing.
  const streams = new Map<number, StreamStart>();
  for (let shard = 0; shard < shards; shard++) {
    try {
      const info = await streamInfo(jsm, shardStream(shard));
      streams.set(shard, { generation: generationOf(info), firstSequence: info.state.first_seq });
    } catch (error) {
      if (isStreamMissing(error)) return [];
      throw error;
    }
  }
  const days = droppableDays(contents, streams, cutoff);
  for (const day of days) {
    // No block has the number 0: such rows are not Sluice's.
    const [counts] = await clickhouse.rows<{ rows: string; others: string }>(
      `SELECT toString(count()) AS rows, toString(countIf(_block = 0)) AS others FROM ${table} WHERE ${partitionKey} = {day:Date}`,
      { day },
    );
    await clickhouse.command(`ALTER TABLE ${table} DROP PARTITION '${day}'`);
    logger.info({ day, rows: Number(counts?.rows) }, 'dropped a day past its retention');
    if (counts === undefined || counts.others === '0') continue;
    logger.warn(
      { day, rows: Number(counts.others) },
      'among the rows of a day past its retention were some that no worker stored',
    );
  }
  return days;
}

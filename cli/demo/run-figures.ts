/**
 * What ClickHouse has of one run of the demo. ClickHouse may be killed at any moment of it: each question is asked again,
 * with growing waits, until it has failed for two minutes.
 */
import { type ClickHouseClient, ClickHouseLogLevel, createClient } from '@clickhouse/client';
import { backOff, jittered } from '../../lib/back-off.js';
import { UsageError } from '../../lib/errors.js';
import { dayMs } from '../../lib/units.js';

export interface TypeFigures {
  readonly type: string;
  readonly events: number;
  readonly distinct: number;
  readonly people: number;
  readonly valueMicros: bigint;
}

export interface ChannelFigures {
  readonly channel: string;
  readonly impressions: number;
  readonly clicks: number;
  readonly people: number;
}

export interface RunFigures {
  /** Events of the run that are stored. */
  readonly stored: number;
  /** Different event ids among them. */
  readonly distinct: number;
  readonly types: readonly TypeFigures[];
  readonly channels: readonly ChannelFigures[];
}

export interface RunFiguresReader {
  /** Events of the run that are stored so far. */
  count(): Promise<number>;
  figures(): Promise<RunFigures>;
  close(): Promise<void>;
}

export interface RunFiguresOptions {
  readonly url: string;
  readonly user: string;
  readonly password: string;
  readonly database: string;
  /** Event ids of the run begin with it; letters, digits and dashes. */
  readonly run: string;
  /** No event of the run was received before, ms since 1970. */
  readonly sinceMs: number;
  readonly signal: AbortSignal;
  /** A question failed and is asked again. */
  readonly onTrouble: (message: string) => void;
  /** @default 120000 */
  readonly failAfterMs?: number;
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export function createRunFigures(options: RunFiguresOptions): RunFiguresReader {
  const client: ClickHouseClient = createClient({
    url: options.url,
    username: options.user,
    password: options.password,
    request_timeout: 60_000,
    // Failures are expected, and told by `onTrouble`.
    log: { level: ClickHouseLogLevel.OFF },
  });
  // A day early, for clocks that differ: it spares ClickHouse the partitions of former days.
  const day = new Date(options.sinceMs - dayMs).toISOString().slice(0, 10);
  const from =
    `FROM \`${options.database}\`.events WHERE _day >= toDate('${day}') ` +
    `AND startsWith(event_id, '${options.run}-')`;

  const rows = async (query: string): Promise<Record<string, string>[]> => {
    const giveUpAt = performance.now() + (options.failAfterMs ?? 120_000);
    for (let failures = 1; ; failures++) {
      options.signal.throwIfAborted();
      try {
        const answer = await client.query({ query, format: 'JSONEachRow' });
        return await answer.json<Record<string, string>>();
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        options.onTrouble(why);
        if (performance.now() > giveUpAt) {
          throw new UsageError(`ClickHouse at ${options.url} does not answer: ${why}. Is it running?`);
        }
        await pause(jittered(backOff({ first: 100, last: 2_000 }, failures)));
      }
    }
  };

  return {
    async count() {
      const [row] = await rows(`SELECT count() AS events ${from}`);
      return Number(row?.events ?? 0);
    },
    async figures() {
      // One statement: parts of an answer would speak of different moments.
      const types = await rows(
        `SELECT toString(type) AS type, count() AS events, uniqExact(event_id) AS ids, ` +
          `uniqExact(anonymous_id) AS people, toString(sum(value_micros)) AS micros, ` +
          // Over all types: an id that came with two types is not distinct.
          `(SELECT uniqExact(event_id) ${from}) AS all_ids ${from} GROUP BY type ORDER BY events DESC, type`,
      );
      const channels = await rows(
        `SELECT touch_channel AS channel, countIf(type = 'impression') AS impressions, countIf(type = 'click') AS clicks, ` +
          `uniqExact(anonymous_id) AS people ${from} AND touch_channel != '' ` +
          `GROUP BY channel ORDER BY clicks + impressions DESC, channel LIMIT 50`,
      );
      return {
        stored: types.reduce((sum, row) => sum + Number(row.events), 0),
        distinct: Number(types[0]?.all_ids ?? 0),
        types: types.map((row) => ({
          type: row.type ?? '',
          events: Number(row.events),
          distinct: Number(row.ids),
          people: Number(row.people),
          valueMicros: BigInt(row.micros ?? '0'),
        })),
        channels: channels.map((row) => ({
          channel: row.channel ?? '',
          impressions: Number(row.impressions),
          clicks: Number(row.clicks),
          people: Number(row.people),
        })),
      };
    },
    close: () => client.close(),
  };
}

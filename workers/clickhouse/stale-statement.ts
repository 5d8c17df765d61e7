/**
 * Ends an INSERT that holds a block's name and makes no progress. A worker that freezes while it sends leaves its statement in the
 * server. The server waits for the rest of the body, and meanwhile refuses other INSERTs of that block (error 216).
 *
 *   STALE-1  Killing is harmless: a statement that is killed has stored its block or has not (LOAD-1), and the next one looks first (LOAD-2).
 *   STALE-2  Only a statement without progress is killed: two looks at it, some time apart, show the same progress. The time doubles
 *       with each kill in a row, so that a slow server can finish one.
 *   STALE-3  A server that is blocked in reading the body notices the kill when its own patience ends: `http_receive_timeout` of its
 *      default profile, 30 s unless it is set lower. Neither the statement nor the connection can change that, so the worker says
 *      so at its start. The embedded server takes a name only when the body is there.
 */
import type { Logger } from '../../lib/logger.js';
import { type ClickHouse, StatementError } from './client.js';

export interface StaleStatements {
  /** A statement of this id runs already. Ends it when it stands still. Never rejects. */
  busy(shard: number, queryId: string): Promise<void>;
  /** The shard's block was taken. */
  over(shard: number): void;
}

interface Met {
  readonly queryId: string;
  progress: string;
  /** Since when it is the same, by {@link StaleOptions.now}. */
  sinceMs: number;
  patienceMs: number;
}

export interface StaleOptions {
  readonly logger: Logger;
  /** Monotonic, ms. @default performance.now */
  readonly now?: () => number;
}

const patienceMs = { first: 1_500, last: 60_000 } as const;

/** What changes while a statement reads, computes or writes. Zeros for what an older server does not count. */
const progressOf =
  'SELECT toString(tuple(read_rows, read_bytes, written_rows, memory_usage, ' +
  "ProfileEvents['NetworkReceiveBytes'], ProfileEvents['OSCPUVirtualTimeMicroseconds'])) AS progress " +
  'FROM system.processes WHERE query_id = {id:String} AND user = currentUser()';

export function createStaleStatements(
  clickhouse: Pick<ClickHouse, 'rows' | 'command'>,
  options: StaleOptions,
): StaleStatements {
  const { logger, now = () => performance.now() } = options;
  /** By shard: each has one block in flight. */
  const met = new Map<number, Met>();
  let warned = false;

  async function look(shard: number, queryId: string): Promise<void> {
    const [running] = await clickhouse.rows<{ progress: string }>(progressOf, { id: queryId });
    const before = met.get(shard);
    // The embedded server has no such table of its own ids: what it refuses is running, and ends.
    if (running === undefined) return void met.delete(shard);
    const { progress } = running;
    if (before?.queryId !== queryId) {
      met.set(shard, { queryId, progress, sinceMs: now(), patienceMs: patienceMs.first });
      return;
    }
    if (before.progress !== progress) {
      before.progress = progress;
      before.sinceMs = now();
      return;
    }
    const stillMs = now() - before.sinceMs;
    if (stillMs < before.patienceMs) return;
    before.sinceMs = now();
    before.patienceMs = Math.min(before.patienceMs * 2, patienceMs.last);
    logger.warn(
      { shard, queryId, stillMs: Math.round(stillMs) },
      'another statement holds the block and does not move: it is killed',
    );
    // Not SYNC: it may take as long as the server waits for the body, and the INSERT is tried again anyway.
    await clickhouse.command(`KILL QUERY WHERE query_id = '${queryId}' AND user = currentUser() ASYNC`);
  }

  return {
    async busy(shard, queryId) {
      try {
        await look(shard, queryId);
      } catch (error) {
        if (error instanceof StatementError && error.kind === 'fatal' && !warned) {
          warned = true;
          logger.warn(
            { error: error.message },
            'a statement that holds a block may not be looked at or killed: grant SELECT on system.processes and KILL QUERY; ' +
              'until then it ends with the http_receive_timeout of the server',
          );
        } else logger.debug({ error: String(error) }, 'cannot look at a statement that holds a block');
      }
    },
    over: (shard) => void met.delete(shard),
  };
}

/** A frozen client may keep a block's name for as long as the server waits for bytes (STALE-3): more than this is worth a word, s. */
const maxReceiveSeconds = 5;

/** Says so when the server waits for longer. Never rejects. */
export async function checkReceiveTimeout(clickhouse: Pick<ClickHouse, 'rows'>, logger: Logger): Promise<void> {
  try {
    const [row] = await clickhouse.rows<{ value: string }>(
      "SELECT value FROM system.settings WHERE name = 'http_receive_timeout'",
    );
    const seconds = Number(row?.value);
    if (!(seconds > maxReceiveSeconds)) return;
    logger.warn(
      { http_receive_timeout: seconds },
      `a worker that freezes while it sends can hold up its shards for ${seconds} s: set http_receive_timeout to ` +
        `${maxReceiveSeconds} in the default profile of the ClickHouse server (docs/reliability.md)`,
    );
  } catch (error) {
    logger.debug({ error: String(error) }, 'cannot read http_receive_timeout');
  }
}

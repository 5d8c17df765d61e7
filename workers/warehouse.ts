/**
 * The only way to the warehouse: @clickhouse/client over HTTP, with a bounded pool, and errors sorted by what a caller can
 * do about them. The same for the embedded engine and for a real server.
 */
import { Readable } from 'node:stream';
import { type ClickHouseClient, ClickHouseError, createClient } from '@clickhouse/client';
import type { ClickHouseClientConfig } from '../lib/config/index.js';
import type { Log } from '../lib/log.js';
import type { InsertStatement } from './schema/index.js';

/**
 * - `busy`: a query of the same id runs
 * - `content`: the data is at fault; the same data fails again
 * - `fatal`: the statement or the rights are at fault; somebody has to act
 * - `transient`: anything else, with the outcome unknown (no connection, time-out, the server is in trouble)
 */
export type WarehouseErrorKind = 'busy' | 'content' | 'fatal' | 'transient';

export class WarehouseError extends Error {
  override readonly name = 'WarehouseError';
  constructor(
    readonly kind: WarehouseErrorKind,
    message: string,
    /** ClickHouse's number; undefined when it did not answer. */
    readonly clickhouseCode: number | undefined,
    cause: unknown,
  ) {
    super(message, { cause });
  }
}

/** Figures of the pool, for metrics. */
export interface PoolStats extends Record<string, number> {
  /** Most connections. */
  size: number;
  /** Statements under way. */
  active: number;
  /** Statements that wait for a connection. */
  waiting: number;
  /** Seconds waited by all statements so far. */
  waited_seconds: number;
  /** Statements that gave up waiting. */
  wait_timeouts: number;
  /** As set: how long a statement may wait, how long an idle connection is kept, whether answers are compressed (1). */
  wait_limit_seconds: number;
  keep_alive_seconds: number;
  compression: number;
}

/** So much of a body lies ready for its socket. */
const pushBytes = 1024 ** 2;

export interface Warehouse {
  /** Rows of a SELECT without FORMAT, as objects; `{name:Type}` placeholders are bound on the server. @throws WarehouseError */
  rows<T>(query: string, parameters?: Record<string, unknown>): Promise<T[]>;
  /** A statement without an answer. @throws WarehouseError */
  command(
    query: string,
    options?: { readonly settings?: Readonly<Record<string, string | number>>; readonly queryId?: string },
  ): Promise<void>;
  /** Runs an insert statement; the body is the concatenation of the payloads, which are not copied. @throws WarehouseError */
  insertBlock(statement: InsertStatement, queryId: string, body: readonly Uint8Array[]): Promise<void>;
  /** Whether it answers. */
  ping(): Promise<boolean>;
  stats(): PoolStats;
  close(): Promise<void>;
}

/** ClickHouse's names of errors that say: these bytes cannot be stored. */
const content =
  /^(?:CANNOT_PARSE_|CANNOT_READ_ALL_DATA|ATTEMPT_TO_READ_AFTER_EOF|PROTOBUF_|UNKNOWN_PROTOBUF|INCORRECT_DATA|VALUE_IS_OUT_OF_RANGE|UNKNOWN_ELEMENT_OF_ENUM|ARGUMENT_OUT_OF_BOUND|DECIMAL_OVERFLOW|TOO_LARGE_)/;
/** … and: this statement, or this user, will not do. */
const fatal =
  /^(?:SYNTAX_ERROR|UNKNOWN_(?!EXCEPTION|STATUS)|NO_SUCH_COLUMN|NOT_FOUND_COLUMN|THERE_IS_NO_COLUMN|TYPE_MISMATCH|ILLEGAL_|NOT_IMPLEMENTED|ACCESS_DENIED|AUTHENTICATION_FAILED|READONLY|REQUIRED_PASSWORD|WRONG_PASSWORD|BAD_ARGUMENTS|NUMBER_OF_ARGUMENTS)/;

function sorted(error: unknown): WarehouseError {
  if (error instanceof WarehouseError) return error;
  if (error instanceof ClickHouseError) {
    const code = Number(error.code);
    const type = error.type ?? '';
    const kind = code === 216 ? 'busy' : content.test(type) ? 'content' : fatal.test(type) ? 'fatal' : 'transient';
    return new WarehouseError(kind, `ClickHouse ${code} ${type}: ${error.message.slice(0, 1000)}`, code, error);
  }
  return new WarehouseError('transient', `ClickHouse did not answer: ${String(error).slice(0, 500)}`, undefined, error);
}

/** The parts one after the other, many at a time. */
function streamOf(parts: readonly Uint8Array[]): Readable {
  let next = 0;
  return new Readable({
    highWaterMark: pushBytes,
    read() {
      while (next < parts.length) if (!this.push(parts[next++])) return;
      this.push(null);
    },
  });
}

/** Connects when first used; nothing is sent before. */
export function connectWarehouse(config: ClickHouseClientConfig, log: Log): Warehouse {
  const client: ClickHouseClient = createClient({
    url: config.clickhouseUrl,
    username: config.clickhouseUser,
    password: config.clickhousePassword,
    application: 'sluice',
    max_open_connections: config.clickhousePoolSize,
    request_timeout: config.clickhouseTimeout,
    // Blocks are bytes that ClickHouse reads faster than Node can compress them; answers are text.
    compression: { response: config.clickhouseCompression, request: false },
    keep_alive: { enabled: config.clickhouseKeepAlive > 0, idle_socket_ttl: Math.max(1, config.clickhouseKeepAlive) },
    // What goes wrong is thrown to the caller, who logs it once.
    log: { level: 127 },
  });

  const stats: PoolStats = {
    size: config.clickhousePoolSize,
    active: 0,
    waiting: 0,
    waited_seconds: 0,
    wait_timeouts: 0,
    wait_limit_seconds: config.clickhousePoolWait / 1000,
    keep_alive_seconds: config.clickhouseKeepAlive / 1000,
    compression: config.clickhouseCompression ? 1 : 0,
  };
  const queue: (() => void)[] = [];

  async function place(): Promise<void> {
    if (stats.active < stats.size) {
      stats.active++;
      return;
    }
    const since = performance.now();
    stats.waiting++;
    try {
      await new Promise<void>((resolve, reject) => {
        const go = (): void => {
          clearTimeout(timer);
          resolve();
        };
        const timer = setTimeout(() => {
          queue.splice(queue.indexOf(go), 1);
          stats.wait_timeouts++;
          reject(
            new WarehouseError(
              'transient',
              'no connection to ClickHouse became free; see --clickhouse-pool-size',
              undefined,
              undefined,
            ),
          );
        }, config.clickhousePoolWait);
        queue.push(go);
      });
    } finally {
      stats.waiting--;
      stats.waited_seconds += (performance.now() - since) / 1000;
    }
  }

  async function pooled<T>(work: () => Promise<T>): Promise<T> {
    await place();
    try {
      return await work();
    } catch (error) {
      throw sorted(error);
    } finally {
      // The place goes to the next in line, or becomes free.
      const next = queue.shift();
      if (next === undefined) stats.active--;
      else next();
    }
  }

  return {
    rows: <T>(query: string, parameters: Record<string, unknown> = {}) =>
      pooled(async () => {
        const result = await client.query({ query, query_params: parameters, format: 'JSONEachRow' });
        return await result.json<T>();
      }),
    command: (query, options = {}) =>
      pooled(async () => {
        await client.command({
          query,
          clickhouse_settings: { ...options.settings },
          ...(options.queryId === undefined ? {} : { query_id: options.queryId }),
        });
      }),
    insertBlock: (statement, queryId, body) =>
      pooled(async () => {
        const { stream } = await client.exec({
          query: statement.query,
          clickhouse_settings: { ...statement.settings },
          query_id: queryId,
          values: streamOf(body),
          // Its length is known: no chunk of HTTP around each payload.
          http_headers: { 'Content-Length': String(body.reduce((sum, bytes) => sum + bytes.length, 0)) },
        });
        // Nothing is in it, but its end is the end of the INSERT.
        for await (const _chunk of stream) void _chunk;
      }),
    async ping() {
      try {
        return (await client.ping()).success;
      } catch (error) {
        log.debug({ error: String(error) }, 'the warehouse does not answer');
        return false;
      }
    },
    stats: () => ({ ...stats }),
    close: () => client.close(),
  };
}

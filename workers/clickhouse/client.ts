/**
 * The only way to ClickHouse: @clickhouse/client over HTTP, with a bounded pool, errors sorted by what a caller can do (errors.ts), and
 * a circuit breaker (circuit.ts). It is the same for the embedded engine and for a server.
 *
 *   errors.ts           what a statement can end with
 *   places.ts           bounds the statements under way
 *   circuit.ts          spares ClickHouse when it is in trouble
 *   connect.ts          reaching NATS, ClickHouse and the table, with patience
 *   prepare-table.ts    brings the events table up to the contract
 *   mend-table.ts       does so when a column was dropped under a running worker
 *   retention.ts        what may leave ClickHouse by age
 *   stale-statement.ts  ends an INSERT that hangs and keeps a block's name
 *   schema/             table, migrations and INSERT from the descriptors (index.ts)
 */
import { Readable } from 'node:stream';
import { type ClickHouseClient, createClient } from '@clickhouse/client';
import { clickhouseTls } from '../../lib/clickhouse-tls.js';
import type { ClickHouseClientConfig } from '../../lib/config/index.js';
import { failpoint, isArmed } from '../../lib/failpoint.js';
import type { Logger } from '../../lib/logger.js';
import { clickhousePassword } from '../../lib/secret-file.js';
import { MiB } from '../../lib/units.js';
import { type CircuitStats, createCircuit } from './circuit.js';
import { createPlaces, type PoolStats } from './places.js';
import type { InsertStatement } from './schema/index.js';

export { StatementError, type StatementErrorKind } from './errors.js';

/** So much of a body lies ready for its socket. */
const pushBytes = MiB;

export interface ClickHouse {
  /** Rows of a SELECT without FORMAT, as objects; `{name:Type}` placeholders are bound on the server. @throws StatementError */
  rows<T>(
    query: string,
    parameters?: Record<string, unknown>,
    settings?: Readonly<Record<string, string | number>>,
  ): Promise<T[]>;
  /** A statement without an answer. @throws StatementError */
  command(
    query: string,
    options?: { readonly settings?: Readonly<Record<string, string | number>>; readonly queryId?: string },
  ): Promise<void>;
  /** Runs an insert statement; the body is the concatenation of the payloads, which are not copied. @throws StatementError */
  insertBlock(statement: InsertStatement, queryId: string, body: readonly Uint8Array[]): Promise<void>;
  /** Whether it answers. */
  ping(): Promise<boolean>;
  stats(): PoolStats;
  /**
   * The breakers, by what goes through them. Two, because a server whose disk is full answers every question and takes no
   * block: in one count the answers would hide that. Commands are rare and pass by.
   */
  circuits(): Readonly<Record<'reads' | 'inserts', CircuitStats>>;
  /** Calls back when ClickHouse answers again, after it has not. Returns the un-subscriber. */
  onRecovered(listener: () => void): () => void;
  close(): Promise<void>;
}

/** What is sent has left this process by then, ms. */
const sentAfterMs = 100;

/** In two halves, with the failpoint in between. Copies the bytes: only for a process that has this failpoint. */
async function* halves(parts: readonly Uint8Array[]): AsyncGenerator<Uint8Array> {
  const bytes = Buffer.concat(parts);
  yield bytes.subarray(0, bytes.length >> 1);
  await new Promise((resolve) => setTimeout(resolve, sentAfterMs));
  failpoint('loader.half-sent');
  yield bytes.subarray(bytes.length >> 1);
}

/** The parts one after the other, many at a time. */
function streamOf(parts: readonly Uint8Array[]): Readable {
  if (isArmed('loader.half-sent')) return Readable.from(halves(parts), { objectMode: false });
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
export function createClickHouse(config: ClickHouseClientConfig, logger: Logger): ClickHouse {
  const client: ClickHouseClient = createClient({
    url: config.clickhouseUrl,
    username: config.clickhouseUser,
    password: clickhousePassword(config),
    ...clickhouseTls(config.clickhouseUrl, config.clickhouseTlsCa),
    application: 'sluice',
    max_open_connections: config.clickhousePoolSize,
    request_timeout: config.clickhouseTimeout,
    // Blocks are bytes that ClickHouse reads faster than Node can compress them; answers are text.
    compression: { response: config.clickhouseCompression, request: false },
    keep_alive: { enabled: config.clickhouseKeepAlive > 0, idle_socket_ttl: Math.max(1, config.clickhouseKeepAlive) },
    // What goes wrong is thrown to the caller, who logs it once.
    log: { level: 127 },
  });

  const { run: pooled, stats } = createPlaces(config);
  const ask = <T>(
    query: string,
    parameters: Record<string, unknown>,
    settings: Readonly<Record<string, string | number>>,
  ): Promise<T[]> =>
    pooled(async () => {
      const result = await client.query({
        query,
        query_params: parameters,
        format: 'JSONEachRow',
        clickhouse_settings: { ...settings },
      });
      failpoint('loader.half-read');
      return await result.json<T>();
    });
  const recovered = new Set<() => void>();
  const reads = createCircuit({
    name: 'reads',
    logger,
    probe: () => ask('SELECT 1', {}, {}),
    onClosed() {
      for (const listener of recovered) listener();
    },
  });
  const inserts = createCircuit({ name: 'inserts', logger });

  return {
    rows: <T>(
      query: string,
      parameters: Record<string, unknown> = {},
      settings: Readonly<Record<string, string | number>> = {},
    ) => reads.run(() => ask<T>(query, parameters, settings)),
    command: (query, options = {}) =>
      pooled(async () => {
        await client.command({
          query,
          clickhouse_settings: { ...options.settings },
          ...(options.queryId === undefined ? {} : { query_id: options.queryId }),
        });
      }),
    insertBlock: (statement, queryId, body) =>
      inserts.run(() =>
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
      ),
    async ping() {
      try {
        return (await client.ping()).success;
      } catch (error) {
        logger.debug({ error: String(error) }, 'ClickHouse does not answer');
        return false;
      }
    },
    stats,
    circuits: () => ({ reads: reads.stats(), inserts: inserts.stats() }),
    onRecovered(listener) {
      recovered.add(listener);
      return () => void recovered.delete(listener);
    },
    close() {
      reads.close();
      inserts.close();
      return client.close();
    },
  };
}

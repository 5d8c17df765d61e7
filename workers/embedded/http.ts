/**
 * The part of ClickHouse's HTTP interface that @clickhouse/client and `sluice query` use, in front of the embedded engine:
 * /ping, statements with settings and parameters in the URL, data in the body, query_id, exception codes, summary header.
 */
import { createWriteStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { join } from 'node:path';
import { type Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { createGunzip, gzip } from 'node:zlib';
import type { Log } from '../../lib/log.js';
import { type Engine, EngineError } from './engine.js';
import { parametersOf, readFromFile, withSettings } from './statement.js';
import { received } from './young-garbage.js';

const compress = promisify(gzip);

export interface EmbeddedHttpOptions {
  readonly engine: Engine;
  /** Folder for the bodies of inserts, on the way into the engine. */
  readonly spoolFolder: string;
  readonly log: Log;
  /** Most bytes of a body, after decompression. */
  readonly maxBodyBytes: number;
  /** A body of which nothing comes for so long, or an answer of which nothing is read, ends with its connection, ms. @default 4000 */
  readonly standstillMs?: number;
}

const MiB = 1024 ** 2;
/** Statements in the URL are long: an INSERT names every column. Node's own limit is 16 KiB. */
const maxUrlBytes = MiB;
/** A body that is a statement. */
const maxStatementBytes = 16 * MiB;
/** Looks that must see nothing, before a body counts as one that stands still. */
const roundsStill = 8;
/** ClickHouse's number for that. */
const stoodStill = 209;

export function createEmbeddedHttp(options: EmbeddedHttpOptions): Server {
  const { engine, log, standstillMs = 4_000 } = options;
  /**
   * ClickHouse refuses a second running query of the same id; the loader relies on it. An id is taken once the body is there: a client
   * that freezes half-way keeps nobody from running the same statement.
   */
  const runningIds = new Set<string>();
  let spooled = 0;

  /** The body, decompressed when it says so, and cut off at `limit`. */
  function bodyOf(request: IncomingMessage, limit: number): Readable {
    let size = 0;
    const bounded = new Transform({
      highWaterMark: MiB,
      transform(chunk: Buffer, _encoding, done) {
        size += chunk.length;
        received(chunk.length);
        done(
          size > limit ? new EngineError(307, `The body is larger than ${limit} bytes. (TOO_MANY_BYTES)`) : null,
          chunk,
        );
      },
    });
    const encoding = request.headers['content-encoding'] ?? 'identity';
    if (encoding !== 'gzip' && encoding !== 'identity') {
      throw new EngineError(89, `Bodies are plain or gzip here, not ${encoding}. (UNKNOWN_COMPRESSION_METHOD)`);
    }
    const source: Readable = encoding === 'gzip' ? request.pipe(createGunzip()) : request;
    source.on('error', (error) =>
      bounded.destroy(
        source === request
          ? error
          : new EngineError(354, `The body is not gzip, or cut short: ${error.message} (ZLIB_INFLATE_FAILED)`),
      ),
    );
    request.on('aborted', () => bounded.destroy(new EngineError(210, 'The client went away. (NETWORK_ERROR)')));
    endWhenStill(request, bounded);
    return source.pipe(bounded);
  }

  /** Counts rounds, not time: a server that was frozen itself first reads what has come meanwhile. */
  function endWhenStill(request: IncomingMessage, body: Transform): void {
    let rounds = 0;
    request.on('data', () => {
      rounds = 0;
    });
    const round = setInterval(() => {
      // It waits for us: its disk is slow.
      if (body.writableNeedDrain) rounds = 0;
      else if (++rounds > roundsStill) {
        body.destroy(
          new EngineError(
            stoodStill,
            `Nothing of the body came for ${standstillMs} ms. It is not run. (SOCKET_TIMEOUT)`,
          ),
        );
      }
    }, standstillMs / roundsStill);
    round.unref();
    for (const over of ['close', 'end'] as const) body.once(over, () => clearInterval(round));
  }

  async function textOf(request: IncomingMessage): Promise<string> {
    const chunks: Buffer[] = [];
    for await (const chunk of bodyOf(request, maxStatementBytes)) chunks.push(chunk as Buffer);
    return Buffer.concat(chunks).toString();
  }

  async function answer(
    request: IncomingMessage,
    response: ServerResponse,
    parameters: URLSearchParams,
  ): Promise<void> {
    const queryId = parameters.get('query_id') ?? '';
    const refuseRunning = (): void => {
      if (queryId === '' || !runningIds.has(queryId)) return;
      request.resume();
      throw new EngineError(
        216,
        `Query with id = ${queryId} is already running. (QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING)`,
      );
    };
    refuseRunning();
    let hasId = false;
    const spool = join(options.spoolFolder, `${process.pid}-${spooled++}.bin`);
    let hasSpool = false;
    try {
      const inUrl = parameters.get('query') ?? '';
      let statement: string;
      if (inUrl !== '' && /\binput\s*\(/.test(inUrl)) {
        hasSpool = true;
        // Room for several chunks, which then go to the file in one write.
        await pipeline(bodyOf(request, options.maxBodyBytes), createWriteStream(spool, { highWaterMark: MiB }));
        statement = readFromFile(inUrl, spool);
      } else {
        const inBody = await textOf(request);
        statement = inUrl !== '' && inBody !== '' ? `${inUrl}\n${inBody}` : inUrl + inBody;
      }
      if (statement.trim() === '') throw new EngineError(62, 'Empty query. (SYNTAX_ERROR)');
      const written = /\bFORMAT\s+(\w+)\s*;?\s*$/i.exec(statement)?.[1];
      const format =
        written ?? parameters.get('default_format') ?? String(request.headers['x-clickhouse-format'] ?? 'TabSeparated');
      refuseRunning();
      hasId = queryId !== '';
      if (hasId) runningIds.add(queryId);
      const result = await engine.run(withSettings(statement, parameters), {
        format,
        database: parameters.get('database') ?? String(request.headers['x-clickhouse-database'] ?? 'default'),
        parameters: parametersOf(parameters),
        withData: hasSpool,
      });
      response.setHeader('x-clickhouse-query-id', queryId);
      response.setHeader('x-clickhouse-format', format);
      response.setHeader(
        'x-clickhouse-summary',
        JSON.stringify({
          read_rows: String(result.rowsRead),
          read_bytes: String(result.bytesRead),
          written_rows: '0',
          written_bytes: '0',
          total_rows_to_read: '0',
          result_rows: '0',
          result_bytes: String(result.bytes.length),
          elapsed_ns: String(Math.round(result.elapsedSeconds * 1e9)),
        }),
      );
      response.setHeader('content-type', 'text/plain; charset=UTF-8');
      const wantsGzip =
        parameters.get('enable_http_compression') === '1' &&
        /\bgzip\b/.test(String(request.headers['accept-encoding'] ?? '')) &&
        result.bytes.length > 1024;
      if (wantsGzip) response.setHeader('content-encoding', 'gzip');
      // Node ends the connection when nothing of the answer could be written for one to two of these times.
      response.setTimeout(standstillMs / 2);
      response.end(wantsGzip ? await compress(result.bytes, { level: 1 }) : result.bytes);
    } finally {
      if (hasId) runningIds.delete(queryId);
      if (hasSpool) await rm(spool, { force: true });
    }
  }

  function refuse(request: IncomingMessage, response: ServerResponse, error: unknown): void {
    const noSpace = (error as NodeJS.ErrnoException | undefined)?.code === 'ENOSPC';
    const engineError =
      error instanceof EngineError
        ? error
        : new EngineError(
            noSpace ? 243 : 1002,
            `${String(error)} (${noSpace ? 'NOT_ENOUGH_SPACE' : 'UNKNOWN_EXCEPTION'})`,
          );
    if (!(error instanceof EngineError)) log.error({ err: error }, 'a statement failed outside the engine');
    if (response.headersSent || response.destroyed) {
      response.destroy();
      return;
    }
    response.statusCode = engineError.clickhouseCode === 60 || engineError.clickhouseCode === 81 ? 404 : 500;
    response.setHeader('x-clickhouse-exception-code', String(engineError.clickhouseCode));
    response.setHeader('content-type', 'text/plain; charset=UTF-8');
    if (engineError.clickhouseCode === stoodStill) {
      // Its body has no end: nothing else can come on this connection.
      response.setHeader('connection', 'close');
      response.once('finish', () => request.socket.destroySoon());
    }
    response.end(
      `Code: ${engineError.clickhouseCode}. DB::Exception: ${engineError.message} (version ${engine.version})\n`,
    );
  }

  return createServer({ maxHeaderSize: maxUrlBytes, keepAliveTimeout: 10_000 }, (request, response) => {
    const target = request.url ?? '/';
    const path = /^[^?]*/.exec(target)?.[0];
    if (isForeign(request)) {
      response.statusCode = 403;
      response.end('Web pages may not use this server.\n');
    } else if (path === '/ping') {
      response.end('Ok.\n');
    } else if (path !== '/' || (request.method !== 'POST' && request.method !== 'GET')) {
      response.statusCode = 404;
      response.end('There is no handle here: statements go to /, by GET or POST.\n');
    } else {
      const parameters = new URLSearchParams(target.slice(path.length));
      answer(request, response, parameters).catch((error) => refuse(request, response, error));
    }
  });
}

/** There is no password: a page in a browser on this machine must not be able to send statements. */
const isForeign = ({ headers }: IncomingMessage): boolean =>
  headers.origin !== undefined || !['none', 'same-origin', undefined].includes(headers['sec-fetch-site'] as string);

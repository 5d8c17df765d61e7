/**
 * The part of ClickHouse's HTTP interface that @clickhouse/client and `sluice query` use, in front of the embedded engine:
 * /ping, statements with settings and parameters in the URL, data in the body, query_id, exception codes, summary header.
 */
import { createWriteStream } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { type Readable, Transform } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { promisify } from 'node:util';
import { createGunzip, gzip } from 'node:zlib';
import type { Logger } from '../../lib/logger.js';
import { mayHaveStructure, structureRefusal } from './column-texts.js';
import type { Engine } from './engine.js';
import { EngineError } from './engine-error.js';
import { type GuardOptions, type Refusal, refusePage, refuseStranger } from './guard.js';
import { createHeldAnswers } from './held-answers.js';
import { endsWithRequest, type InlineInsert, inlineInsert, onlyReads, refusal } from './refused.js';
import { spoolDatabase, spooled, spoolFile } from './rights.js';
import type { EngineResult } from './sessions.js';
import { inlineData, inlineInput, parametersOf, quoted, quotedName, readFromSpool, withSettings } from './statement.js';
import { received } from './young-garbage.js';

const compress = promisify(gzip);

export interface EmbeddedHttpOptions {
  readonly engine: Engine;
  /** Folder for the bodies of inserts, on the way into the engine. */
  readonly spoolFolder: string;
  readonly logger: Logger;
  /** Address that it listens on, and the password that it asks for. */
  readonly guard: GuardOptions;
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
/** Connections at once; each may hold a URL. */
const maxConnections = 256;
/** The head of a request has to be there by then, ms. */
const headWithinMs = 15_000;
/** Answers that are not read yet, of all clients. */
const maxHeldBytes = 512 * MiB;
/** So much of a statement goes to the parser; more is data behind it. */
const maxParsedChars = 256 * 1024;
/** So long a refused body is read and dropped, so that its sender can read why. */
const dropMs = 1_000;

/** Where a body goes, and whether it did. */
interface SpoolPlace {
  readonly number: number;
  readonly file: string;
  used: boolean;
}

/** What a request says beside its statement. */
interface Asked {
  readonly database: string;
  readonly parameters: Record<string, string>;
  /** It came by GET. */
  readonly readOnly: boolean;
}

/** A new file, for its owner alone. */
const spoolFlags = { flags: 'wx', flag: 'wx', mode: 0o600 } as const;

/** Of a statement that is not run. */
const nothing: EngineResult = { bytes: new Uint8Array(), rowsRead: 0, bytesRead: 0, elapsedSeconds: 0 };

export function createEmbeddedHttp(options: EmbeddedHttpOptions): Server {
  const { engine, logger, standstillMs = 4_000 } = options;
  /**
   * ClickHouse refuses a second running query of the same id; the loader relies on it. An id is taken once the body is there: a client
   * that freezes half-way keeps no other from running the same statement.
   */
  const runningIds = new Set<string>();
  const held = createHeldAnswers(maxHeldBytes);
  let spools = 0;

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

  /** The statement of a request, with its data in the spool when it has some. */
  async function statementOf(request: IncomingMessage, inUrl: string, body: SpoolPlace): Promise<string> {
    if (inUrl !== '' && /\binput\s*\(/.test(inUrl)) {
      body.used = true;
      // Room for several chunks, which then go to the file in one write.
      await pipeline(
        bodyOf(request, options.maxBodyBytes),
        createWriteStream(body.file, { ...spoolFlags, highWaterMark: MiB }),
      );
      return inUrl;
    }
    const inBody = await textOf(request);
    return inUrl !== '' && inBody !== '' ? `${inUrl}\n${inBody}` : inUrl + inBody;
  }

  /** What the engine is to run instead of a statement; undefined: nothing. @throws EngineError it is not run */
  async function admitted(statement: string, asked: Asked, body: SpoolPlace): Promise<string | undefined> {
    const { database, parameters, readOnly } = asked;
    const data = inlineData(statement);
    const parsed = data === undefined ? statement : statement.slice(0, maxParsedChars);
    const normalized = await engine.normalized(parsed, body.used);
    if (endsWithRequest(normalized)) return undefined;
    if (readOnly && !onlyReads(normalized)) {
      throw new EngineError(164, 'GET only reads: Cannot execute query in readonly mode. Use POST. (READONLY)');
    }
    const why =
      database === spoolDatabase
        ? `${spoolDatabase} is the server's own database`
        : await refusalOf(normalized, parameters, body);
    if (why !== undefined) throw new EngineError(497, `Not enough privileges: ${why}. (ACCESS_DENIED)`);
    if (body.used) return readFromSpool(statement, (format, structure) => spooled(body.number, format, structure));
    const store = async (bytes: string): Promise<void> => {
      body.used = true;
      await writeFile(body.file, bytes, spoolFlags);
    };
    const fromInput = inlineInput(statement);
    if (/^INSERT\b.*\binput\(/s.test(normalized)) {
      if (fromInput === undefined || (await engine.normalized(fromInput.statement, true)) !== normalized)
        throw new EngineError(
          62,
          'Give an INSERT that reads input() in the URL, and its data in the body. (SYNTAX_ERROR)',
        );
      await store(fromInput.data);
      return readFromSpool(fromInput.statement, (format, structure) => spooled(body.number, format, structure));
    }
    const insert = inlineInsert(normalized);
    if (insert === undefined) return statement;
    if (data === undefined)
      throw new EngineError(
        62,
        'It is not clear where the data of the INSERT begins: leave out comments. (SYNTAX_ERROR)',
      );
    await store(data);
    return insertFromSpool(insert, database, body.number);
  }

  async function refusalOf(
    normalized: string,
    parameters: Asked['parameters'],
    { used }: SpoolPlace,
  ): Promise<string | undefined> {
    const why = refusal(normalized);
    if (why !== undefined || !mayHaveStructure(normalized)) return why;
    return structureRefusal(normalized, await engine.tree(normalized, parameters, used));
  }

  async function insertFromSpool(insert: InlineInsert, database: string, number: number): Promise<string> {
    const { table, columns, settings, format } = insert;
    const { bytes } = await engine.run(`DESCRIBE (SELECT ${columns ?? '*'} FROM ${table})`, {
      format: 'JSONEachRow',
      database,
      parameters: {},
      withData: true,
    });
    const described = Buffer.from(bytes).toString().trimEnd().split('\n');
    const structure = described
      .map((line) => JSON.parse(line) as { name: string; type: string })
      .map(({ name, type }) => `${quotedName(name)} ${type}`)
      .join(', ');
    const into = columns === undefined ? table : `${table} (${columns})`;
    return `INSERT INTO ${into}${settings} SELECT * FROM ${spooled(number, format, quoted(structure))}`;
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
    const number = spools++;
    const body: SpoolPlace = { number, file: spoolFile(options.spoolFolder, number), used: false };
    try {
      const statement = await statementOf(request, parameters.get('query') ?? '', body);
      if (statement.trim() === '') throw new EngineError(62, 'Empty query. (SYNTAX_ERROR)');
      held.admit();
      const written = /\bFORMAT\s+(\w+)\s*;?\s*$/i.exec(statement)?.[1];
      const format =
        written ?? parameters.get('default_format') ?? String(request.headers['x-clickhouse-format'] ?? 'TabSeparated');
      const database = parameters.get('database') ?? String(request.headers['x-clickhouse-database'] ?? 'default');
      refuseRunning();
      hasId = queryId !== '';
      if (hasId) runningIds.add(queryId);
      const asked = { database, parameters: parametersOf(parameters), readOnly: request.method === 'GET' };
      const toRun = await admitted(statement, asked, body);
      const result =
        toRun === undefined
          ? nothing
          : await engine.run(withSettings(toRun, parameters), {
              ...asked,
              format,
              withData: body.used,
            });
      await send(request, response, parameters, { queryId, format, result });
    } finally {
      if (hasId) runningIds.delete(queryId);
      if (body.used) await rm(body.file, { force: true });
    }
  }

  async function send(
    request: IncomingMessage,
    response: ServerResponse,
    parameters: URLSearchParams,
    { queryId, format, result }: { queryId: string; format: string; result: EngineResult },
  ): Promise<void> {
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
    held.hold(response, result.bytes.length);
    response.end(wantsGzip ? await compress(result.bytes, { level: 1 }) : result.bytes);
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
    if (!(error instanceof EngineError)) logger.error({ err: error }, 'a statement failed outside the engine');
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

  /** Answers without reading the body: nothing of a stranger is held. */
  function turnAway(request: IncomingMessage, response: ServerResponse, { status, code, text }: Refusal): void {
    response.statusCode = status;
    response.setHeader('connection', 'close');
    response.setHeader('content-type', 'text/plain; charset=UTF-8');
    if (code !== undefined) response.setHeader('x-clickhouse-exception-code', String(code));
    response.end(
      code === undefined ? `${text}\n` : `Code: ${code}. DB::Exception: ${text} (version ${engine.version})\n`,
    );
    request.resume();
    setTimeout(() => request.socket.destroy(), dropMs).unref();
  }

  const server = createServer(
    { maxHeaderSize: maxUrlBytes, keepAliveTimeout: 10_000, headersTimeout: headWithinMs },
    (request, response) => {
      const target = request.url ?? '/';
      const path = /^[^?]*/.exec(target)?.[0] ?? '';
      const page = refusePage(request, options.guard);
      if (page !== undefined) {
        turnAway(request, response, page);
      } else if (path === '/ping') {
        response.end('Ok.\n');
      } else if (path !== '/' || (request.method !== 'POST' && request.method !== 'GET')) {
        turnAway(request, response, {
          status: 404,
          text: 'There is no handle here: statements go to /, by GET or POST.',
        });
      } else {
        const parameters = new URLSearchParams(target.slice(path.length));
        const stranger = refuseStranger(request, parameters, options.guard);
        if (stranger !== undefined) turnAway(request, response, stranger);
        else answer(request, response, parameters).catch((error) => refuse(request, response, error));
      }
    },
  );
  server.maxConnections = maxConnections;
  return server;
}

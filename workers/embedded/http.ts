/**
 * The part of ClickHouse's HTTP interface that @clickhouse/client and `sluice query` use, in front of the embedded engine:
 * /ping, statements with settings and parameters in the URL, data in the body, query_id, exception codes, summary header.
 */
import { createWriteStream } from 'node:fs';
import { rm } from 'node:fs/promises';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { pipeline } from 'node:stream/promises';
import type { Logger } from '../../lib/logger.js';
import { MiB } from '../../lib/units.js';
import { type Asked, admitted, type SpoolPlace, spoolFlags } from './admission.js';
import type { Engine } from './engine.js';
import { EngineError } from './engine-error.js';
import { type GuardOptions, refusePage, refuseStranger } from './guard.js';
import { createHeldAnswers } from './held-answers.js';
import { bodyOf, textOf } from './request-body.js';
import { createResponses } from './responses.js';
import { spoolFile } from './rights.js';
import type { EngineResult } from './sessions.js';
import { parametersOf, withSettings } from './statement.js';

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

/** Statements in the URL are long: an INSERT names every column. Node's own limit is 16 KiB. */
const maxUrlBytes = MiB;
/** A body that is a statement. */
const maxStatementBytes = 16 * MiB;
/** Connections at once; each may hold a URL. */
const maxConnections = 256;
/** The head of a request has to be there by then, ms. */
const headWithinMs = 15_000;
/** Answers that are not read yet, of all clients. */
const maxHeldBytes = 512 * MiB;

/** Of a statement that is not run. */
const nothing: EngineResult = { bytes: new Uint8Array(), rowsRead: 0, bytesRead: 0, elapsedSeconds: 0 };

/**
 * ClickHouse refuses a second running query of the same id; the loader relies on it. An id is taken once the body is there: a client
 * that freezes half-way keeps no other from running the same statement.
 */
function createQueryIds(): {
  /** @throws EngineError a query of this id runs; the body is dropped */
  check(queryId: string, request: IncomingMessage): void;
  /** As {@link check}. @returns gives the id back */
  take(queryId: string, request: IncomingMessage): () => void;
} {
  const running = new Set<string>();
  const check = (queryId: string, request: IncomingMessage): void => {
    if (queryId === '' || !running.has(queryId)) return;
    request.resume();
    throw new EngineError(
      216,
      `Query with id = ${queryId} is already running. (QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING)`,
    );
  };
  return {
    check,
    take(queryId, request) {
      check(queryId, request);
      if (queryId === '') return () => {};
      running.add(queryId);
      return () => void running.delete(queryId);
    },
  };
}

/** The last word of a statement, or what the request says otherwise. */
function formatOf(statement: string, { headers }: IncomingMessage, parameters: URLSearchParams): string {
  const written = /\bFORMAT\s+(\w+)\s*;?\s*$/i.exec(statement)?.[1];
  return written ?? parameters.get('default_format') ?? String(headers['x-clickhouse-format'] ?? 'TabSeparated');
}

/** What a request says beside its statement. */
const askedBy = ({ method, headers }: IncomingMessage, parameters: URLSearchParams): Asked => ({
  database: parameters.get('database') ?? String(headers['x-clickhouse-database'] ?? 'default'),
  parameters: parametersOf(parameters),
  readOnly: method === 'GET',
});

export function createEmbeddedHttp(options: EmbeddedHttpOptions): Server {
  const { engine, guard, logger, standstillMs = 4_000 } = options;
  const queryIds = createQueryIds();
  const held = createHeldAnswers(maxHeldBytes);
  const { send, refuse, turnAway } = createResponses({ version: engine.version, held, standstillMs, logger });
  let spools = 0;

  /** The statement of a request, with its data in the spool when it has some. */
  async function statementOf(request: IncomingMessage, inUrl: string, body: SpoolPlace): Promise<string> {
    if (inUrl !== '' && /\binput\s*\(/.test(inUrl)) {
      body.used = true;
      // Room for several chunks, which then go to the file in one write.
      await pipeline(
        bodyOf(request, { limit: options.maxBodyBytes, standstillMs }),
        createWriteStream(body.file, { ...spoolFlags, highWaterMark: MiB }),
      );
      return inUrl;
    }
    const inBody = await textOf(request, { limit: maxStatementBytes, standstillMs });
    return inUrl !== '' && inBody !== '' ? `${inUrl}\n${inBody}` : inUrl + inBody;
  }

  async function answer(
    request: IncomingMessage,
    response: ServerResponse,
    parameters: URLSearchParams,
  ): Promise<void> {
    const queryId = parameters.get('query_id') ?? '';
    queryIds.check(queryId, request);
    const number = spools++;
    const body: SpoolPlace = { number, file: spoolFile(options.spoolFolder, number), used: false };
    let giveBack = (): void => {};
    try {
      const statement = await statementOf(request, parameters.get('query') ?? '', body);
      if (statement.trim() === '') throw new EngineError(62, 'Empty query. (SYNTAX_ERROR)');
      held.admit();
      const format = formatOf(statement, request, parameters);
      giveBack = queryIds.take(queryId, request);
      const asked = askedBy(request, parameters);
      const toRun = await admitted(engine, statement, asked, body);
      const result =
        toRun === undefined
          ? nothing
          : await engine.run(withSettings(toRun, parameters), { ...asked, format, withData: body.used });
      await send(request, response, { queryId, format, result, parameters });
    } finally {
      giveBack();
      if (body.used) await rm(body.file, { force: true });
    }
  }

  const server = createServer(
    { maxHeaderSize: maxUrlBytes, keepAliveTimeout: 10_000, headersTimeout: headWithinMs },
    (request, response) => {
      const target = request.url ?? '/';
      const path = /^[^?]*/.exec(target)?.[0] ?? '';
      const page = refusePage(request, guard);
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
        const stranger = refuseStranger(request, parameters, guard);
        if (stranger !== undefined) turnAway(request, response, stranger);
        else answer(request, response, parameters).catch((error) => refuse(request, response, error));
      }
    },
  );
  server.maxConnections = maxConnections;
  return server;
}

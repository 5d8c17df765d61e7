/** Answers as ClickHouse writes them: results, errors, and what strangers get. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import type { Logger } from '../../lib/logger.js';
import { EngineError, stoodStill } from './engine-error.js';
import type { Refusal } from './guard.js';
import type { HeldAnswers } from './held-answers.js';
import type { EngineResult } from './sessions.js';

const compress = promisify(gzip);

/** So long a refused body is read and dropped, so that its sender can read why. */
const dropMs = 1_000;

/** What a statement has given, and what its request said about the answer. */
export interface Answer {
  readonly queryId: string;
  readonly format: string;
  readonly result: EngineResult;
  /** Of the URL. */
  readonly parameters: URLSearchParams;
}

export interface ResponseOptions {
  /** Of the engine. */
  readonly version: string;
  readonly held: HeldAnswers;
  /** An answer of which nothing is read for so long ends with its connection, ms. */
  readonly standstillMs: number;
  readonly logger: Logger;
}

export interface Responses {
  send(request: IncomingMessage, response: ServerResponse, answer: Answer): Promise<void>;
  /** Answers with the error, or ends a response that has begun. */
  refuse(request: IncomingMessage, response: ServerResponse, error: unknown): void;
  /** Answers without reading the body: nothing of a stranger is held. */
  turnAway(request: IncomingMessage, response: ServerResponse, refusal: Refusal): void;
}

const textType = 'text/plain; charset=UTF-8';

const summaryOf = ({ rowsRead, bytesRead, bytes, elapsedSeconds }: EngineResult): string =>
  JSON.stringify({
    read_rows: String(rowsRead),
    read_bytes: String(bytesRead),
    written_rows: '0',
    written_bytes: '0',
    total_rows_to_read: '0',
    result_rows: '0',
    result_bytes: String(bytes.length),
    elapsed_ns: String(Math.round(elapsedSeconds * 1e9)),
  });

const wantsGzip = (request: IncomingMessage, { parameters, result }: Answer): boolean =>
  parameters.get('enable_http_compression') === '1' &&
  /\bgzip\b/.test(String(request.headers['accept-encoding'] ?? '')) &&
  result.bytes.length > 1024;

/** An error outside the engine gets a number of ClickHouse, too. */
function engineErrorFor(error: unknown): EngineError {
  if (error instanceof EngineError) return error;
  const noSpace = (error as NodeJS.ErrnoException | undefined)?.code === 'ENOSPC';
  return noSpace
    ? new EngineError(243, `${String(error)} (NOT_ENOUGH_SPACE)`)
    : new EngineError(1002, `${String(error)} (UNKNOWN_EXCEPTION)`);
}

export function createResponses({ version, held, standstillMs, logger }: ResponseOptions): Responses {
  const exception = (code: number, text: string): string =>
    `Code: ${code}. DB::Exception: ${text} (version ${version})\n`;

  return {
    async send(request, response, answer) {
      const { queryId, format, result } = answer;
      response.setHeader('x-clickhouse-query-id', queryId);
      response.setHeader('x-clickhouse-format', format);
      response.setHeader('x-clickhouse-summary', summaryOf(result));
      response.setHeader('content-type', textType);
      const zipped = wantsGzip(request, answer);
      if (zipped) response.setHeader('content-encoding', 'gzip');
      // Node ends the connection when nothing of the answer could be written for one to two of these times.
      response.setTimeout(standstillMs / 2);
      held.hold(response, result.bytes.length);
      response.end(zipped ? await compress(result.bytes, { level: 1 }) : result.bytes);
    },

    refuse(request, response, error) {
      if (!(error instanceof EngineError)) logger.error({ err: error }, 'a statement failed outside the engine');
      if (response.headersSent || response.destroyed) {
        response.destroy();
        return;
      }
      const { clickhouseCode: code, message } = engineErrorFor(error);
      response.statusCode = code === 60 || code === 81 ? 404 : 500;
      response.setHeader('x-clickhouse-exception-code', String(code));
      response.setHeader('content-type', textType);
      if (code === stoodStill) {
        // Its body has no end: nothing else can come on this connection.
        response.setHeader('connection', 'close');
        response.once('finish', () => request.socket.destroySoon());
      }
      response.end(exception(code, message));
    },

    turnAway(request, response, { status, code, text }) {
      response.statusCode = status;
      response.setHeader('connection', 'close');
      response.setHeader('content-type', textType);
      if (code !== undefined) response.setHeader('x-clickhouse-exception-code', String(code));
      response.end(code === undefined ? `${text}\n` : exception(code, text));
      request.resume();
      setTimeout(() => request.socket.destroy(), dropMs).unref();
    },
  };
}

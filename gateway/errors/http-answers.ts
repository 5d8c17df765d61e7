/** Answers of plain HTTP, in JSON. */
import type { ServerResponse } from 'node:http';
import type { Http2ServerResponse } from 'node:http2';
import type { SluiceError } from '../../lib/errors.js';
import { toHttpAnswer } from './rpc-errors.js';

type Response = ServerResponse | Http2ServerResponse;

/** Answers a request that is no RPC. */
export function answerError(response: Response, error: SluiceError): void {
  const { status, headers, body } = toHttpAnswer(error);
  // RFC 7694: which encodings would do.
  const accepted = error.code === 'content_encoding' ? { 'accept-encoding': 'gzip, identity' } : {};
  sendJson(response, status, { ...headers, ...accepted }, body);
}

/** Answers with JSON, unless there is an answer already, or no client to answer. */
export function sendJson(
  response: Response,
  status: number,
  headers: Record<string, string>,
  body: object | string | number | boolean | null,
): void {
  if (response.headersSent || response.destroyed) return;
  const bytes = Buffer.from(`${JSON.stringify(body)}\n`);
  response.writeHead(status, {
    ...headers,
    'content-type': 'application/json',
    'content-length': String(bytes.length),
  });
  response.end(bytes);
}

/**
 * The plain HTTP routes, for customers who come from a JSON API and for probes:
 *
 *   POST /v1/events         one event, in the Protobuf JSON mapping (json-request.ts)
 *   POST /v1/events/batch   {"events": […], "batchId"?, "attempt"?, "sentAt"?}
 *   GET  /healthz           this process lives
 *   GET  /readyz            batches can be taken: 200, or 503 with the reason
 *
 * The batch id may also come as `idempotency-key`; a body with another one is refused. Answers to POST are 202 with the BatchResult as JSON; errors are
 * {"error": {code, message, fix, …}} with the table's HTTP status.
 */
import { toJson } from '@bufbuild/protobuf';
import { BatchResultSchema, type Rejection, RejectionCode } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { batchIdPattern } from '../../lib/batch-status.js';
import { SluiceError } from '../../lib/errors.js';
import type { Logger } from '../../lib/logger.js';
import { createSparseLogger } from '../../lib/sparse-logger.js';
import type { TenantDirectory } from '../../lib/tenants.js';
import { answerError, sendJson } from '../errors/http-answers.js';
import { sentence } from '../errors/rpc-errors.js';
import { detached } from '../held/held-bytes.js';
import { type Inflater, newMeter } from '../held/inflate.js';
import type { JsonTurns } from '../held/json-turns.js';
import { GrowingMessage, type MessageBuffers } from '../held/message-buffers.js';
import type { RequestInput } from '../held/request-input.js';
import type { Connection } from '../listener/connection.js';
import { inviteBody } from '../listener/expect-continue.js';
import type { NodeRequest, NodeResponse } from '../listener/node-request.js';
import type { GatewayMetrics } from '../metrics.js';
import type { Readiness } from './health.js';
import {
  ignoresUnknownFields,
  type JsonLimits,
  type ReadJson,
  readFlatRequest,
  readSingleEvent,
} from './json-request.js';
import { plainEncoding } from './media-types.js';
import { type PublishBatch, toBatchResult } from './publish-batch.js';
import { type FactOptions, readFacts, wasResent } from './request-facts.js';
import type { RequestHandler } from './rpc-adapter.js';
import type { BatchMessage } from './view.js';

export interface HttpApiOptions {
  readonly tenants: Pick<TenantDirectory, 'lookup'>;
  readonly publish: PublishBatch;
  readonly readiness: Readiness;
  readonly metrics: Pick<GatewayMetrics, 'failed'>;
  readonly facts: FactOptions;
  /** Most bytes of a body, packed or not. */
  readonly maxBodyBytes: number;
  readonly buffers: MessageBuffers;
  readonly limits: Omit<JsonLimits, 'ignoreUnknownFields'>;
  readonly inflater: Pick<Inflater, 'inflate'>;
  readonly jsonTurns: JsonTurns;
  readonly logger: Logger;
}

type IngestRoute = (
  request: NodeRequest,
  response: NodeResponse,
  connection: Connection,
  input: RequestInput,
  one: boolean,
) => Promise<void>;

/** Takes one event, or a batch, and answers when the log has it. */
function createIngestRoute(options: HttpApiOptions): IngestRoute {
  const { tenants, publish } = options;

  /** The request in the body, inflated and read. @throws SluiceError */
  const read = async (
    { bytes, packed }: Body,
    { owner, reader, limits }: { owner: string; reader: ReadJson; limits: JsonLimits },
    signal: AbortSignal,
  ): Promise<BatchMessage> => {
    const { inflater, jsonTurns, maxBodyBytes: max } = options;
    const take = (text: Uint8Array) => jsonTurns.take(owner, text.length, reader(text, limits), signal);
    if (!packed) return take(bytes);
    try {
      return await inflater.inflate({ owner, bytes, max, meter: newMeter(), signal }, take);
    } catch (reason) {
      if (!(reason instanceof SluiceError && reason.code === 'request_malformed')) throw reason;
      throw new SluiceError('json_invalid', 'The body is not gzip, as its content-encoding says.', { cause: reason });
    }
  };

  return async (
    request: NodeRequest,
    response: NodeResponse,
    connection: Connection,
    input: RequestInput,
    one: boolean,
  ) => {
    // Before the body: strangers are not read.
    const caller = tenants.lookup(request.headers.authorization);
    const gone = new AbortController();
    response.once('close', () => gone.abort(new SluiceError('json_invalid', 'The caller went away.')));
    const body = await readBody(request, response, input, options);
    const header = (name: string) => {
      const value = request.headers[name];
      return typeof value === 'string' ? value : undefined;
    };
    const key = idempotencyKey(request.headers['idempotency-key']);
    const limits = { ...options.limits, ignoreUnknownFields: ignoresUnknownFields(header) };
    const reader = one ? readSingleEvent : readFlatRequest;
    const message = await read(body, { owner: caller.tenant, reader, limits }, gone.signal);
    const batchId = oneBatchId(key, message.batchId);
    const call = {
      caller,
      facts: readFacts(header, connection.remoteAddress, options.facts),
      openedAt: connection.openedAt,
      resent: wasResent(header),
      deadlineAt: undefined,
      name: one ? 'POST /v1/events' : 'POST /v1/events/batch',
    };
    const published = publish(call, { ...message, batchId });
    input.admitted();
    const result = await published.then(toBatchResult, (error: unknown) => {
      throw new Answered(error as SluiceError);
    });
    if (one) refuseInvalid(result.rejections[0]);
    sendJson(response, 202, {}, toJson(BatchResultSchema, result, { alwaysEmitImplicit: true }));
  };
}

/** A batch says which of its events were refused; of a single event there is nothing left to say 202 to. */
function refuseInvalid(refused: Rejection | undefined): void {
  if (refused === undefined) return;
  const { field, code, message } = refused;
  throw new SluiceError('event_invalid', sentence(`${field === '' ? 'The event' : field}: ${message}`), {
    field,
    rejection: `REJECTION_CODE_${RejectionCode[code] ?? code}`,
  });
}

export function createHttpApi(options: HttpApiOptions): RequestHandler {
  const { readiness, metrics } = options;
  const logger = createSparseLogger(options.logger);

  const ingest = createIngestRoute(options);

  const refuse = (response: NodeResponse, reason: unknown): void => {
    let error: SluiceError;
    if (reason instanceof Answered) {
      error = reason.error;
    } else {
      error = reason instanceof SluiceError ? reason : new SluiceError('internal', 'The gateway failed.');
      metrics.failed(error.code);
      if (error !== reason) logger.error({ err: reason }, 'HTTP route failed unexpectedly');
    }
    answerError(response, error);
  };

  /** Whether the request is to be served; else it is answered. */
  const only = (request: NodeRequest, response: NodeResponse, allow: readonly string[]): boolean => {
    if (allow.includes(request.method ?? '')) return true;
    response.setHeader('allow', [...allow, 'OPTIONS'].join(', '));
    // A preflight of a browser has been answered before (cors.ts).
    if (request.method === 'OPTIONS') {
      response.writeHead(204);
      response.end();
      return false;
    }
    refuse(response, new SluiceError('method_not_allowed', `${request.method ?? 'This method'} is not allowed here.`));
    return false;
  };

  return (request, response, connection, input) => {
    // A peer that resets the connection in the middle of a body is no news.
    request.on('error', () => {});
    response.on('error', () => {});
    const path = (request.url ?? '').split('?', 1)[0];
    switch (path) {
      case '/v1/events':
      case '/v1/events/batch':
        if (!only(request, response, ['POST'])) return;
        ingest(request, response, connection, input, path === '/v1/events').catch((reason: unknown) =>
          refuse(response, reason),
        );
        return;
      case '/healthz':
        if (only(request, response, ['GET', 'HEAD'])) sendJson(response, 200, {}, { status: 'alive' });
        return;
      case '/readyz':
        if (!only(request, response, ['GET', 'HEAD'])) return;
        if (readiness.ready) sendJson(response, 200, {}, { status: 'ready' });
        else sendJson(response, 503, {}, { status: 'not ready', reason: readiness.reason ?? 'starting' });
        return;
      case '*':
        // What the server as a whole can do (RFC 9110, 9.3.7).
        if (only(request, response, ['OPTIONS'])) {
          response.writeHead(204, { allow: 'GET, HEAD, POST, OPTIONS' });
          response.end();
        }
        return;
      default:
        refuse(response, new SluiceError('not_found', 'There is nothing at this path.'));
    }
  };
}

/** An error that has been counted where it arose. */
class Answered extends Error {
  constructor(readonly error: SluiceError) {
    super(error.message);
  }
}

const tooLarge = (max: number): SluiceError =>
  new SluiceError('batch_too_large', `The body is larger than ${max} bytes.`);

/**
 * The header is a quoted string by its draft, and a bare one with most clients. @throws SluiceError batch_id_invalid
 * @see https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
 */
function idempotencyKey(header: string | readonly string[] | undefined): string | undefined {
  if (typeof header !== 'string') return undefined;
  const quoted = /^\s*"((?:[^"\\]|\\["\\])*)"\s*$/.exec(header)?.[1];
  const key = quoted === undefined ? header.trim() : quoted.replace(/\\(.)/g, '$1');
  if (key !== '' && batchIdPattern.test(key)) return key;
  throw new SluiceError(
    'batch_id_invalid',
    'The header idempotency-key is empty, longer than 64 bytes or has other characters.',
  );
}

/** Either place may hold the id, or both the same one. @throws SluiceError batch_id_invalid */
function oneBatchId(key: string | undefined, inBody: string): string {
  if (key === undefined || inBody === '' || key === inBody) return inBody === '' ? (key ?? '') : inBody;
  throw new SluiceError(
    'batch_id_invalid',
    `The header idempotency-key is "${key}", and batchId in the body is "${inBody.slice(0, 64)}": give one of them, or the same in both.`,
  );
}

interface Body {
  readonly bytes: Uint8Array;
  /** By gzip. */
  readonly packed: boolean;
}

/** @throws SluiceError media_type | content_encoding | batch_too_large | json_invalid */
async function readBody(
  request: NodeRequest,
  response: NodeResponse,
  input: RequestInput,
  { maxBodyBytes: max, buffers }: HttpApiOptions,
): Promise<Body> {
  const type = request.headers['content-type'] ?? '';
  if (!/^application\/json\s*(;|$)/i.test(type)) {
    throw new SluiceError('media_type', `The content type is "${type.slice(0, 100)}".`);
  }
  const encoding = plainEncoding(request.headers['content-encoding'] ?? 'identity');
  if (encoding !== 'identity' && encoding !== 'gzip') {
    throw new SluiceError('content_encoding', `The content encoding is "${encoding.slice(0, 100)}".`);
  }
  if (Number(request.headers['content-length'] ?? 0) > max) throw tooLarge(max);
  inviteBody(response);
  return { bytes: await joined(input, max, buffers), packed: encoding === 'gzip' };
}

/** What comes, in one buffer that grows with it. @throws SluiceError batch_too_large | json_invalid, and what `next` throws */
async function joined(input: RequestInput, max: number, buffers: MessageBuffers): Promise<Buffer> {
  const body = new GrowingMessage(buffers, max, () => false);
  let first: Buffer | undefined;
  try {
    for (let chunk = await input.next(); chunk !== undefined; chunk = await input.next()) {
      if ((first?.length ?? body.filled) + chunk.length > max) throw tooLarge(max);
      if (first === undefined && body.filled === 0) {
        first = detached(chunk);
        input.keep(first.length);
        continue;
      }
      if (first !== undefined) body.append(first, 0, first.length);
      first = undefined;
      body.append(chunk, 0, chunk.length);
      input.keep(body.held);
    }
  } catch (reason) {
    if (reason instanceof SluiceError) throw reason;
    throw new SluiceError('json_invalid', 'The body ended early.', { cause: reason });
  }
  return first ?? body.take().bytes;
}

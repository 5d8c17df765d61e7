/**
 * The RPC routes: which handler answers which path, and what all of them share. The room:
 *
 *   entrance.ts         where calls come in; calls.ts puts all calls together
 *   routes.ts           this file; rpc-route.ts the type of a route
 *   hot/                Publish and PublishStream in Protobuf over HTTP/2, below the RPC library; map in hot/handler.ts
 *   http-api.ts         POST /v1/events and /v1/events/batch, /healthz, /readyz
 *   rpc-adapter.ts      from Node's requests to the RPC library and back; media-types.ts spellings of headers, grpc-web-text.ts base64
 *   rpc-handlers.ts     what the calls with a key do; keyed-calls.ts what they need
 *   rpc-unary.ts        calls of one message; rpc-stream.ts calls of many; both make every error one of the table
 *   beside-library.ts   reads messages of Publish and PublishStream without the library; split-envelopes.ts splits a body into them
 *   json-request.ts     messages in JSON; view.ts messages in Protobuf, without decoding events
 *   publish-batch.ts    passes one batch to ingest/
 *   publish-stream.ts   PublishStream through the RPC library; stream-call.ts has the rules of the call
 *   stream-outbox.ts    its answers that wait; stream-commits.ts its wait for commits; refused-row.ts its refused batches in a row
 *   batch-status.ts     GetBatchStatus: asks a worker
 *   health.ts           grpc.health.v1; reflection.ts grpc.reflection v1 and v1alpha; open-routes.ts bounds calls without a key
 *   request-facts.ts    what headers say about a caller
 *   call-timeout.ts     how long callers wait, and what they read when their request is not whole by then
 *
 * Publish and PublishStream are there twice, for Protobuf and for JSON. Their messages are read beside the library (beside-library.ts):
 * Protobuf by hot/request.ts, where `batch` stays bytes, JSON by json-request.ts.
 */
import type { DescMessage } from '@bufbuild/protobuf';
import type { UniversalHandlerFn, UniversalHandlerOptions } from '@connectrpc/connect/protocol';
import { IngestService } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { contractRevision } from '../../lib/contract/index.js';
import type { Caller } from '../../lib/tenants.js';
import { KiB, MiB } from '../../lib/units.js';
import type { Inflater } from '../held/inflate.js';
import type { JsonTurns } from '../held/json-turns.js';
import type { AskBatchStatus } from './batch-status.js';
import { type BesideOptions, besideLibrary } from './beside-library.js';
import { answeredAtDeadline, wholeInTime } from './call-timeout.js';
import { readRequest } from './hot/request.js';
import {
  ignoresUnknownFields,
  jsonLimitsOf,
  type ReadJson,
  readPublishRequest,
  readStreamRequest,
} from './json-request.js';
import type { KeyedCallOptions } from './keyed-calls.js';
import { createOpenRoutes, type OpenRoutes } from './open-routes.js';
import { createRpcHandlers } from './rpc-handlers.js';
import type { RpcRoute } from './rpc-route.js';
import { type BatchMessage, publishRequestView, publishStreamRequestView } from './view.js';

export interface RouteOptions extends KeyedCallOptions {
  readonly batchStatus: AskBatchStatus;
  readonly inflater: Inflater;
  readonly jsonTurns: JsonTurns;
  /** Further services: health, reflection. */
  readonly more: (routes: OpenRoutes) => void;
}

/** What a request has beyond its batch: ids, time, envelope. */
const requestOverhead = 64 * KiB;
/** How much longer than its binary form a batch may be as JSON. */
const jsonFactor = 4;

/** Most bytes of a JSON request, on these routes and on the plain HTTP ones. */
export const maxJsonBytes = (maxBatchBytes: number): number => jsonFactor * maxBatchBytes + requestOverhead;

/** Most bytes of a binary request. */
export const maxRequestBytes = (maxBatchBytes: number): number => maxBatchBytes + requestOverhead;

/** Handlers by path. */
export function createRpcRoutes(options: RouteOptions): Map<string, RpcRoute> {
  const { ingest, metrics, inflater } = options;
  const { maxBatchBytes } = ingest.limits;
  const limits = { ...ingest.limits, contract: contractRevision };

  // Set here and nowhere per service: there they would replace these (FACT-9).
  const shared: Partial<UniversalHandlerOptions> = {
    acceptCompression: [inflater.compression],
    // Answers are small: compressing them costs more than it saves.
    compressMinBytes: MiB,
    writeMaxBytes: 8 * MiB,
    binaryOptions: { readUnknownFields: false },
    jsonOptions: { ignoreUnknownFields: false, alwaysEmitImplicit: true },
  };
  const binary = { ...shared, readMaxBytes: maxRequestBytes(maxBatchBytes) };
  const json = { ...shared, readMaxBytes: maxJsonBytes(maxBatchBytes) };
  const small = { ...shared, readMaxBytes: requestOverhead };
  const handlers = createRpcHandlers(options, limits);
  const beside = createBeside(options, handlers.lookup);
  const routes = new Map<string, RpcRoute>();
  const onLate = (): void => metrics.failed('deadline');
  const onSlow = (): void => metrics.failed('request_timeout');
  const add = (
    { parent, name }: { parent: { typeName: string }; name: string },
    handler: RpcRoute,
    more: Pick<RpcRoute, 'refusal' | 'open'> = {},
  ): void => {
    // PublishStream answers what it has read before it ends at its deadline.
    const served = name === IngestService.method.publishStream.name ? handler : answeredAtDeadline(handler, onLate);
    routes.set(`/${parent.typeName}/${name}`, Object.assign(served, more));
  };
  const { method } = IngestService;
  add(
    method.publish,
    byEncoding(
      beside.binary(handlers.publish(binary), publishRequestView),
      beside.json(handlers.publish(json), readPublishRequest),
    ),
  );
  add(
    method.publishStream,
    byEncoding(
      beside.binary(handlers.publishStream(binary), publishStreamRequestView),
      beside.json(handlers.publishStream(json), readStreamRequest),
    ),
  );
  add(
    method.getLimits,
    wholeInTime(
      handlers.question(small, method.getLimits, async () => ({ limits })),
      onSlow,
    ),
  );
  add(
    method.getBatchStatus,
    wholeInTime(
      handlers.question(small, method.getBatchStatus, ({ batchId }, header) =>
        options.batchStatus(handlers.lookup(header).tenant, batchId),
      ),
      onSlow,
    ),
  );
  options.more(createOpenRoutes({ library: shared, add, onRefused: metrics.failed }));
  return routes;
}

/** Handlers whose messages are read beside the library. */
function createBeside(options: RouteOptions, lookup: (header: Headers) => Caller) {
  const { maxBatchBytes } = options.ingest.limits;
  const jsonLimits = jsonLimitsOf(options.ingest.limits);
  const { inflater, jsonTurns, metrics } = options;
  const owner = (header: Headers): string => lookup(header).tenant;
  const beside = (
    handler: RpcRoute,
    { encoding, read }: Pick<BesideOptions, 'encoding' | 'read'>,
    readMaxBytes: number,
  ): RpcRoute =>
    besideLibrary(handler, { encoding, read, readMaxBytes, inflater, ownerOf: owner, onRefused: metrics.failed });
  const besideJson = (handler: RpcRoute, readJson: ReadJson): RpcRoute => {
    function* read(text: Uint8Array, header: Headers): Generator<void, BatchMessage> {
      const ignoreUnknownFields = ignoresUnknownFields((name) => header.get(name));
      const message = yield* readJson(text, { ...jsonLimits, ignoreUnknownFields });
      if (message.refusal !== undefined) metrics.failed(message.refusal.code);
      return message;
    }
    return beside(
      handler,
      {
        encoding: 'json',
        read: (text, { header, signal }) => jsonTurns.take(owner(header), text.length, read(text, header), signal),
      },
      maxJsonBytes(maxBatchBytes),
    );
  };
  const besideBinary = (handler: RpcRoute, view: DescMessage): RpcRoute =>
    beside(
      handler,
      { encoding: 'binary', read: (bytes, _request, release) => readRequest(view, asBuffer(bytes), release) },
      maxRequestBytes(maxBatchBytes),
    );
  return { json: besideJson, binary: besideBinary };
}

/** application/json, application/connect+json, application/grpc+json, application/grpc-web+json. */
function byEncoding(binary: RpcRoute, json: RpcRoute): RpcRoute {
  const route: UniversalHandlerFn = (request) => {
    const type = request.header.get('content-type') ?? '';
    return /[/+]json\b/i.test(type) ? json(request) : binary(request);
  };
  return Object.assign(route, { allowedMethods: binary.allowedMethods });
}

const asBuffer = ({ buffer, byteOffset, length }: Uint8Array): Buffer => Buffer.from(buffer, byteOffset, length);

/**
 * The RPC routes: which handler answers which path, and what all of them share. The room:
 *
 *   entrance.ts         where calls come in; calls.ts puts all calls together
 *   routes.ts           this file; rpc-route.ts the type of a route
 *   hot/                Publish and PublishStream in Protobuf over HTTP/2, below the RPC library; map in hot/handler.ts
 *   http-api.ts         POST /v1/events and /v1/events/batch, /healthz, /readyz
 *   rpc-adapter.ts      from Node's requests to the RPC library and back; media-types.ts spellings of headers, grpc-web-text.ts base64
 *   rpc-unary.ts        calls of one message; rpc-stream.ts calls of many; both make every error one of the table
 *   beside-library.ts   reads messages of Publish and PublishStream without the library; split-envelopes.ts cuts a body into them
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
import {
  create,
  type DescMessage,
  type DescMethodUnary,
  type Message,
  type MessageInitShape,
  type MessageShape,
} from '@bufbuild/protobuf';
import type { HandlerContext } from '@connectrpc/connect';
import type { UniversalHandlerFn, UniversalHandlerOptions } from '@connectrpc/connect/protocol';
import { IngestService, PublishResponseSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { contractRevision } from '../../lib/contract/index.js';
import type { TenantDirectory } from '../../lib/tenants.js';
import type { KeyWatch } from '../auth/key-watch.js';
import { classify } from '../errors/rpc-errors.js';
import type { Inflater } from '../held/inflate.js';
import type { JsonTurns } from '../held/json-turns.js';
import type { Places } from '../held/places.js';
import { admittedKey } from '../held/request-input.js';
import type { UnfinishedBytes } from '../held/unfinished.js';
import type { Ingest } from '../ingest/ingest.js';
import { connectionKey, exchangeKey, whenClosed } from '../listener/connection.js';
import type { GatewayMetrics } from '../metrics.js';
import type { AskBatchStatus } from './batch-status.js';
import { type BesideOptions, besideLibrary, nextMessage, placeholderSchema } from './beside-library.js';
import { answeredAtDeadline, wholeInTime } from './call-timeout.js';
import { readRequest } from './hot/request.js';
import {
  ignoresUnknownFields,
  jsonLimitsOf,
  type ReadJson,
  readPublishRequest,
  readStreamRequest,
} from './json-request.js';
import { type OpenRoutes, openRoutes } from './open-routes.js';
import { type BatchCall, type PublishBatch, toBatchResult } from './publish-batch.js';
import { publishStream } from './publish-stream.js';
import { type FactOptions, readFacts, wasResent } from './request-facts.js';
import type { RpcRoute } from './rpc-route.js';
import { createRpcStream } from './rpc-stream.js';
import { createRpcUnary } from './rpc-unary.js';
import { type BatchMessage, publishRequestView, publishStreamRequestView } from './view.js';

export interface RouteOptions {
  readonly ingest: Pick<Ingest, 'limits' | 'room' | 'commits'>;
  readonly tenants: Pick<TenantDirectory, 'lookup'>;
  readonly keys: KeyWatch;
  /** Of PublishStream calls, by key id. */
  readonly streams: Pick<Places<string>, 'take'>;
  readonly publish: PublishBatch;
  readonly batchStatus: AskBatchStatus;
  readonly metrics: Pick<GatewayMetrics, 'failed'>;
  readonly facts: FactOptions;
  readonly unfinished: UnfinishedBytes;
  readonly inflater: Inflater;
  readonly jsonTurns: JsonTurns;
  /** Further services: health, reflection. */
  readonly more: (routes: OpenRoutes) => void;
}

/** What a request has beyond its batch: ids, time, envelope. */
const requestOverhead = 64 * 1024;
/** How much longer than its binary form a batch may be as JSON. */
const jsonFactor = 4;

/** Most bytes of a JSON request, on these routes and on the plain HTTP ones. */
export const maxJsonBytes = (maxBatchBytes: number): number => jsonFactor * maxBatchBytes + requestOverhead;

/** Most bytes of a binary request. */
export const maxRequestBytes = (maxBatchBytes: number): number => maxBatchBytes + requestOverhead;

/** Handlers by path. */
export function createRpcRoutes(options: RouteOptions): Map<string, RpcRoute> {
  const { ingest, tenants, keys, streams, publish, metrics, inflater, jsonTurns } = options;
  const { maxBatchBytes, maxStreamBytesInFlight, maxStreamUncommitted } = ingest.limits;
  const limits = { ...ingest.limits, contract: contractRevision };

  // Set here and nowhere per service: there they would replace these (FACT-9).
  const shared: Partial<UniversalHandlerOptions> = {
    acceptCompression: [inflater.compression],
    // Answers are small: compressing them costs more than it saves.
    compressMinBytes: 1024 * 1024,
    writeMaxBytes: 8 * 1024 * 1024,
    binaryOptions: { readUnknownFields: false },
    jsonOptions: { ignoreUnknownFields: false, alwaysEmitImplicit: true },
  };
  const binary = { ...shared, readMaxBytes: maxRequestBytes(maxBatchBytes) };
  const json = { ...shared, readMaxBytes: maxJsonBytes(maxBatchBytes) };
  const small = { ...shared, readMaxBytes: requestOverhead };
  const jsonLimits = jsonLimitsOf(ingest.limits);

  const lookup = (header: Headers) => tenants.lookup(header.get('authorization'));

  const callOf = (context: HandlerContext, name: string): BatchCall => {
    const timeout = context.timeoutMs();
    const header = context.requestHeader;
    const { remoteAddress, openedAt } = context.values.get(connectionKey);
    return {
      caller: lookup(header),
      facts: readFacts((field) => header.get(field), remoteAddress, options.facts),
      openedAt,
      resent: wasResent((field) => header.get(field)),
      deadlineAt: timeout === undefined ? undefined : Date.now() + timeout,
      name,
    };
  };

  const publishUnary = (library: Partial<UniversalHandlerOptions>) =>
    createRpcUnary({
      method: IngestService.method.publish,
      input: placeholderSchema,
      library,
      authorize: lookup,
      onRefused: metrics.failed,
      handle: async (_placeholder, context) => {
        const message = nextMessage<BatchMessage>(context.values);
        try {
          const published = publish(callOf(context, 'sluice.ingest.v1.IngestService/Publish'), message);
          context.values.get(admittedKey)();
          return create(PublishResponseSchema, { result: toBatchResult(await published) });
        } finally {
          message.release?.();
        }
      },
    });

  const publishStreamed = (library: Partial<UniversalHandlerOptions>) => {
    async function* handle(requests: AsyncIterable<Message>, context: HandlerContext): AsyncGenerator<Message> {
      let call: BatchCall;
      try {
        call = callOf(context, 'sluice.ingest.v1.IngestService/PublishStream');
        // Until its HTTP stream is over: a call whose client does not read ends before that.
        whenClosed(context.values.get(exchangeKey), streams.take(call.caller.keyId));
      } catch (reason) {
        const { row } = classify(reason);
        if (row !== undefined) metrics.failed(row.code);
        throw reason;
      }
      yield* publishStream({
        requests: map(requests, () => nextMessage<BatchMessage>(context.values)),
        call,
        connection: context.values.get(connectionKey),
        signal: context.signal,
        onRevoked: (listener) => keys.onRevoked(call.caller.keyId, listener),
        limits,
        maxBytesInFlight: maxStreamBytesInFlight,
        maxUncommitted: maxStreamUncommitted,
        publish,
        room: ingest.room,
        commits: ingest.commits,
        onFailed: metrics.failed,
        unfinished: options.unfinished,
      });
    }
    const method = { ...IngestService.method.publishStream, input: placeholderSchema };
    return createRpcStream({ method, library, handle });
  };

  /** A question about the caller's own things. */
  const question = <I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    handle: (request: MessageShape<I>, header: Headers) => Promise<MessageInitShape<O>>,
  ): RpcRoute =>
    createRpcUnary({
      method,
      library: small,
      authorize: lookup,
      onRefused: metrics.failed,
      handle: async (message, context) => {
        try {
          return create(method.output, await handle(message as MessageShape<I>, context.requestHeader));
        } catch (reason) {
          const { row } = classify(reason);
          if (row !== undefined) metrics.failed(row.code);
          throw reason;
        }
      },
    });

  const owner = (header: Headers): string => lookup(header).tenant;
  const beside = (
    handler: RpcRoute,
    { encoding, read }: Pick<BesideOptions, 'encoding' | 'read'>,
    { readMaxBytes }: { readMaxBytes: number },
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
      json,
    );
  };
  const besideBinary = (handler: RpcRoute, view: DescMessage): RpcRoute =>
    beside(
      handler,
      { encoding: 'binary', read: (bytes, _request, release) => readRequest(view, asBuffer(bytes), release) },
      binary,
    );
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
      besideBinary(publishUnary(binary), publishRequestView),
      besideJson(publishUnary(json), readPublishRequest),
    ),
  );
  add(
    method.publishStream,
    byEncoding(
      besideBinary(publishStreamed(binary), publishStreamRequestView),
      besideJson(publishStreamed(json), readStreamRequest),
    ),
  );
  add(
    method.getLimits,
    wholeInTime(
      question(method.getLimits, async () => ({ limits })),
      onSlow,
    ),
  );
  add(
    method.getBatchStatus,
    wholeInTime(
      question(method.getBatchStatus, ({ batchId }, header) => options.batchStatus(lookup(header).tenant, batchId)),
      onSlow,
    ),
  );
  options.more(openRoutes({ library: shared, add, onRefused: metrics.failed }));
  return routes;
}

/** application/json, application/connect+json, application/grpc+json, application/grpc-web+json. */
function byEncoding(binary: RpcRoute, json: RpcRoute): RpcRoute {
  const route: UniversalHandlerFn = (request) => {
    const type = request.header.get('content-type') ?? '';
    return /[/+]json\b/i.test(type) ? json(request) : binary(request);
  };
  return Object.assign(route, { allowedMethods: binary.allowedMethods });
}

async function* map<A, B>(source: AsyncIterable<A>, change: (item: A) => B): AsyncGenerator<B> {
  for await (const item of source) yield change(item);
}

const asBuffer = ({ buffer, byteOffset, length }: Uint8Array): Buffer => Buffer.from(buffer, byteOffset, length);

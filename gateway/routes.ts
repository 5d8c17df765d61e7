/**
 * The RPC routes: which handler answers which path, and what all of them share.
 *
 * Every method is there twice: with the view for binary content types, where `batch` stays bytes, and with the contract's
 * own messages for JSON, where the batch is encoded once and then goes the same way.
 */
import { create, type Message, toBinary } from '@bufbuild/protobuf';
import { type ConnectRouter, createConnectRouter, type HandlerContext } from '@connectrpc/connect';
import type { UniversalHandlerFn, UniversalHandlerOptions } from '@connectrpc/connect/protocol';
import { createUniversalMethodHandler } from '@connectrpc/connect/protocol';
import { createHandlerFactory as connectFactory } from '@connectrpc/connect/protocol-connect';
import { createHandlerFactory as grpcFactory } from '@connectrpc/connect/protocol-grpc';
import { createHandlerFactory as grpcWebFactory } from '@connectrpc/connect/protocol-grpc-web';
import { compressionGzip } from '@connectrpc/connect-node';
import { EventBatchSchema } from '#gen/sluice/event/v1/event_pb.js';
import {
  IngestService,
  type PublishRequest,
  PublishRequestSchema,
  PublishResponseSchema,
  type PublishStreamRequest,
  PublishStreamRequestSchema,
} from '#gen/sluice/ingest/v1/ingest_pb.js';
import { contractRevision } from '../lib/contract/index.js';
import type { TenantDirectory } from '../lib/tenants.js';
import type { AskBatchStatus } from './batch-status.js';
import { connectionKey } from './connection.js';
import type { Ingest } from './ingest.js';
import type { KeyWatch } from './key-watch.js';
import type { GatewayMetrics } from './metrics.js';
import { type BatchCall, type PublishBatch, toBatchResult } from './publish-batch.js';
import { publishStream } from './publish-stream.js';
import { createPublishUnary } from './publish-unary.js';
import { type FactOptions, readFacts, wasResent } from './request-facts.js';
import { classify } from './rpc-errors.js';
import { type BatchMessage, durabilityOf, fromView, publishRequestView, publishStreamRequestView } from './view.js';

export interface RouteOptions {
  readonly ingest: Pick<Ingest, 'limits' | 'room' | 'commits'>;
  readonly tenants: Pick<TenantDirectory, 'lookup'>;
  readonly keys: KeyWatch;
  readonly publish: PublishBatch;
  readonly batchStatus: AskBatchStatus;
  readonly metrics: Pick<GatewayMetrics, 'failed'>;
  readonly facts: FactOptions;
  /** Further services: health, reflection. */
  readonly more: (router: ConnectRouter) => void;
}

/** What a request has beyond its batch: ids, time, envelope. */
const requestOverhead = 64 * 1024;
/** How much longer than its binary form a batch may be as JSON. */
const jsonFactor = 4;

/** Most bytes of a JSON request, on these routes and on the plain HTTP ones. */
export const maxJsonBytes = (maxBatchBytes: number): number => jsonFactor * maxBatchBytes + requestOverhead;

/** Most bytes of a binary request. */
export const maxRequestBytes = (maxBatchBytes: number): number => maxBatchBytes + requestOverhead;

/** From a request in the contract's own schema. */
export function fromContract(message: PublishRequest | PublishStreamRequest): BatchMessage {
  return {
    batch: message.batch === undefined ? new Uint8Array(0) : toBinary(EventBatchSchema, message.batch),
    batchId: message.batchId,
    attempt: message.attempt,
    sentAt: message.sentAt,
    durability: durabilityOf('options' in message ? message.options : undefined),
  };
}

/** Handlers by path. */
export function createRpcRoutes(options: RouteOptions): Map<string, UniversalHandlerFn> {
  const { ingest, tenants, keys, publish, metrics } = options;
  const { maxBatchBytes, maxStreamBytesInFlight, maxStreamUncommitted } = ingest.limits;
  const limits = { ...ingest.limits, contract: contractRevision };

  // Set here and nowhere per service: there they would replace these (F9).
  const shared: Partial<UniversalHandlerOptions> = {
    acceptCompression: [compressionGzip],
    // Answers are small: compressing them costs more than it saves.
    compressMinBytes: 1024 * 1024,
    writeMaxBytes: 8 * 1024 * 1024,
    binaryOptions: { readUnknownFields: false },
    jsonOptions: { ignoreUnknownFields: false, alwaysEmitImplicit: true },
  };
  const binary = { ...shared, readMaxBytes: maxRequestBytes(maxBatchBytes) };
  const json = { ...shared, readMaxBytes: maxJsonBytes(maxBatchBytes) };

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

  const unary = (
    library: Partial<UniversalHandlerOptions>,
    input: typeof publishRequestView,
    read: (message: Message) => BatchMessage,
  ) =>
    createPublishUnary({
      input,
      library,
      authorize: lookup,
      onRefused: metrics.failed,
      handle: async (message, context) => {
        const result = await publish(callOf(context, 'sluice.ingest.v1.IngestService/Publish'), read(message));
        return create(PublishResponseSchema, { result: toBatchResult(result) });
      },
    });

  const stream = (
    library: Partial<UniversalHandlerOptions>,
    input: typeof publishRequestView,
    read: (message: Message) => BatchMessage,
  ) => {
    async function* implementation(requests: AsyncIterable<Message>, context: HandlerContext) {
      let call: BatchCall;
      try {
        call = callOf(context, 'sluice.ingest.v1.IngestService/PublishStream');
      } catch (reason) {
        const { rpc, row } = classify(reason);
        if (row !== undefined) metrics.failed(row.code);
        throw rpc;
      }
      yield* publishStream({
        requests: map(requests, read),
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
      });
    }
    const method = { ...IngestService.method.publishStream, input };
    return createUniversalMethodHandler(
      { kind: 'bidi_streaming', method: method as never, impl: implementation as never },
      [grpcFactory(library), grpcWebFactory(library), connectFactory(library)],
    );
  };

  const readPublish = (message: Message) => fromContract(message as PublishRequest);
  const readStream = (message: Message) => fromContract(message as PublishStreamRequest);
  const routes = new Map<string, UniversalHandlerFn>();
  const small = createConnectRouter({ ...shared, readMaxBytes: requestOverhead });
  small.rpc(IngestService.method.getLimits, (_request, context) => {
    try {
      lookup(context.requestHeader);
    } catch (reason) {
      const { rpc, row } = classify(reason);
      if (row !== undefined) metrics.failed(row.code);
      throw rpc;
    }
    return { limits };
  });
  small.rpc(IngestService.method.getBatchStatus, async ({ batchId }, context) => {
    try {
      return await options.batchStatus(lookup(context.requestHeader).tenant, batchId);
    } catch (reason) {
      const { rpc, row } = classify(reason);
      if (row !== undefined) metrics.failed(row.code);
      throw rpc;
    }
  });
  options.more(small);
  for (const handler of small.handlers) routes.set(handler.requestPath, handler);
  routes.set(
    '/sluice.ingest.v1.IngestService/Publish',
    byEncoding(unary(binary, publishRequestView, fromView), unary(json, PublishRequestSchema, readPublish)),
  );
  routes.set(
    '/sluice.ingest.v1.IngestService/PublishStream',
    byEncoding(
      stream(binary, publishStreamRequestView, fromView),
      stream(json, PublishStreamRequestSchema, readStream),
    ),
  );
  return routes;
}

/** application/json, application/connect+json, application/grpc+json, application/grpc-web+json. */
function byEncoding(binary: UniversalHandlerFn, json: UniversalHandlerFn): UniversalHandlerFn {
  return (request) => {
    const type = request.header.get('content-type') ?? '';
    return /[/+]json\b/i.test(type) ? json(request) : binary(request);
  };
}

async function* map<A, B>(source: AsyncIterable<A>, change: (item: A) => B): AsyncGenerator<B> {
  for await (const item of source) yield change(item);
}

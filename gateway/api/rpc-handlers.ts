/**
 * The handlers behind the RPC routes that need a key: Publish, PublishStream, and questions about the caller's own things.
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
import type { UniversalHandlerOptions } from '@connectrpc/connect/protocol';
import { IngestService, type LimitsSchema, PublishResponseSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import type { Caller } from '../../lib/tenants.js';
import { classify } from '../errors/rpc-errors.js';
import { admittedKey } from '../held/request-input.js';
import { connectionKey, exchangeKey, whenClosed } from '../listener/connection.js';
import { nextMessage, placeholderSchema } from './beside-library.js';
import type { KeyedCallOptions } from './keyed-calls.js';
import { type BatchCall, toBatchResult } from './publish-batch.js';
import { publishStream } from './publish-stream.js';
import { readFacts, wasResent } from './request-facts.js';
import type { RpcRoute } from './rpc-route.js';
import { createRpcStream } from './rpc-stream.js';
import { createRpcUnary } from './rpc-unary.js';
import type { BatchMessage } from './view.js';

type Library = Partial<UniversalHandlerOptions>;

export interface RpcHandlers {
  /** Who calls. @throws SluiceError without a valid key */
  lookup(header: Headers): Caller;
  publish(library: Library): RpcRoute;
  publishStream(library: Library): RpcRoute;
  /** A question about the caller's own things. */
  question<I extends DescMessage, O extends DescMessage>(
    library: Library,
    method: DescMethodUnary<I, O>,
    handle: (request: MessageShape<I>, header: Headers) => Promise<MessageInitShape<O>>,
  ): RpcRoute;
}

/** @param limits as every stream begins with them */
export function createRpcHandlers(
  options: KeyedCallOptions,
  limits: MessageInitShape<typeof LimitsSchema>,
): RpcHandlers {
  const { tenants, publish, metrics } = options;

  const lookup = (header: Headers): Caller => tenants.lookup(header.get('authorization'));

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

  const publishUnary = (library: Library): RpcRoute =>
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

  const publishStreamed = (library: Library): RpcRoute => {
    async function* handle(requests: AsyncIterable<Message>, context: HandlerContext): AsyncGenerator<Message> {
      const call = beginStream(context);
      yield* publishStream({
        ...streamOptionsOf(options, call),
        requests: map(requests, () => nextMessage<BatchMessage>(context.values)),
        connection: context.values.get(connectionKey),
        signal: context.signal,
        limits,
      });
    }
    const method = { ...IngestService.method.publishStream, input: placeholderSchema };
    return createRpcStream({ method, library, handle });
  };

  /** @throws SluiceError without a valid key, or without a place for the stream */
  const beginStream = (context: HandlerContext): BatchCall => {
    try {
      const call = callOf(context, 'sluice.ingest.v1.IngestService/PublishStream');
      // Until its HTTP stream is over: a call whose client does not read ends before that.
      whenClosed(context.values.get(exchangeKey), options.streams.take(call.caller.keyId));
      return call;
    } catch (reason) {
      countFailed(reason);
      throw reason;
    }
  };

  const countFailed = (reason: unknown): void => {
    const { row } = classify(reason);
    if (row !== undefined) metrics.failed(row.code);
  };

  return {
    lookup,
    publish: publishUnary,
    publishStream: publishStreamed,
    question: (library, method, handle) =>
      createRpcUnary({
        method,
        library,
        authorize: lookup,
        onRefused: metrics.failed,
        handle: async (message, context) => {
          try {
            return create(
              method.output,
              await handle(message as MessageShape<typeof method.input>, context.requestHeader),
            );
          } catch (reason) {
            countFailed(reason);
            throw reason;
          }
        },
      }),
  };
}

const streamOptionsOf = ({ ingest, keys, publish, metrics, unfinished }: KeyedCallOptions, call: BatchCall) => ({
  call,
  onRevoked: (listener: () => void) => keys.onRevoked(call.caller.keyId, listener),
  maxBytesInFlight: ingest.limits.maxStreamBytesInFlight,
  maxUncommitted: ingest.limits.maxStreamUncommitted,
  publish,
  room: ingest.room,
  commits: ingest.commits,
  onFailed: metrics.failed,
  unfinished,
});

async function* map<A, B>(source: AsyncIterable<A>, change: (item: A) => B): AsyncGenerator<B> {
  for await (const item of source) yield change(item);
}

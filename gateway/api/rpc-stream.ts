/**
 * Calls with a stream of answers, in all protocols. The handler gets bytes that are no message as one of our errors. The library would
 * answer `internal`, which blames the gateway.
 */
import type { DescMethodBiDiStreaming, DescMethodServerStreaming, Message } from '@bufbuild/protobuf';
import type { HandlerContext } from '@connectrpc/connect';
import {
  createUniversalMethodHandler,
  type UniversalHandler,
  type UniversalHandlerOptions,
} from '@connectrpc/connect/protocol';
import { createHandlerFactory as connectFactory } from '@connectrpc/connect/protocol-connect';
import { createHandlerFactory as grpcFactory } from '@connectrpc/connect/protocol-grpc';
import { createHandlerFactory as grpcWebFactory } from '@connectrpc/connect/protocol-grpc-web';
import { classify } from '../errors/rpc-errors.js';

export interface RpcStreamOptions {
  readonly method: DescMethodServerStreaming | DescMethodBiDiStreaming;
  readonly library: Partial<UniversalHandlerOptions>;
  /** Throws what `classify` knows. */
  readonly handle: (requests: AsyncIterable<Message>, context: HandlerContext) => AsyncIterable<Message>;
}

export function createRpcStream({ method, library, handle }: RpcStreamOptions): UniversalHandler {
  async function* implementation(requests: AsyncIterable<Message>, context: HandlerContext): AsyncGenerator<Message> {
    try {
      yield* handle(requests, context);
    } catch (reason) {
      throw classify(reason).rpc;
    }
  }
  // Also where the client sends one message only: the library would read it before the handler is there.
  return createUniversalMethodHandler(
    { kind: 'bidi_streaming', method: method as never, impl: implementation as never },
    [grpcFactory(library), grpcWebFactory(library), connectFactory(library)],
  );
}

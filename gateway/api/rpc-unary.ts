/**
 * Calls of one message and one answer, in all protocols. Handlers of the RPC library, arranged so that every error is one of ours:
 *
 * - For gRPC and gRPC-Web the handler takes the request as a stream of one message, because then bytes that do not parse
 *   come to it as an error that it can name, instead of being answered as `internal` below it.
 * - For Connect, whose unary handler has no such form, the library's own error answer is put into our words afterwards.
 */
import type { DescMessage, DescMethodUnary, Message } from '@bufbuild/protobuf';
import { base64Decode } from '@bufbuild/protobuf/wire';
import { Code, ConnectError, type ContextValues, createContextValues, type HandlerContext } from '@connectrpc/connect';
import {
  createUniversalMethodHandler,
  type ProtocolHandlerFactory,
  type UniversalHandler,
  type UniversalHandlerFn,
  type UniversalHandlerOptions,
  type UniversalServerRequest,
  type UniversalServerResponse,
} from '@connectrpc/connect/protocol';
import {
  codeFromString,
  codeToHttpStatus,
  createHandlerFactory as connectFactory,
  errorToJsonBytes,
} from '@connectrpc/connect/protocol-connect';
import { createHandlerFactory as grpcFactory } from '@connectrpc/connect/protocol-grpc';
import { createHandlerFactory as grpcWebFactory } from '@connectrpc/connect/protocol-grpc-web';
import { type ErrorName, SluiceError } from '../../lib/errors.js';
import { classify, fromLibraryError, named } from '../errors/rpc-errors.js';

export interface RpcUnaryOptions {
  readonly method: DescMethodUnary;
  /** The request message as it is read, when that is not the contract's own. */
  readonly input?: DescMessage;
  readonly library: Partial<UniversalHandlerOptions>;
  /** Throws when the caller is not known, or has too many calls open. Runs before anything of the request is read. */
  readonly authorize: (header: Headers, values: ContextValues) => unknown;
  /** Throws what `classify` knows. */
  readonly handle: (message: Message, context: HandlerContext) => Promise<Message>;
  /** An error that did not come from `handle` was answered. */
  readonly onRefused: (name: ErrorName) => void;
}

/** The one message of a request. @throws ConnectError when there is none, or more than one */
export async function theOnly(requests: AsyncIterable<Message>, method: string): Promise<Message> {
  let message: Message | undefined;
  for await (const next of requests) {
    if (message !== undefined) throw new ConnectError(`${method} takes one message.`, Code.InvalidArgument);
    message = next;
  }
  if (message === undefined) throw new ConnectError(`${method} takes a message.`, Code.InvalidArgument);
  return message;
}

export function createRpcUnary(options: RpcUnaryOptions): UniversalHandler {
  const { library, authorize, handle, onRefused } = options;
  const method: DescMethodUnary = { ...options.method, input: options.input ?? options.method.input };

  const refuse = (reason: unknown): ConnectError => {
    const { rpc, row } = classify(reason);
    if (row !== undefined) onRefused(row.code);
    return rpc;
  };

  async function* single(requests: AsyncIterable<Message>, context: HandlerContext): AsyncGenerator<Message> {
    let message: Message;
    try {
      authorize(context.requestHeader, context.values);
      message = await theOnly(requests, method.name);
    } catch (reason) {
      throw refuse(reason);
    }
    try {
      yield await handle(message, context);
    } catch (reason) {
      throw classify(reason).rpc;
    }
  }

  const asStream = (factory: ProtocolHandlerFactory): ProtocolHandlerFactory =>
    Object.assign(() => factory({ kind: 'bidi_streaming', method: method as never, impl: single as never }), {
      protocolName: factory.protocolName,
    });

  const unary = async (message: Message, context: HandlerContext): Promise<Message> => {
    try {
      return await handle(message, context);
    } catch (reason) {
      throw classify(reason).rpc;
    }
  };
  const connect = connectFactory(library);
  const asUnary: ProtocolHandlerFactory = Object.assign(
    () => {
      const inner = connect({ kind: 'unary', method: method as never, impl: unary as never });
      const handler: UniversalHandlerFn = async (request) => {
        try {
          authorize(request.header, request.contextValues ?? createContextValues());
          checkQuery(request);
        } catch (reason) {
          return connectAnswer(refuse(reason));
        }
        const response = await inner(request);
        return response.status < 400 ? response : await inOurWords(response, onRefused);
      };
      return Object.assign(handler, inner);
    },
    { protocolName: connect.protocolName },
  );

  return createUniversalMethodHandler({ kind: 'unary', method: method as never, impl: unary as never }, [
    asStream(grpcFactory(library)),
    asStream(grpcWebFactory(library)),
    asUnary,
  ]);
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  yield bytes;
}

/** The message of a GET. @throws SluiceError request_malformed when it is no base64, which the library would answer as `internal` */
function checkQuery({ method, url }: UniversalServerRequest): void {
  if (method !== 'GET') return;
  const query = new URL(url).searchParams;
  if (query.get('base64') !== '1') return;
  try {
    base64Decode(query.get('message') ?? '');
  } catch (cause) {
    throw new SluiceError('request_malformed', 'The query says base64=1, and its message is not base64.', { cause });
  }
}

function connectAnswer(error: ConnectError): UniversalServerResponse {
  const body = errorToJsonBytes(error, undefined);
  const header = new Headers(error.metadata);
  header.set('content-type', 'application/json');
  header.set('content-length', String(body.length));
  return { status: codeToHttpStatus(error.code), header, body: once(body) };
}

/** The library's errors have no details; ours always have. */
async function inOurWords(
  response: UniversalServerResponse,
  onRefused: (name: ErrorName) => void,
): Promise<UniversalServerResponse> {
  if (response.body === undefined) return response;
  const chunks: Uint8Array[] = [];
  for await (const chunk of response.body) chunks.push(chunk);
  const bytes = Buffer.concat(chunks);
  const unchanged = { ...response, body: once(bytes) };
  let error: { code?: unknown; message?: unknown; details?: unknown };
  try {
    error = JSON.parse(bytes.toString()) as typeof error;
  } catch {
    return unchanged;
  }
  if (error.details !== undefined || typeof error.message !== 'string') return unchanged;
  const code = typeof error.code === 'string' ? (codeFromString(error.code) ?? Code.Internal) : Code.Internal;
  const row = fromLibraryError(code, error.message);
  if (row === undefined) return unchanged;
  onRefused(row.code);
  return connectAnswer(named(new ConnectError(error.message, code), row));
}

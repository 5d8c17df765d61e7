/**
 * Reads request messages of Publish and PublishStream without the RPC library's decoders. Its JSON decoder (protobuf-es) takes
 * 2026-02-30 for 2 March, loses digits, and refuses a batch for one bad event. Its Protobuf decoder makes an object of each field. It
 * bounds inflated bytes by size alone.
 *
 * This file takes each message out of the request body, inflates it, reads it and queues it. The library gets an empty message in its
 * place and calls the handler, which takes the next message from the queue. So the library still handles envelopes, deadlines and
 * answers. Nothing is read before the library asks for it.
 */
import { EmptySchema } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError, type ContextValues, createContextKey, createContextValues } from '@connectrpc/connect';
import type { UniversalHandlerFn, UniversalServerRequest } from '@connectrpc/connect/protocol';
import { encodeEnvelope } from '@connectrpc/connect/protocol';
import { type ErrorName, SluiceError } from '../../lib/errors.js';
import { toConnectError } from '../errors/rpc-errors.js';
import { type Inflater, newMeter } from '../held/inflate.js';
import { onePiece, type Piece, splitEnvelopes } from './split-envelopes.js';

/** The request message as the library reads it. */
export const placeholderSchema = EmptySchema;

/** An empty message in each encoding. */
const placeholders = { json: new TextEncoder().encode('{}'), binary: new Uint8Array(0) };

/** Of an envelope. */
const compressedFlag = 0x01;

const lineKey = createContextKey<unknown[]>([], { description: 'messages beside the library' });

/** The next message of a request, as `read` has made it. To be called once for each placeholder. @throws SluiceError request_malformed */
export function nextMessage<T>(values: ContextValues): T {
  const message = values.get(lineKey).shift() as T | undefined;
  if (message === undefined) throw new SluiceError('request_malformed', 'The request carries no message.');
  return message;
}

export interface BesideOptions {
  readonly encoding: keyof typeof placeholders;
  /**
   * What stands in line for a message. What it throws ends the request, as bytes do that the library cannot read.
   * @param release of binary messages: to be called when `bytes` are needed no more. Others are read once, and their bytes given back then.
   */
  readonly read: (bytes: Uint8Array, request: UniversalServerRequest, release: Piece['release']) => unknown;
  /** Of a message, as it comes and inflated. */
  readonly readMaxBytes: number;
  readonly inflater: Pick<Inflater, 'inflate'>;
  /** The tenant that the request's headers name. Throws when it is not known. Asked before anything is inflated. */
  readonly ownerOf: (header: Headers) => string;
  /** An error that arose here was answered. */
  readonly onRefused: (name: ErrorName) => void;
}

/** @param handler of a method whose input is `placeholderSchema` */
export function besideLibrary<H extends UniversalHandlerFn>(handler: H, options: BesideOptions): H {
  const { readMaxBytes } = options;
  const placeholder = placeholders[options.encoding];
  const beside: UniversalHandlerFn = (request) => {
    const { body } = request;
    const type = request.header.get('content-type') ?? '';
    const unary = /^application\/(?:json|proto)/i.test(type);
    const encodingHeader = unary
      ? 'content-encoding'
      : /^application\/grpc/i.test(type)
        ? 'grpc-encoding'
        : 'connect-content-encoding';
    const named = request.header.get(encodingHeader);
    // Any other encoding is refused by the library before it reads.
    const readable = named === 'gzip' || named === null || named === '' || named === 'identity';
    if (!isByteStream(body) || !readable) return handler(request);
    const line: unknown[] = [];
    const read = (bytes: Uint8Array): unknown => options.read(bytes, request, undefined);
    const unpacked = named === 'gzip' ? inflation(request, options) : undefined;
    const reading: Reading = {
      body,
      readMaxBytes,
      placeholder,
      async take({ bytes, release }, packed) {
        if (packed && unpacked === undefined) {
          throw new ConnectError('received compressed envelope, but do not know how to decompress', Code.Internal);
        }
        const plain = !packed || bytes.length === 0;
        const keeps = plain && options.encoding === 'binary';
        try {
          if (keeps) line.push(options.read(bytes, request, release));
          else line.push(await (plain ? read(bytes) : unpacked?.(bytes, read)));
        } catch (reason) {
          throw told(reason, options);
        } finally {
          if (!keeps) release?.();
        }
      },
    };
    const contextValues = (request.contextValues ?? createContextValues()).set(lineKey, line);
    if (!unary) return handler({ ...request, contextValues, body: envelopes(reading, endFlag(type)) });
    const header = new Headers(request.header);
    header.delete('content-encoding');
    header.delete('content-length');
    const size = request.header.get('content-length');
    return handler({ ...request, contextValues, header, body: wholeBody(reading, size, named === 'gzip') });
  };
  return Object.assign(beside, handler);
}

/** An error of ours as the library answers it unchanged. */
function told(reason: unknown, { onRefused }: BesideOptions): unknown {
  if (!(reason instanceof SluiceError)) return reason;
  onRefused(reason.code);
  return toConnectError(reason);
}

/** Of the messages of one call: inflates one, and reads it. */
function inflation(
  { header, signal }: UniversalServerRequest,
  { inflater, ownerOf, readMaxBytes }: BesideOptions,
): (bytes: Uint8Array, read: (bytes: Uint8Array) => unknown) => Promise<unknown> {
  const meter = newMeter();
  return async (bytes, read) =>
    inflater.inflate({ owner: ownerOf(header), bytes, max: readMaxBytes, meter, signal }, read);
}

const isByteStream = (body: UniversalServerRequest['body']): body is AsyncIterable<Uint8Array> =>
  typeof body === 'object' && body !== null && Symbol.asyncIterator in body;

/** An envelope with this flag is no message. */
const endFlag = (type: string): number =>
  /^application\/connect/i.test(type) ? 0x02 : /^application\/grpc-web/i.test(type) ? 0x80 : 0;

interface Reading {
  readonly body: AsyncIterable<Uint8Array>;
  readonly readMaxBytes: number;
  readonly placeholder: Uint8Array;
  /** Puts a message in line. */
  readonly take: (message: Piece, packed: boolean) => Promise<void>;
}

async function* wholeBody(
  { body, take, readMaxBytes, placeholder }: Reading,
  contentLength: string | null,
  packed: boolean,
): AsyncGenerator<Uint8Array> {
  await take(await onePiece(body, readMaxBytes, contentLength), packed);
  yield placeholder;
}

async function* envelopes({ body, take, readMaxBytes, placeholder }: Reading, end: number): AsyncGenerator<Uint8Array> {
  for await (const message of splitEnvelopes(body, readMaxBytes)) {
    const { flags, bytes, release } = message;
    if ((flags & end) !== 0) {
      yield encodeEnvelope(flags, bytes);
      release?.();
      continue;
    }
    await take(message, (flags & compressedFlag) !== 0);
    yield encodeEnvelope(flags & ~compressedFlag, placeholder);
  }
}

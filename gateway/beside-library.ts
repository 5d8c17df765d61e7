/**
 * Request messages of Publish and PublishStream, past the RPC library's own decoders. For JSON it has protobuf-es's, which takes
 * 2026-02-30 for 2 March, loses digits, and refuses a batch for one bad event. For Protobuf it makes an object of each field, however
 * many there are. And what it inflates it bounds by size alone.
 *
 * Each message is taken out of the request body, inflated and put in line; the library gets an empty message in its place, and calls
 * the handler, which takes the next message from the line. So envelopes, deadlines and answers stay the library's. Nothing is read
 * before the library asks for it.
 */
import { EmptySchema } from '@bufbuild/protobuf/wkt';
import { type ContextValues, createContextKey, createContextValues } from '@connectrpc/connect';
import type { Compression, UniversalHandlerFn, UniversalServerRequest } from '@connectrpc/connect/protocol';
import {
  encodeEnvelope,
  pipe,
  readAllBytes,
  transformDecompressEnvelope,
  transformSplitEnvelope,
} from '@connectrpc/connect/protocol';
import { compressionGzip } from '@connectrpc/connect-node';
import { type ErrorName, SluiceError } from '../lib/errors.js';
import { type Inflater, newMeter } from './inflate.js';
import { toConnectError } from './rpc-errors.js';

/** The request message as the library reads it. */
export const placeholderSchema = EmptySchema;

/** An empty message in each encoding. */
const placeholders = { json: new TextEncoder().encode('{}'), binary: new Uint8Array(0) };

const lineKey = createContextKey<unknown[]>([], { description: 'messages beside the library' });

/**
 * The next message of a request, inflated, as `read` has made it. To be called once for each placeholder.
 * @throws SluiceError request_malformed
 */
export function nextMessage<T>(values: ContextValues): T {
  const message = values.get(lineKey).shift() as T | undefined;
  if (message === undefined) throw new SluiceError('request_malformed', 'The request carries no message.');
  return message;
}

export interface BesideOptions {
  readonly encoding: keyof typeof placeholders;
  /** What stands in line for a message. What it throws ends the request, as bytes do that the library cannot read. */
  readonly read: (bytes: Uint8Array) => unknown;
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
    const compression = named === 'gzip' ? inflation(request, options) : null;
    // Any other encoding is refused by the library before it reads.
    const readable = compression !== null || named === null || named === '' || named === 'identity';
    if (!isByteStream(body) || !readable) return handler(request);
    const line: unknown[] = [];
    const take = (bytes: Uint8Array): void => {
      try {
        line.push(options.read(bytes));
      } catch (reason) {
        throw told(reason, options);
      }
    };
    const reading: Reading = { body, take, compression, readMaxBytes, placeholder };
    const contextValues = (request.contextValues ?? createContextValues()).set(lineKey, line);
    if (!unary) return handler({ ...request, contextValues, body: envelopes(reading, endFlag(type)) });
    const header = new Headers(request.header);
    header.delete('content-encoding');
    header.delete('content-length');
    const size = request.header.get('content-length');
    return handler({ ...request, contextValues, header, body: wholeBody(reading, size) });
  };
  return Object.assign(beside, handler);
}

/** An error of ours as the library answers it unchanged. */
function told(reason: unknown, { onRefused }: BesideOptions): unknown {
  if (!(reason instanceof SluiceError)) return reason;
  onRefused(reason.code);
  return toConnectError(reason);
}

/** gzip for the messages of one call. */
function inflation({ header, signal }: UniversalServerRequest, options: BesideOptions): Compression {
  const { inflater, ownerOf } = options;
  const meter = newMeter();
  return {
    ...compressionGzip,
    async decompress(bytes, most) {
      if (bytes.length === 0) return new Uint8Array(0);
      try {
        return await inflater.inflate({ owner: ownerOf(header), bytes, most, meter, signal });
      } catch (reason) {
        throw told(reason, options);
      }
    },
  };
}

const isByteStream = (body: UniversalServerRequest['body']): body is AsyncIterable<Uint8Array> =>
  typeof body === 'object' && body !== null && Symbol.asyncIterator in body;

/** An envelope with this flag is no message. */
const endFlag = (type: string): number =>
  /^application\/connect/i.test(type) ? 0x02 : /^application\/grpc-web/i.test(type) ? 0x80 : 0;

interface Reading {
  readonly body: AsyncIterable<Uint8Array>;
  readonly take: (bytes: Uint8Array) => void;
  readonly compression: Compression | null;
  readonly readMaxBytes: number;
  readonly placeholder: Uint8Array;
}

async function* wholeBody(reading: Reading, contentLength: string | null): AsyncGenerator<Uint8Array> {
  const { body, take, compression, readMaxBytes, placeholder } = reading;
  const bytes = await readAllBytes(body, readMaxBytes, contentLength);
  take(compression === null ? bytes : await compression.decompress(bytes, readMaxBytes));
  yield placeholder;
}

async function* envelopes(reading: Reading, end: number): AsyncGenerator<Uint8Array> {
  const { body, take, compression, readMaxBytes, placeholder } = reading;
  const messages = pipe(
    body,
    transformSplitEnvelope(readMaxBytes),
    transformDecompressEnvelope(compression, readMaxBytes),
  );
  for await (const { flags, data } of messages) {
    if ((flags & end) !== 0) yield encodeEnvelope(flags, data);
    else {
      take(data);
      yield encodeEnvelope(flags, placeholder);
    }
  }
}

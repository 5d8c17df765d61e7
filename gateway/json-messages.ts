/**
 * JSON requests of the RPC protocols, past the library's own decoder: it knows protobuf-es's, which takes 2026-02-30 for 2 March, loses
 * digits, and refuses a batch for one bad event.
 *
 * Each message is taken out of the request body and put in line; the library gets `{}` in its place, reads that as an empty message, and
 * calls the handler, which takes the next message from the line. So envelopes, compression, limits, deadlines and answers stay the
 * library's. Nothing is read before the library asks for it.
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
import { SluiceError } from '../lib/errors.js';

/** The request message as the library reads it. */
export const placeholderSchema = EmptySchema;
const placeholder = new TextEncoder().encode('{}');

const lineKey = createContextKey<Uint8Array[]>([], { description: 'JSON messages beside the library' });

/** The next message of a request, unpacked. To be called once for each placeholder. @throws SluiceError json_invalid */
export function nextMessage(values: ContextValues): Uint8Array {
  const message = values.get(lineKey).shift();
  if (message === undefined) throw new SluiceError('json_invalid', 'The request carries no message.');
  return message;
}

/** @param handler of a method whose input is `placeholderSchema` */
export function besideLibrary<H extends UniversalHandlerFn>(handler: H, readMaxBytes: number): H {
  const beside: UniversalHandlerFn = (request) => {
    const { body } = request;
    const type = request.header.get('content-type') ?? '';
    const unary = /^application\/json/i.test(type);
    const named = request.header.get(
      unary ? 'content-encoding' : /^application\/grpc/i.test(type) ? 'grpc-encoding' : 'connect-content-encoding',
    );
    const compression = named === 'gzip' ? compressionGzip : null;
    // Any other encoding is refused by the library before it reads.
    const readable = compression !== null || named === null || named === '' || named === 'identity';
    if (!isByteStream(body) || !readable) return handler(request);
    const line: Uint8Array[] = [];
    const contextValues = (request.contextValues ?? createContextValues()).set(lineKey, line);
    if (!unary) {
      return handler({
        ...request,
        contextValues,
        body: envelopes(body, line, compression, readMaxBytes, endFlag(type)),
      });
    }
    const header = new Headers(request.header);
    header.delete('content-encoding');
    header.delete('content-length');
    const size = request.header.get('content-length');
    return handler({ ...request, contextValues, header, body: wholeBody(body, line, compression, readMaxBytes, size) });
  };
  return Object.assign(beside, handler);
}

const isByteStream = (body: UniversalServerRequest['body']): body is AsyncIterable<Uint8Array> =>
  typeof body === 'object' && body !== null && Symbol.asyncIterator in body;

/** An envelope with this flag is no message. */
const endFlag = (type: string): number =>
  /^application\/connect/i.test(type) ? 0x02 : /^application\/grpc-web/i.test(type) ? 0x80 : 0;

async function* wholeBody(
  body: AsyncIterable<Uint8Array>,
  line: Uint8Array[],
  compression: Compression | null,
  readMaxBytes: number,
  contentLength: string | null,
): AsyncGenerator<Uint8Array> {
  const bytes = await readAllBytes(body, readMaxBytes, contentLength);
  line.push(compression === null ? bytes : await compression.decompress(bytes, readMaxBytes));
  yield placeholder;
}

async function* envelopes(
  body: AsyncIterable<Uint8Array>,
  line: Uint8Array[],
  compression: Compression | null,
  readMaxBytes: number,
  end: number,
): AsyncGenerator<Uint8Array> {
  const messages = pipe(
    body,
    transformSplitEnvelope(readMaxBytes),
    transformDecompressEnvelope(compression, readMaxBytes),
  );
  for await (const { flags, data } of messages) {
    if ((flags & end) !== 0) yield encodeEnvelope(flags, data);
    else {
      line.push(data);
      yield encodeEnvelope(flags, placeholder);
    }
  }
}

/**
 * Turns grpc-web-text into gRPC-Web and back. It is gRPC-Web in base64, both ways, and the default mode of the grpc-web package.
 *
 * A body may be several base64 texts in a row, each with its padding. Answers are encoded piece by piece, so that a browser can read
 * one before the next one comes.
 */
import { Code, ConnectError } from '@connectrpc/connect';
import type { UniversalServerRequest, UniversalServerResponse } from '@connectrpc/connect/protocol';

const textType = /^application\/grpc-web-text(\+proto|\+json)?$/;
/** Whole groups of four; padding may stand at the end of any group. */
const groups = /^(?:[A-Za-z0-9+/]{4}|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)*$/;

const notBase64 = (): ConnectError =>
  new ConnectError('The body is not base64, as grpc-web-text says.', Code.InvalidArgument);

/** Node's decoder stops at padding: texts that follow one another are decoded one by one. */
function decodeGroups(text: string): Buffer {
  if (!groups.test(text)) throw notBase64();
  const parts = text.match(/[^=]+={0,2}/g) ?? [];
  return Buffer.concat(parts.map((part) => Buffer.from(part, 'base64')));
}

async function* decode(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  /** Up to three characters of a group that is not whole yet. */
  let rest = '';
  for await (const chunk of chunks) {
    const text = rest + Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length).toString('latin1');
    const whole = text.length - (text.length % 4);
    rest = text.slice(whole);
    if (whole > 0) yield decodeGroups(text.slice(0, whole));
  }
  if (rest !== '') throw notBase64();
}

async function* encode(chunks: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  for await (const chunk of chunks) {
    yield Buffer.from(Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length).toString('base64'), 'latin1');
  }
}

const isStream = (body: UniversalServerRequest['body']): body is AsyncIterable<Uint8Array> =>
  typeof body === 'object' && body !== null && Symbol.asyncIterator in body;

/** The request as plain gRPC-Web, and what makes grpc-web-text of its answer; undefined when it is something else. */
export function fromText(
  request: UniversalServerRequest,
):
  | { request: UniversalServerRequest; toText: (response: UniversalServerResponse) => UniversalServerResponse }
  | undefined {
  const type = textType.exec(request.header.get('content-type') ?? '');
  if (type === null || !isStream(request.body)) return undefined;
  const header = new Headers(request.header);
  header.set('content-type', `application/grpc-web${type[1] ?? ''}`);
  // It counts the characters.
  header.delete('content-length');
  return {
    request: { ...request, header, body: decode(request.body) },
    toText(response) {
      const { body } = response;
      const answered = response.header?.get('content-type') ?? '';
      if (!answered.startsWith('application/grpc-web')) return response;
      const textHeader = new Headers(response.header);
      textHeader.set('content-type', answered.replace('grpc-web', 'grpc-web-text'));
      return { ...response, header: textHeader, ...(body === undefined ? {} : { body: encode(body) }) };
    },
  };
}

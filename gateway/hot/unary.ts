/**
 * Publish on an HTTP/2 stream: one message in, one answer out.
 */
import type { ServerHttp2Stream } from 'node:http2';
import { Code, ConnectError } from '@connectrpc/connect';
import type { ErrorName } from '../../lib/errors.js';
import type { BatchCall, PublishBatch } from '../publish-batch.js';
import { classify } from '../rpc-errors.js';
import { type BatchMessage, publishRequestView } from '../view.js';
import { encodeResponse } from './answers.js';
import { createEnvelopes, type Envelope, type Envelopes } from './envelopes.js';
import type { MessageBuffers } from './message-buffers.js';
import { type AnswerOptions, answerUnary, begin, end, type Protocol, refuseUnary } from './protocols.js';
import { readRequest } from './request.js';

export interface HotUnaryOptions {
  readonly protocol: Protocol;
  readonly answer: AnswerOptions;
  /** Throws when the caller is not known; before anything is read. */
  readonly authorize: () => unknown;
  /** Once all is read. Throws when the caller is known no more. */
  readonly call: () => BatchCall;
  /** Bytes of the request by its own word. */
  readonly contentLength: number | undefined;
  readonly publish: PublishBatch;
  readonly maxMessageBytes: number;
  readonly buffers: MessageBuffers;
  /** An error that did not come from `publish` was answered. */
  readonly onRefused: (name: ErrorName) => void;
}

/** A chunk may be kept alive by a message of at least this part of it; for smaller ones it is copied. */
const leastKept = 1 / 4;

const tooLarge = (size: number | undefined, most: number): ConnectError =>
  new ConnectError(
    `message size ${size === undefined ? '' : `${size} `}is larger than configured readMaxBytes ${most}`,
    Code.ResourceExhausted,
  );

export function serveUnary(stream: ServerHttp2Stream, options: HotUnaryOptions): void {
  const { protocol, maxMessageBytes, buffers } = options;
  /** The answer is on its way, or can no more be: what still comes is thrown away. */
  let done = false;
  let message: BatchMessage | undefined;
  let envelopes: Envelopes | undefined;
  let chunks: Buffer[] | undefined;
  let size = 0;

  // Callbacks are passed without names where they are made per call: tsx wraps each named one (docs/design.md).
  const fail = (reason: unknown, whileReading: boolean): void => {
    done = true;
    message?.release?.();
    message = undefined;
    envelopes?.close();
    const { rpc, row } = classify(reason);
    if (whileReading && row !== undefined) options.onRefused(row.code);
    if (stream.destroyed || stream.closed) return;
    if (protocol.enveloped) {
      begin(stream, protocol, options.answer);
      end(stream, protocol, undefined, rpc);
    } else {
      refuseUnary(stream, options.answer, rpc, whileReading);
    }
  };

  try {
    options.authorize();
    if (!protocol.enveloped && options.contentLength !== undefined && options.contentLength > maxMessageBytes) {
      throw tooLarge(options.contentLength, maxMessageBytes);
    }
  } catch (reason) {
    fail(reason, true);
    return;
  }

  stream.on('data', (chunk: Buffer) => {
    if (done) return;
    try {
      if (protocol.enveloped) {
        envelopes ??= createEnvelopes(maxMessageBytes, buffers);
        envelopes.push(chunk);
        // All of a chunk before the first is looked at, as the library does: a bad head wins over a bad message before it.
        for (const { flags, bytes, release } of allOf(envelopes)) {
          if ((flags & 1) === 1) {
            release?.();
            throw new ConnectError('received compressed envelope, but do not know how to decompress', Code.Internal);
          }
          if ((flags & protocol.skippedFlags) !== 0) {
            release?.();
            continue;
          }
          const read = readRequest(publishRequestView, bytes, release);
          if (message !== undefined) {
            read.release?.();
            throw new ConnectError('Publish takes one message.', Code.InvalidArgument);
          }
          message = read;
        }
        return;
      }
      size += chunk.length;
      if (size > maxMessageBytes) throw tooLarge(undefined, maxMessageBytes);
      if (chunks === undefined) chunks = [chunk];
      else chunks.push(chunk);
    } catch (reason) {
      fail(reason, true);
    }
  });
  stream.on('end', () => {
    if (done) return;
    try {
      if (!protocol.enveloped) {
        message = readBody(chunks, size, buffers);
        chunks = undefined;
      } else if (envelopes?.incomplete === true) {
        throw new ConnectError('protocol error: incomplete envelope', Code.InvalidArgument);
      } else if (message === undefined) {
        throw new ConnectError('Publish takes a message.', Code.InvalidArgument);
      }
    } catch (reason) {
      return fail(reason, true);
    }
    const complete = message as BatchMessage;
    let call: BatchCall;
    try {
      call = options.call();
    } catch (reason) {
      return fail(reason, false);
    }
    done = true;
    options.publish(call, complete).then(
      (result) => {
        complete.release?.();
        if (stream.destroyed || stream.closed) return;
        const body = encodeResponse(result, protocol.enveloped);
        if (!protocol.enveloped) return answerUnary(stream, options.answer, body);
        begin(stream, protocol, options.answer);
        end(stream, protocol, body, undefined);
      },
      (reason: unknown) => fail(reason, false),
    );
  });
  stream.on('close', () => {
    if (done) return;
    // The client went away before its request was whole.
    done = true;
    message?.release?.();
    envelopes?.close();
  });
}

const none: readonly Envelope[] = [];

function allOf(envelopes: Envelopes): readonly Envelope[] {
  const first = envelopes.next();
  if (first === undefined) return none;
  const all = [first];
  for (let next = envelopes.next(); next !== undefined; next = envelopes.next()) all.push(next);
  return all;
}

function readBody(chunks: readonly Buffer[] | undefined, size: number, buffers: MessageBuffers): BatchMessage {
  const [first] = chunks ?? [];
  if (chunks === undefined || first === undefined) return readRequest(publishRequestView, Buffer.alloc(0), undefined);
  if (chunks.length === 1) {
    const kept = size >= first.buffer.byteLength * leastKept;
    return readRequest(publishRequestView, kept ? first : Buffer.from(first), undefined);
  }
  const joined = buffers.take(size);
  let at = 0;
  for (const chunk of chunks) at += chunk.copy(joined, at);
  return readRequest(publishRequestView, joined, () => buffers.give(joined));
}

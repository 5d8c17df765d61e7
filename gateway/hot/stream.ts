/**
 * PublishStream on an HTTP/2 stream: chunks in, answers out. The rules of the call are those of publish-stream.ts; this shell
 * adds flow control: while a batch waits for room the stream is paused, and while the client does not read nothing is written.
 *
 * Answers that arise in one turn of the event loop, of all streams, are written together at its end: a JetStream ack often
 * settles many batches, and a write costs more than twenty answers do.
 */
import type { ServerHttp2Stream } from 'node:http2';
import { toBinary } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import { type PublishStreamResponse, PublishStreamResponseSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { failpoint } from '../../lib/failpoint.js';
import { resetWhenAnswered } from '../answered-early.js';
import { openStreamCall, type StreamCall, type StreamCallOptions } from '../publish-stream.js';
import { publishStreamRequestView } from '../view.js';
import { encodeAnswers, envelope } from './answers.js';
import { type Envelope, Envelopes } from './envelopes.js';
import type { MessageBuffers } from './message-buffers.js';
import { type AnswerOptions, begin, end, type Protocol } from './protocols.js';
import { readRequest } from './request.js';

export interface HotStreamOptions extends Omit<StreamCallOptions, 'wake'> {
  readonly protocol: Protocol;
  readonly answer: AnswerOptions;
  /** ms from now. */
  readonly timeout: number | undefined;
  /** The first answer, encoded and in its envelope. */
  readonly limits: Buffer;
  readonly maxMessageBytes: number;
  readonly buffers: MessageBuffers;
}

/** The answer that every stream begins with, the same for all. */
export function encodeLimits(limits: Extract<PublishStreamResponse['message'], { case: 'limits' }>['value']): Buffer {
  const message: PublishStreamResponse = {
    $typeName: 'sluice.ingest.v1.PublishStreamResponse',
    message: { case: 'limits', value: limits },
  };
  return envelope(0, toBinary(PublishStreamResponseSchema, message));
}

/** What has answers to write at the end of this turn. */
let dirty: (() => void)[] = [];

function atEndOfTurn(flush: () => void): void {
  if (dirty.push(flush) > 1) return;
  setImmediate(() => {
    const all = dirty;
    dirty = [];
    for (const one of all) one();
  });
}

/** Returns what is to be called when the stream has closed. */
export function serveStream(stream: ServerHttp2Stream, options: HotStreamOptions): () => void {
  const { protocol } = options;
  const envelopes = new Envelopes(options.maxMessageBytes, protocol.reservedFlags, options.buffers);
  let flushing = false;
  /** The transport's buffer is full. */
  let full = false;
  let ended = false;
  /** A batch waits for room, or is being handed over. */
  let busy = false;
  let requestEnded = false;
  let stopped = false;

  const call: StreamCall = openStreamCall({
    ...options,
    wake: () => {
      if (flushing || full || ended) return;
      flushing = true;
      atEndOfTurn(flush);
    },
  });

  const flush = (): void => {
    flushing = false;
    if (ended || stream.destroyed) return;
    while (!full) {
      const bytes = encodeAnswers(call.next);
      if (bytes.length === 0) break;
      failpoint('gateway.before-answer');
      full = !stream.write(bytes);
      failpoint('gateway.after-answer');
    }
    if (full) return;
    const how = call.end;
    if (how === undefined) return;
    ended = true;
    resetWhenAnswered(stream);
    end(stream, protocol, undefined, how === 'ok' ? undefined : how);
    call.close();
  };

  /** Hands over what is there, one after another. */
  const pump = async (first: Envelope): Promise<void> => {
    busy = true;
    try {
      for (let next: Envelope | undefined = first; next !== undefined; next = envelopes.next()) {
        const { flags, bytes, release } = next;
        if ((flags & 1) === 1) {
          release?.();
          throw new ConnectError('received compressed envelope, but do not know how to decompress', Code.Internal);
        }
        if ((flags & protocol.skippedFlags) !== 0) {
          release?.();
          continue;
        }
        if (!(await call.take(readRequest(publishStreamRequestView, bytes, release)))) return stop();
      }
    } catch (thrown) {
      return stop({ thrown });
    }
    busy = false;
    if (requestEnded) finish();
    else if (stream.isPaused()) stream.resume();
  };

  /** Nothing more is read; what still comes is thrown away once the answer has ended. */
  const stop = (reason?: { thrown: unknown }): void => {
    stopped = true;
    stream.pause();
    envelopes.close();
    call.finish(reason);
  };

  const finish = (): void => {
    if (!envelopes.incomplete) call.finish();
    else stop({ thrown: new ConnectError('protocol error: incomplete envelope', Code.InvalidArgument) });
  };

  const deadline =
    options.timeout === undefined
      ? undefined
      : setTimeout(
          () => call.abort(new ConnectError('the operation timed out', Code.DeadlineExceeded)),
          options.timeout,
        );

  stream.on('drain', () => {
    full = false;
    flush();
  });
  begin(stream, protocol, options.answer);
  full = !stream.write(options.limits);
  stream.on('data', (chunk: Buffer) => {
    if (stopped) return;
    envelopes.push(chunk);
    if (busy) return void stream.pause();
    let next: Envelope | undefined;
    try {
      next = envelopes.next();
    } catch (thrown) {
      return stop({ thrown });
    }
    if (next !== undefined) void pump(next);
  });
  stream.on('end', () => {
    requestEnded = true;
    if (!busy && !stopped) finish();
  });
  return () => {
    clearTimeout(deadline);
    ended = true;
    stopped = true;
    call.close();
    envelopes.close();
  };
}

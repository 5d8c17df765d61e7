/**
 * PublishStream on an HTTP/2 stream: chunks in, answers out. stream-call.ts has the rules of the call; this file adds flow control.
 * While a batch waits for room, or the gateway holds too many unfinished bytes, it parks the stream. While the client does not read, it
 * writes nothing.
 *
 * It writes the answers of one turn of the event loop together at its end, for all streams. A JetStream ack often settles many batches,
 * and a write costs more than twenty answers.
 */
import type { ServerHttp2Stream } from 'node:http2';
import { toBinary } from '@bufbuild/protobuf';
import { Code, ConnectError } from '@connectrpc/connect';
import { type PublishStreamResponse, PublishStreamResponseSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import type { ErrorName } from '../../../lib/errors.js';
import { failpoint } from '../../../lib/failpoint.js';
import type { MessageBuffers } from '../../held/message-buffers.js';
import type { UnfinishedBytes } from '../../held/unfinished.js';
import { createUnreadWatch } from '../../held/unread-answers.js';
import { resetWhenAnswered } from '../../listener/answered-early.js';
import { cancelStream } from '../../listener/reset-stream.js';
import { openStreamCall, type StreamCall, type StreamCallOptions } from '../stream-call.js';
import { encodeAnswers, envelope } from './answers.js';
import { type AnswerOptions, begin, end, type Protocol } from './protocols.js';
import { StreamInput } from './stream-input.js';

export interface HotStreamOptions extends Omit<StreamCallOptions, 'wake' | 'isFull'> {
  readonly protocol: Protocol;
  readonly answer: AnswerOptions;
  /** ms from now. */
  readonly timeout: number | undefined;
  /** The first answer, encoded and in its envelope. */
  readonly limits: Buffer;
  readonly maxMessageBytes: number;
  readonly buffers: MessageBuffers;
  readonly unfinished: UnfinishedBytes;
  /** An error that did not come from `publish` ends the stream. */
  readonly onRefused: (name: ErrorName) => void;
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
  let flushing = false;
  let ended = false;

  const call: StreamCall = openStreamCall({
    ...options,
    wake: () => {
      if (flushing || ended) return;
      // The answer waits until the client reads: it counts at once.
      if (unread.full) {
        holdUnread();
        return;
      }
      flushing = true;
      atEndOfTurn(flush);
    },
    isFull: () => unread.full,
  });
  const input = new StreamInput(stream, options, call);
  const unread = createUnreadWatch(options.unfinished, options.call.caller.tenant, (reason) => {
    // It would not read an error either.
    if (ended) return;
    options.onRefused(reason.code);
    ended = true;
    call.abort(reason);
    cancelStream(stream);
  });

  const holdUnread = (): void => unread.hold(call.unread + stream.writableLength);

  const flush = (): void => {
    flushing = false;
    if (ended || stream.destroyed) return;
    while (!unread.full) {
      const bytes = encodeAnswers(call);
      if (bytes.length === 0) break;
      failpoint('gateway.before-answer');
      if (!stream.write(bytes)) unread.blocked();
      failpoint('gateway.after-answer');
    }
    if (unread.full) {
      holdUnread();
      return;
    }
    const how = call.end;
    if (how === undefined) return;
    ended = true;
    resetWhenAnswered(stream);
    end(stream, protocol, undefined, how === 'ok' ? undefined : how);
    call.close();
  };

  const deadline =
    options.timeout === undefined
      ? undefined
      : setTimeout(
          () => call.abort(new ConnectError('the operation timed out', Code.DeadlineExceeded)),
          options.timeout,
        );

  stream.on('drain', () => {
    unread.drained();
    flush();
  });
  begin(stream, protocol, options.answer);
  if (!stream.write(options.limits)) unread.blocked();
  return () => {
    clearTimeout(deadline);
    ended = true;
    unread.close();
    call.close();
    input.close();
  };
}

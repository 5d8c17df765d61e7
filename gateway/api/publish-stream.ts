/**
 * One PublishStream call: batches in, answers out as each is settled, in any order. The rules, for both shells around them:
 * the generator below, which the RPC library drives, and hot/stream.ts, which drives an HTTP/2 stream itself.
 *
 *   STREAM-1  Held bytes are bounded per stream. A batch counts from the moment it is read until the transport has its answer. So the
 *       gateway stops reading from a client that reads no answers, after 64 of them at the latest. Beyond the bound, and while the
 *       whole gateway has no room, it reads nothing: flow control does the rest.
 *   STREAM-2  A failed batch is an answer, also one whose JSON was refused while it was read. The stream ends for five reasons:
 *       the client is done, the connection ends, the key is revoked or the deadline has passed, the client's bytes are no
 *       message, or STREAM-5. But for a revoked key and a passed deadline, everything that was read is answered first.
 *   STREAM-3  Nothing is read before the caller is known (see routes.ts and hot/stream.ts).
 *   STREAM-4  A stream whose first message asks for durability COMMITTED hears how far the warehouse is (committed.ts), seldom and and
 *       never per batch. It is not read while too many of its batches are not committed, or of its tenant's (COMMIT-5), and once the
 *       client is done it stays open until they are, or for a while: what has no Committed at the end is for the client to send again.
 *       A batch that falls into doubt is answered a second time, as failed. Other streams pay nothing for it.
 *   STREAM-5  After 100 batches in a row of which nothing was stored through their own fault, the stream ends: a refusal costs the gateway as
 *       much as a batch, and its answer is longer than the request. Failures of the gateway or the log do not count.
 */
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import type { ConnectError } from '@connectrpc/connect';
import {
  Durability,
  type LimitsSchema,
  type PublishStreamResponse,
  PublishStreamResponseSchema,
} from '#gen/sluice/ingest/v1/ingest_pb.js';
import { type ErrorName, SluiceError } from '../../lib/errors.js';
import { type GatewayClock, systemClock } from '../clock.js';
import { classify, duration, explain, sentence, toBatchFailure, toConnectError } from '../errors/rpc-errors.js';
import type { UnfinishedBytes } from '../held/unfinished.js';
import type { CommitFollower, CommitWatch, Position } from '../ingest/committed.js';
import type { Ingest, IngestResult } from '../ingest/ingest.js';
import type { Connection } from '../listener/connection.js';
import { type BatchCall, type PublishBatch, toBatchResult } from './publish-batch.js';
import { RefusedRow } from './refused-row.js';
import type { BatchMessage } from './view.js';

export interface StreamCallOptions {
  readonly call: BatchCall;
  readonly connection: Connection;
  /** Calls back when the caller's key stops being valid. Returns the un-subscriber. */
  readonly onRevoked: (listener: () => void) => () => void;
  readonly maxBytesInFlight: number;
  /** Most batches not committed, where the client wants to hear of it. */
  readonly maxUncommitted: number;
  readonly publish: PublishBatch;
  readonly room: Ingest['room'];
  readonly commits: Pick<CommitWatch, 'follow'>;
  /** The stream ends with an error that is no batch's. */
  readonly onFailed: (name: ErrorName) => void;
  /** There is something to write, or to end. */
  readonly wake: () => void;
  /** The transport takes no more answers for now. */
  readonly isFull: () => boolean;
  /** Timers. @default those of the system */
  readonly schedule?: GatewayClock['schedule'];
}

/** What became of a batch, or news for the client. */
export type Answer =
  | { readonly case: 'accepted'; readonly value: IngestResult }
  | { readonly case: 'other'; readonly value: PublishStreamResponse['message'] };

export interface StreamCall {
  /** Publishes a batch, or promises to, as soon as there is room (STREAM-1). False: the stream is ending, read no more. */
  take(message: BatchMessage): boolean | Promise<boolean>;
  /** The client is done; with a reason: its bytes are no message. */
  finish(reason?: { readonly thrown: unknown }): void;
  /** The client is gone, or its deadline has passed. */
  abort(reason: unknown): void;
  /** The next answer. It counts as handed to the transport. */
  next(): Answer | undefined;
  /** What answers take that next() has not given yet, bytes, roughly. */
  readonly unread: number;
  /** How to end, once next() has nothing more. Undefined: the stream goes on. */
  readonly end: 'ok' | ConnectError | undefined;
  /** To be called in the end, whatever the end is. */
  close(): void;
}

/** Most batches of one stream without an answer: bounds what small batches cost beyond their bytes. */
const maxOpen = 1024;
/** Of these, most that are answered while the transport takes nothing. */
const maxUnread = 64;
/** What an answer may weigh, and each rejection in it, roughly. */
const answerBytes = 600;
const rejectionBytes = 200;
/** How long a stream whose client is done stays open for commits, ms. */
const commitPatienceMs = 60_000;
/** Of a drain's grace, how much passes before a stream ends without its commits. */
const drainPatience = 0.9;
/** After a doubt the log may need a moment, ms; clients add jitter of their own. */
const doubtRetryMs = 500;
/** After a row of refusals (STREAM-5), ms. */
const refusedRetryMs = 1_000;

export function openStreamCall(options: StreamCallOptions): StreamCall {
  const { call, connection, publish, wake, isFull, maxBytesInFlight, schedule = systemClock.schedule } = options;
  const { tenant } = call.caller;
  let outbox: { answer: Answer; charge: number; open: number }[] = [];
  let taken = 0;
  let rejections = 0;
  const stop = new AbortController();
  let held = 0;
  let open = 0;
  /** Of these, without an outcome yet. */
  let publishing = 0;
  let reading = true;
  /** Ends the stream at once. */
  let cut: ConnectError | undefined;
  /** Ends the stream when all is answered. */
  let failure: ConnectError | undefined;
  let wakeReader: (() => void) | undefined;
  /** Read so far, and of these, with a batch. */
  let messages = 0;
  let batches = 0;
  const refused = new RefusedRow();
  let follower: CommitFollower | undefined;
  let called: BatchCall = call;
  /** Ends without waiting for commits any more (STREAM-4). */
  let patient = true;
  let cancelPatience: (() => void) | undefined;

  const tell = (answer: Answer, charge: number, opened: number): void => {
    outbox.push({ answer, charge, open: opened });
    wake();
  };
  const stopReading = (): void => {
    if (!stop.signal.aborted) stop.abort(new Error('stream is ending'));
    reading = false;
    wakeReader?.();
    wake();
  };
  const cutWith = (error: ConnectError): void => {
    cut ??= error;
    stopReading();
  };

  const tellFailed = (batchId: string, error: SluiceError, charge: number, opened: number): void => {
    // An id that is no id may be as long as a request.
    const value = create(PublishStreamResponseSchema, {
      message: { case: 'failed', value: toBatchFailure(batchId.slice(0, 64), error) },
    }).message;
    tell({ case: 'other', value }, charge, opened);
  };

  const outcomeOf = (message: BatchMessage): Promise<IngestResult> => {
    const { refusal, batchId } = message;
    if (refusal !== undefined) return Promise.reject(batchId === '' ? placed(refusal, messages) : refusal);
    return publish(called, message);
  };

  /** STREAM-5. @param why of the last one */
  const countRefused = (place: number, why: string): void => {
    if (!refused.add(place) || failure !== undefined) return;
    failure = toConnectError(tooManyRefusals(why));
    options.onFailed('too_many_refusals');
    stopReading();
  };

  const start = (message: BatchMessage): void => {
    const bytes = message.batch.length;
    const place = ++batches;
    held += bytes;
    open++;
    publishing++;
    outcomeOf(message).then(
      (result) => {
        publishing--;
        message.release?.();
        const more = result.rejections.length * rejectionBytes;
        rejections += more;
        held += more;
        const { batchId, position } = result;
        const tellAccepted = (value: IngestResult): void => tell({ case: 'accepted', value }, bytes + more, 1);
        if (position === undefined || follower === undefined) tellAccepted(result);
        else
          follower.accepted(batchId, position, (place) =>
            tellAccepted({ ...result, position: placeOf(position, place) }),
          );
        if (result.accepted === 0) countRefused(place, noValidEvent(result));
      },
      (reason: unknown) => {
        publishing--;
        message.release?.();
        wakeReader?.();
        const error = reason instanceof SluiceError ? reason : new SluiceError('internal', 'The gateway failed.');
        tellFailed(message.batchId, error, bytes, 1);
        if (!error.row.retryable && error.code !== 'internal') countRefused(place, explain(error));
      },
    );
  };

  /** STREAM-4. */
  const follow = (): CommitFollower =>
    options.commits.follow(tenant, {
      committed({ shard, place }) {
        const upTo = { shard, sequence: BigInt(place) };
        const { message } = create(PublishStreamResponseSchema, { message: { case: 'committed', value: { upTo } } });
        tell({ case: 'other', value: message }, 0, 0);
        wakeReader?.();
      },
      doubted(batchIds) {
        const error = new SluiceError('outcome_unknown', 'The log may have lost the batch after it took it.', {
          outcomeUnknown: true,
          retryAfterMs: doubtRetryMs,
        });
        for (const batchId of batchIds) tellFailed(batchId, error, 0, 0);
        wakeReader?.();
      },
    });

  const endPatience = (): void => {
    patient = false;
    wake();
  };

  /** STREAM-1, STREAM-4. */
  const mustWait = (bytes: number): boolean =>
    (open > 0 && (held + bytes > maxBytesInFlight || open >= maxOpen)) ||
    (outbox.length - taken >= maxUnread && isFull()) ||
    (follower !== undefined && (follower.full || follower.uncommitted + publishing >= options.maxUncommitted));

  /** @param room in the gateway as a whole; undefined: it is to be asked for */
  const takeLater = async (message: BatchMessage, room?: Promise<void>): Promise<boolean> => {
    const bytes = message.batch.length;
    while (reading && room === undefined && mustWait(bytes)) {
      await new Promise<void>((resolve) => {
        wakeReader = resolve;
      });
    }
    try {
      // Rejects only when the stream is ending.
      if (reading) await (room ?? options.room(tenant, bytes, stop.signal));
      else await room;
    } catch {}
    if (reading) start(message);
    else message.release?.();
    return reading;
  };

  let cancelEnd: (() => void) | undefined;
  const unsubscribe = [
    connection.onEnding(({ reason, graceMs }) => {
      const { message } = create(PublishStreamResponseSchema, {
        message: { case: 'draining', value: { reason, grace: duration(graceMs / 2) } },
      });
      tell({ case: 'other', value: message }, 0, 0);
      // The other half is for what is still to be answered.
      cancelEnd = schedule(stopReading, graceMs / 2);
      cancelPatience?.();
      cancelPatience = schedule(endPatience, graceMs * drainPatience);
    }),
    options.onRevoked(() => cutWith(toConnectError(new SluiceError('key_unknown', 'The key has been revoked.')))),
  ];

  return {
    take(message) {
      messages++;
      // A message may carry options alone.
      if (messages === 1 && message.durability === Durability.COMMITTED) {
        follower = follow();
        called = { ...call, follows: true };
      }
      if (message.durability !== undefined && isEmpty(message)) {
        message.release?.();
        return reading;
      }
      const bytes = message.batch.length;
      if (!reading || mustWait(bytes)) return takeLater(message);
      const room = options.room(tenant, bytes, stop.signal);
      if (room !== undefined) return takeLater(message, room);
      start(message);
      return reading;
    },
    finish(reason) {
      if (reading && reason !== undefined) failure = unreadable(reason.thrown, messages + 1);
      reading = false;
      if (follower !== undefined) cancelPatience ??= schedule(endPatience, commitPatienceMs);
      wake();
    },
    abort(reason) {
      cutWith(classify(reason).rpc);
    },
    next() {
      if (cut !== undefined || taken === outbox.length) return undefined;
      const { answer, charge, open: opened } = outbox[taken++] as (typeof outbox)[number];
      if (taken === outbox.length || taken === maxOpen) {
        outbox = outbox.slice(taken);
        taken = 0;
      }
      held -= charge;
      open -= opened;
      if (answer.case === 'accepted') rejections -= answer.value.rejections.length * rejectionBytes;
      wakeReader?.();
      return answer;
    },
    get unread() {
      return (outbox.length - taken) * answerBytes + rejections;
    },
    get end() {
      if (cut !== undefined) return cut;
      if (reading || open > 0) return undefined;
      if (failure === undefined && patient && follower !== undefined && follower.uncommitted > 0) return undefined;
      return failure ?? 'ok';
    },
    close() {
      stopReading();
      cancelEnd?.();
      cancelPatience?.();
      follower?.close();
      for (const leave of unsubscribe) leave();
    },
  };
}

export interface PublishStreamOptions extends Omit<StreamCallOptions, 'wake' | 'isFull'> {
  readonly requests: AsyncIterable<BatchMessage>;
  /** Aborts when the client is gone or the deadline has passed. */
  readonly signal: AbortSignal;
  readonly limits: MessageInitShape<typeof LimitsSchema>;
  /** Counts answers that the client does not read. */
  readonly unfinished: UnfinishedBytes;
}

/** The call as the RPC library wants it. */
export async function* publishStream(options: PublishStreamOptions): AsyncGenerator<PublishStreamResponse> {
  const { signal } = options;
  /** Undefined: an answer is on its way to the transport. */
  let wakeWriter: (() => void) | undefined;
  const stream = openStreamCall({
    ...options,
    wake: () => {
      if (wakeWriter === undefined) unread.hold(stream.unread, 0);
      else wakeWriter();
    },
    isFull: () => wakeWriter === undefined,
  });
  const unread = options.unfinished.open(options.call.caller.tenant, {
    pause() {},
    resume() {},
    refuse: (reason) => stream.abort(reason),
  });
  unread.wait();
  const onAbort = (): void => stream.abort(signal.reason);
  signal.addEventListener('abort', onAbort, { once: true });

  const read = async (): Promise<void> => {
    for await (const message of options.requests) {
      if (!(await stream.take(message))) return;
    }
  };

  try {
    yield create(PublishStreamResponseSchema, { message: { case: 'limits', value: options.limits } });
    if (signal.aborted) onAbort();
    read().then(
      () => stream.finish(),
      (thrown: unknown) => stream.finish({ thrown }),
    );
    for (;;) {
      wakeWriter = undefined;
      for (let next = stream.next(); next !== undefined; next = stream.next()) yield toMessage(next);
      unread.hold(0, 0);
      const { end } = stream;
      if (end === 'ok') return;
      if (end !== undefined) throw end;
      await new Promise<void>((resolve) => {
        wakeWriter = resolve;
      });
    }
  } finally {
    stream.close();
    unread.close();
    signal.removeEventListener('abort', onAbort);
  }
}

/** The end of a stream, for a message that cannot be read. @param place from 1 */
function unreadable(thrown: unknown, place: number): ConnectError {
  const { rpc, row } = classify(thrown);
  if (row === undefined || row.code === 'internal') return rpc;
  return toConnectError(placed(row, place));
}

/** A message without a batch_id that could be named is named by its place, from 1. */
function placed({ code, field, message }: SluiceError, place: number): SluiceError {
  const more = field === undefined ? {} : { field };
  return new SluiceError(code, `Message ${place} of the stream: ${message}`, more);
}

/** It carries no batch, not even one of which nothing is left. */
const isEmpty = ({ batch, batchId, findings, refusal }: BatchMessage): boolean =>
  batch.length === 0 && batchId === '' && findings === undefined && refusal === undefined;

/** What the client gets in place of the log's own position (COMMIT-6). */
const placeOf = ({ shard }: Position, place: number): Position => ({ stream: '', shard, sequence: BigInt(place) });

const tooManyRefusals = (last: string): SluiceError =>
  new SluiceError('too_many_refusals', `The last 100 batches of this stream were refused, the last one so: ${last}`, {
    retryAfterMs: refusedRetryMs,
  });

function noValidEvent({ rejected, rejections: [first] }: IngestResult): string {
  const example = first === undefined ? '' : ` Event ${first.index}, ${first.field}: ${sentence(first.message)}`;
  return `None of its ${rejected} events is valid.${example}`;
}

/** An answer as the contract's message. */
export function toMessage(answer: Answer): PublishStreamResponse {
  return {
    $typeName: 'sluice.ingest.v1.PublishStreamResponse',
    message: answer.case === 'accepted' ? { case: 'accepted', value: toBatchResult(answer.value) } : answer.value,
  };
}

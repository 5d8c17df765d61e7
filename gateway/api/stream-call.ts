/**
 * One PublishStream call: batches in, answers out as each is settled, in any order. The rules, for both shells around them:
 * publish-stream.ts, which the RPC library drives, and hot/stream.ts, which drives an HTTP/2 stream itself.
 *
 *   STREAM-1  Held bytes are bounded per stream. A batch counts from the moment it is read until the transport has its answer. So the
 *       gateway stops reading from a client that reads no answers, after 64 of them or 64 KiB at the latest. Beyond the bound, and while the
 *       whole gateway has no room, it reads nothing: flow control does the rest.
 *   STREAM-2  A failed batch is an answer, also one whose JSON was refused while it was read. The stream ends for five reasons:
 *       the client is done, the connection ends, the key is revoked or the deadline has passed, the client's bytes are no
 *       message, or STREAM-5. But for a revoked key and a passed deadline, everything that was read is answered first.
 *   STREAM-3  Nothing is read before the caller is known (see routes.ts and hot/stream.ts).
 *   STREAM-4  A stream whose first message asks for durability COMMITTED hears how far ClickHouse is (committed.ts), seldom and
 *       never per batch. It is not read while too many of its batches are not committed, or of its tenant's (COMMIT-5), and once the
 *       client is done it stays open until they are, or for a while: what has no Committed at the end is for the client to send again.
 *       A batch that falls into doubt is answered a second time, as failed. Other streams pay nothing for it.
 *   STREAM-5  After 100 batches in a row of which nothing was stored through their own fault, the stream ends: a refusal costs the gateway as
 *       much as a batch, and its answer is longer than the request. Failures of the gateway or the log do not count.
 */
import { create } from '@bufbuild/protobuf';
import type { ConnectError } from '@connectrpc/connect';
import {
  Durability,
  type PublishStreamResponse,
  PublishStreamResponseSchema,
} from '#gen/sluice/ingest/v1/ingest_pb.js';
import { type ErrorName, SluiceError } from '../../lib/errors.js';
import { KiB } from '../../lib/units.js';
import { type GatewayClock, systemClock } from '../clock.js';
import { classify, duration, explain, sentence, toBatchFailure, toConnectError } from '../errors/rpc-errors.js';
import type { CommitWatch } from '../ingest/committed.js';
import type { Ingest, IngestResult } from '../ingest/ingest.js';
import type { Connection } from '../listener/connection.js';
import type { BatchCall, PublishBatch } from './publish-batch.js';
import { RefusedRow } from './refused-row.js';
import { StreamCommits } from './stream-commits.js';
import { type Answer, StreamOutbox } from './stream-outbox.js';
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
  readonly after?: GatewayClock['after'];
}

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
const maxUnreadBytes = 64 * KiB;
/** After a doubt the log may need a moment, ms; clients add jitter of their own. */
const doubtRetryMs = 500;
/** After a row of refusals (STREAM-5), ms. */
const refusedRetryMs = 1_000;

/**
 * How far a call is.
 *
 *   reading   its client may send more
 *   ending    nothing more is read; it ends when all is answered: well, or with a failure
 *   aborted   it ends at once
 */
type Phase =
  | { readonly is: 'reading' }
  | { readonly is: 'ending'; readonly failure: ConnectError | undefined }
  | { readonly is: 'aborted'; readonly error: ConnectError };

export const openStreamCall = (options: StreamCallOptions): StreamCall => new OpenCall(options);

class OpenCall implements StreamCall {
  readonly #options: StreamCallOptions;
  readonly #after: GatewayClock['after'];
  readonly #tenant: string;
  readonly #outbox = new StreamOutbox();
  readonly #commits: StreamCommits;
  readonly #refused = new RefusedRow();
  /** Ends waits for room in the gateway. */
  readonly #stop = new AbortController();
  readonly #unsubscribe: readonly (() => void)[];
  #call: BatchCall;
  #phase: Phase = { is: 'reading' };
  /** Of open batches, those without an outcome yet. */
  #publishing = 0;
  /** Read so far, and of these, with a batch. */
  #messages = 0;
  #batches = 0;
  #wakeReader: (() => void) | undefined;
  #cancelEnd: (() => void) | undefined;

  constructor(options: StreamCallOptions) {
    const { call, connection, commits, maxUncommitted, after = systemClock.after } = options;
    this.#options = options;
    this.#after = after;
    this.#call = call;
    this.#tenant = call.caller.tenant;
    this.#commits = new StreamCommits({
      tenant: this.#tenant,
      commits,
      maxUncommitted,
      after,
      onImpatient: options.wake,
    });
    this.#unsubscribe = [
      connection.onEnding(({ reason, graceMs }) => this.#drain(reason, graceMs)),
      options.onRevoked(() => this.#abort(toConnectError(new SluiceError('key_unknown', 'The key has been revoked.')))),
    ];
  }

  take(message: BatchMessage): boolean | Promise<boolean> {
    this.#messages++;
    // A message may carry options alone.
    if (this.#messages === 1 && message.durability === Durability.COMMITTED) this.#follow();
    if (message.durability !== undefined && isEmpty(message)) {
      message.release?.();
      return this.#isReading;
    }
    const bytes = message.batch.length;
    if (!this.#isReading || this.#mustWait(bytes)) return this.#takeLater(message);
    const room = this.#options.room(this.#tenant, bytes, this.#stop.signal);
    if (room !== undefined) return this.#takeLater(message, room);
    this.#start(message);
    return this.#isReading;
  }

  finish(reason?: { readonly thrown: unknown }): void {
    if (this.#phase.is === 'reading') {
      const failure = reason === undefined ? undefined : unreadable(reason.thrown, this.#messages + 1);
      this.#phase = { is: 'ending', failure };
    }
    this.#commits.finish();
    this.#options.wake();
  }

  abort(reason: unknown): void {
    this.#abort(classify(reason).rpc);
  }

  next(): Answer | undefined {
    if (this.#phase.is === 'aborted') return undefined;
    const answer = this.#outbox.take();
    if (answer !== undefined) this.#wakeReader?.();
    return answer;
  }

  get unread(): number {
    return this.#outbox.bytes;
  }

  get end(): 'ok' | ConnectError | undefined {
    const phase = this.#phase;
    if (phase.is === 'aborted') return phase.error;
    if (phase.is === 'reading' || this.#outbox.open > 0) return undefined;
    return phase.failure ?? (this.#commits.keepOpen ? undefined : 'ok');
  }

  close(): void {
    this.#stopReading();
    this.#outbox.close();
    this.#cancelEnd?.();
    this.#commits.close();
    for (const leave of this.#unsubscribe) leave();
  }

  get #isReading(): boolean {
    return this.#phase.is === 'reading';
  }

  #stopReading(failure?: ConnectError): void {
    const phase = this.#phase;
    if (phase.is === 'reading') this.#phase = { is: 'ending', failure };
    else if (phase.is === 'ending' && phase.failure === undefined) this.#phase = { is: 'ending', failure };
    this.#wakeAll();
  }

  #abort(error: ConnectError): void {
    if (this.#phase.is !== 'aborted') this.#phase = { is: 'aborted', error };
    this.#outbox.close();
    this.#wakeAll();
  }

  /** What waits for room, and the transport, look at the phase again. */
  #wakeAll(): void {
    if (!this.#stop.signal.aborted) this.#stop.abort(new Error('stream is ending'));
    this.#wakeReader?.();
    this.#options.wake();
  }

  #tell(message: PublishStreamResponse['message']): void {
    this.#outbox.tell({ case: 'other', value: message });
    this.#options.wake();
  }

  /** STREAM-1, STREAM-4. */
  #mustWait(bytes: number): boolean {
    const { open, heldBytes, length, bytes: unread } = this.#outbox;
    const { maxBytesInFlight, isFull } = this.#options;
    return (
      (open > 0 && (heldBytes + bytes > maxBytesInFlight || open >= maxOpen)) ||
      ((length >= maxUnread || unread >= maxUnreadBytes) && isFull()) ||
      this.#commits.mustWait(this.#publishing)
    );
  }

  /** @param room in the gateway as a whole; undefined: it is to be asked for */
  async #takeLater(message: BatchMessage, room?: Promise<void>): Promise<boolean> {
    const bytes = message.batch.length;
    while (this.#isReading && room === undefined && this.#mustWait(bytes)) {
      await new Promise<void>((resolve) => {
        this.#wakeReader = resolve;
      });
    }
    try {
      // Rejects only when the stream is ending.
      if (this.#isReading) await (room ?? this.#options.room(this.#tenant, bytes, this.#stop.signal));
      else await room;
    } catch {}
    if (this.#isReading) this.#start(message);
    else message.release?.();
    return this.#isReading;
  }

  #start(message: BatchMessage): void {
    const place = ++this.#batches;
    this.#outbox.begin(message.batch.length);
    this.#publishing++;
    this.#outcomeOf(message).then(
      (result) => this.#accepted(message, place, result),
      (reason: unknown) => this.#failed(message, place, reason),
    );
  }

  #outcomeOf(message: BatchMessage): Promise<IngestResult> {
    const { refusal, batchId } = message;
    if (refusal === undefined) return this.#options.publish(this.#call, message);
    return Promise.reject(batchId === '' ? placed(refusal, this.#messages) : refusal);
  }

  #accepted({ release, batch }: BatchMessage, place: number, result: IngestResult): void {
    this.#publishing--;
    release?.();
    this.#commits.accepted(result, (value) => {
      this.#outbox.answer({ case: 'accepted', value }, batch.length);
      this.#options.wake();
    });
    if (result.accepted === 0) this.#countRefused(place, noValidEvent(result));
  }

  #failed({ release, batch, batchId }: BatchMessage, place: number, reason: unknown): void {
    this.#publishing--;
    release?.();
    this.#wakeReader?.();
    const error = reason instanceof SluiceError ? reason : new SluiceError('internal', 'The gateway failed.');
    this.#outbox.answer({ case: 'other', value: failed(batchId, error) }, batch.length);
    this.#options.wake();
    if (!error.row.retryable && error.code !== 'internal') this.#countRefused(place, explain(error));
  }

  /** STREAM-5. @param why of the last one */
  #countRefused(place: number, why: string): void {
    const phase = this.#phase;
    if (!this.#refused.add(place) || (phase.is === 'ending' && phase.failure !== undefined)) return;
    this.#options.onFailed('too_many_refusals');
    this.#stopReading(toConnectError(tooManyRefusals(why)));
  }

  /** STREAM-4. */
  #follow(): void {
    this.#call = { ...this.#call, follows: true };
    this.#commits.follow({
      committed: ({ shard, place }) => {
        const upTo = { shard, sequence: BigInt(place) };
        this.#tell(create(PublishStreamResponseSchema, { message: { case: 'committed', value: { upTo } } }).message);
        this.#wakeReader?.();
      },
      doubted: (batchIds) => {
        const error = new SluiceError('outcome_unknown', 'The log may have lost the batch after it took it.', {
          outcomeUnknown: true,
          retryAfterMs: doubtRetryMs,
        });
        for (const batchId of batchIds) this.#tell(failed(batchId, error));
        this.#wakeReader?.();
      },
    });
  }

  #drain(reason: string, graceMs: number): void {
    const value = { reason, grace: duration(graceMs / 2) };
    this.#tell(create(PublishStreamResponseSchema, { message: { case: 'draining', value } }).message);
    // The other half is for what is still to be answered.
    this.#cancelEnd = this.#after(graceMs / 2, () => this.#stopReading());
    this.#commits.drain(graceMs);
  }
}

/** An id that is no id may be as long as a request. */
const failed = (batchId: string, error: SluiceError): PublishStreamResponse['message'] =>
  create(PublishStreamResponseSchema, {
    message: { case: 'failed', value: toBatchFailure(batchId.slice(0, 64), error) },
  }).message;

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

const tooManyRefusals = (last: string): SluiceError =>
  new SluiceError('too_many_refusals', `The last 100 batches of this stream were refused. The last reason: ${last}`, {
    retryAfterMs: refusedRetryMs,
  });

function noValidEvent({ rejected, rejections: [first] }: IngestResult): string {
  const example = first === undefined ? '' : ` Event ${first.index}, ${first.field}: ${sentence(first.message)}`;
  return `None of its ${rejected} events is valid.${example}`;
}

/**
 * Publish on an HTTP/2 stream: one message in, one answer out.
 *
 * Each call has one object. All streams share the listeners, which find the object by a symbol. Half of a call's cost is Node's HTTP/2;
 * closures, listeners and timers of our own were most of the rest (docs/performance.md).
 *
 * Nearly all calls are whole in the turn of the event loop in which they begin, and their stream closes soon after their answer. So a
 * call is read at once. A call that is not whole when the turn ends takes a seat or waits for one; from then on its bytes and its
 * silence count.
 */
import type { IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import { Code, ConnectError } from '@connectrpc/connect';
import type { ErrorName, SluiceError } from '../../../lib/errors.js';
import type { Caller } from '../../../lib/tenants.js';
import { classify } from '../../errors/rpc-errors.js';
import type { CallGate, GatedCall } from '../../held/call-gate.js';
import { detached } from '../../held/held-bytes.js';
import { GrowingMessage, type MessageBuffers } from '../../held/message-buffers.js';
import { ParkedInput } from '../../held/parked-input.js';
import {
  type BodyOwner,
  bodySilent,
  silentMs,
  type UnfinishedBody,
  type UnfinishedBytes,
} from '../../held/unfinished.js';
import type { Deadlines } from '../../ingest/deadlines.js';
import type { IngestResult } from '../../ingest/ingest.js';
import { resetWhenAnswered } from '../../listener/answered-early.js';
import type { Connection } from '../../listener/connection.js';
import { takeOver } from '../../listener/connection-entry.js';
import { endWhenUnread } from '../../listener/unread-calls.js';
import { requestLate } from '../call-timeout.js';
import type { BatchCall, PublishBatch } from '../publish-batch.js';
import { type BatchMessage, publishRequestView } from '../view.js';
import { encodeResponse } from './answers.js';
import { type Envelope, Envelopes, tooLarge } from './envelopes.js';
import { type AnswerOptions, answerUnary, begin, end, type Protocol, refuseUnary } from './protocols.js';
import { readRequest } from './request.js';

/** What all calls share. */
export interface UnaryOptions {
  /** Throws when the caller is not known. Asked before anything is read. */
  readonly authorize: (headers: IncomingHttpHeaders, connection: Connection) => Caller;
  /** Once all is read. Throws when the caller is known no more. */
  readonly call: (headers: IncomingHttpHeaders, connection: Connection, deadlineAt: number | undefined) => BatchCall;
  readonly publish: PublishBatch;
  readonly gate: CallGate;
  /** When to look after a call again, until its request is whole. */
  readonly deadlines: Deadlines<UnaryCall>;
  readonly unfinished: UnfinishedBytes;
  readonly maxMessageBytes: number;
  readonly buffers: MessageBuffers;
  /** An error that did not come from `publish` was answered. */
  readonly onRefused: (name: ErrorName) => void;
}

const callKey = Symbol('call');
type CallStream = ServerHttp2Stream & { [callKey]?: UnaryCall };

function onData(this: CallStream, chunk: Buffer): void {
  this[callKey]?.data(chunk);
}
function onEnd(this: CallStream): void {
  this[callKey]?.end();
}

const noBytes = Buffer.alloc(0);

/** The end of most streams follows their answer within so many turns of the event loop. */
const turnsToClose = 2;

/** To look at when this turn of the event loop is over: calls that have begun in it, got bytes, or were answered. */
let thisTurn: UnaryCall[] = [];

function lookAtEndOfTurn(call: UnaryCall): void {
  if (thisTurn.push(call) === 1) setImmediate(endTurn);
}

function endTurn(): void {
  const calls = thisTurn;
  thisTurn = [];
  for (const call of calls) call.turnEnded();
}

/** A call from its headers on. Its owner says when its stream has closed. */
export class UnaryCall implements GatedCall, BodyOwner {
  tenant = '';
  /** The answer is on its way, or can no more be: what still comes is thrown away. */
  #done = false;
  /**
   *   none      it needs none, or none yet
   *   waiting   in the gate's line
   *   taken     it has one, or had one
   */
  #seat: 'none' | 'waiting' | 'taken' = 'none';
  /** Bytes of a request that needs no seat, while the core has it (GATE-4). */
  #seatless = 0;
  /** The request is whole, and waits for a seat. */
  #whole = false;
  /** The budget has no room for more of it. */
  #crowded = false;
  #message: BatchMessage | undefined;
  #messageBytes = 0;
  #envelopes: Envelopes | undefined;
  /** Without envelopes: a first chunk, or all chunks once there are more or a turn has ended. */
  #first: Buffer | undefined;
  #growing: GrowingMessage | undefined;
  #size = 0;
  /** To be looked at when this turn is over. */
  #listed = false;
  #body: UnfinishedBody | undefined;
  #parked: ParkedInput | undefined;
  #deadlineAt: number | undefined;
  /** Since when a byte is due, on the clock of Date.now(). */
  #quietSince = 0;
  /** In `deadlines`. */
  #bucket: number | undefined;
  #answered = false;
  /** Since the answer, up to `turnsToClose`. */
  #turns = 0;

  /** @param timeout ms from `arrive` on */
  constructor(
    private readonly stream: ServerHttp2Stream,
    private readonly headers: IncomingHttpHeaders,
    private readonly connection: Connection,
    private readonly protocol: Protocol,
    private readonly timeout: number | undefined,
    private readonly answer: AnswerOptions,
    private readonly options: UnaryOptions,
  ) {}

  /** Who calls is asked before the call takes a seat or waits for one. */
  arrive(): void {
    const { headers, options, timeout } = this;
    try {
      this.tenant = options.authorize(headers, this.connection).tenant;
      const length = headers['content-length'];
      if (!this.protocol.enveloped && length !== undefined && Number(length) > options.maxMessageBytes) {
        throw tooLarge(Number(length), options.maxMessageBytes);
      }
    } catch (reason) {
      this.#fail(reason, true);
      return;
    }
    if (timeout === 0) {
      this.#fail(requestLate(), true, false);
      return;
    }
    if (timeout !== undefined) this.#deadlineAt = Date.now() + timeout;
    this.#look();
    const { stream } = this;
    (stream as CallStream)[callKey] = this;
    stream.on('data', onData);
    stream.on('end', onEnd);
    // Node ends an empty request that has to wait before anybody listens.
    if (stream.readableEnded) this.end();
  }

  enter(): void {
    this.#seat = 'taken';
    if (this.#whole) {
      this.#publish();
    } else if (this.#parked !== undefined) {
      this.#quietSince = Date.now();
      this.#body?.go();
      this.#flow();
    }
  }

  get received(): number | undefined {
    return this.#done || this.#whole ? undefined : this.#size;
  }

  pause(): void {
    this.#crowded = true;
    this.#flow();
  }

  resume(): void {
    this.#crowded = false;
    this.#flow();
  }

  refuse(error: SluiceError): void {
    if (!this.#done) this.#fail(error, true);
  }

  /** Reads on, or parks what comes: without a seat, or without room. */
  #flow(): void {
    const reads = (this.#seat === 'taken' && !this.#crowded) || this.#done || this.#whole;
    if (reads && this.#parked !== undefined) {
      const parked = this.#parked;
      this.#parked = undefined;
      parked.resume();
    } else if (!reads && this.#parked === undefined) {
      this.#parked = new ParkedInput(this.stream, this.stream, (came) => this.#count(came));
    }
  }

  /** Its bytes count as unfinished from now on. */
  #count(came: number): void {
    if (this.#done) return;
    if (this.#body === undefined) {
      this.#body = this.options.unfinished.open(this.tenant, this);
      if (this.#seat !== 'taken') this.#body.wait();
    }
    const parts = (this.#growing?.held ?? 0) + (this.#envelopes?.held ?? 0) + this.#messageBytes;
    this.#body.hold(parts + (this.#parked?.bytes ?? 0), came);
  }

  #look(): void {
    if (this.#listed) return;
    this.#listed = true;
    lookAtEndOfTurn(this);
  }

  /** Of the event loop: what is not over by now is looked after. */
  turnEnded(): void {
    this.#listed = false;
    if (this.#answered) this.#awaitClose();
    else if (!this.#done) this.#awaitBody();
  }

  /** What has come is not all, or waits for a seat. */
  #awaitBody(): void {
    if (this.#bucket === undefined) {
      const now = Date.now();
      this.#quietSince = now;
      this.#lookAgain(Math.min(this.#deadlineAt ?? Number.POSITIVE_INFINITY, now + silentMs));
    }
    if (this.#seat === 'none') this.#takeSeat();
    if (this.#done) return;
    if (this.#body === undefined && this.#size > 0) {
      if (this.#first !== undefined) this.#grow(this.#first);
      this.#first = undefined;
      this.#count(this.#size);
    }
    this.#flow();
  }

  #takeSeat(): void {
    this.#seat = 'waiting';
    this.options.gate.pass(this);
  }

  #leaveSeat(): void {
    const { gate } = this.options;
    if (this.#seat !== 'none') gate.leave(this);
    else if (this.#seatless > 0) gate.skipped(this.#seatless);
    this.#seatless = 0;
  }

  #grow(chunk: Buffer): void {
    const { buffers, maxMessageBytes, unfinished } = this.options;
    this.#growing ??= new GrowingMessage(buffers, maxMessageBytes, () => unfinished.roomy);
    this.#growing.append(chunk, 0, chunk.length);
  }

  data(chunk: Buffer): void {
    if (this.#done) return;
    try {
      this.#size += chunk.length;
      if (this.protocol.enveloped) this.#envelope(chunk);
      else this.#part(chunk);
    } catch (reason) {
      this.#fail(reason, true);
      return;
    }
    if (this.#body !== undefined) {
      this.#count(chunk.length);
    } else {
      this.#look();
    }
  }

  #part(chunk: Buffer): void {
    const { maxMessageBytes } = this.options;
    if (this.#size > maxMessageBytes) throw tooLarge(undefined, maxMessageBytes);
    if (this.#size === chunk.length) {
      this.#first = chunk;
      return;
    }
    if (this.#first !== undefined) this.#grow(this.#first);
    this.#first = undefined;
    this.#grow(chunk);
  }

  #envelope(chunk: Buffer): void {
    const { maxMessageBytes, buffers, unfinished } = this.options;
    if (this.#envelopes === undefined) {
      // The rule: one chunk, one message.
      const size = chunk.length - 5;
      const flags = chunk[0] as number;
      const plain = (flags & this.protocol.reservedFlags) === 0;
      if (plain && size >= 0 && size <= maxMessageBytes && chunk.readUInt32BE(1) === size) {
        this.#take(flags, detached(chunk.subarray(5)), undefined);
        return;
      }
      this.#envelopes = new Envelopes(maxMessageBytes, this.protocol.reservedFlags, buffers, () => unfinished.roomy);
    }
    const envelopes = this.#envelopes;
    envelopes.push(chunk);
    // All of a chunk before the first is looked at, as the library does: a bad head wins over a bad message before it.
    const all: Envelope[] = [];
    for (let next = envelopes.next(); next !== undefined; next = envelopes.next()) all.push(next);
    for (const { flags, bytes, release } of all) this.#take(flags, bytes, release);
  }

  #take(flags: number, bytes: Buffer, release: Envelope['release']): void {
    if ((flags & 1) === 1) {
      release?.();
      throw new ConnectError('received compressed envelope, but do not know how to decompress', Code.Internal);
    }
    if ((flags & this.protocol.skippedFlags) !== 0) {
      release?.();
      return;
    }
    const read = readRequest(publishRequestView, bytes, release);
    if (this.#message !== undefined) {
      read.release?.();
      throw new ConnectError('Publish takes one message.', Code.InvalidArgument);
    }
    this.#message = read;
    this.#messageBytes = bytes.length;
  }

  end(): void {
    if (this.#done) return;
    try {
      if (!this.protocol.enveloped) {
        this.#message = this.#wholeBody();
        this.#messageBytes = this.#size;
      } else if (this.#envelopes?.incomplete === true) {
        throw new ConnectError('protocol error: incomplete envelope', Code.InvalidArgument);
      } else if (this.#message === undefined) {
        throw new ConnectError('Publish takes a message.', Code.InvalidArgument);
      }
    } catch (reason) {
      this.#fail(reason, true);
      return;
    }
    if (this.#seat === 'none' && this.options.gate.skip(this.#size)) this.#seatless = this.#size;
    if (this.#seat === 'taken' || this.#seatless > 0) {
      this.#publish();
      return;
    }
    this.#whole = true;
    if (this.#seat === 'none') this.#takeSeat();
  }

  #publish(): void {
    let call: BatchCall;
    try {
      call = this.options.call(this.headers, this.connection, this.#deadlineAt);
    } catch (reason) {
      this.#fail(reason, false);
      return;
    }
    this.#done = true;
    takeOver(this.stream);
    this.options.publish(call, this.#message as BatchMessage).then(
      (result) => this.#succeed(result),
      (reason: unknown) => this.#fail(reason, false),
    );
    // Admission counts it now.
    this.#body?.close();
  }

  #wholeBody(): BatchMessage {
    const first = this.#first;
    this.#first = undefined;
    if (first !== undefined) return readRequest(publishRequestView, detached(first), undefined);
    const growing = this.#growing;
    this.#growing = undefined;
    if (growing === undefined) return readRequest(publishRequestView, noBytes, undefined);
    const { bytes, release } = growing.take();
    return readRequest(publishRequestView, bytes, release);
  }

  #lookAgain(at: number): void {
    this.#bucket = this.options.deadlines.add(this, at);
  }

  /** It is time to look after the call: its deadline has passed, or its request is silent. */
  expired(): void {
    this.#bucket = undefined;
    const now = Date.now();
    // The core looks after batches that wait for the log.
    if (this.#done) return;
    if (this.#deadlineAt !== undefined && now >= this.#deadlineAt) {
      this.#fail(requestLate(), true, false);
    } else if (this.#seat === 'taken' && this.#body === undefined && now >= this.#quietSince + silentMs) {
      this.#fail(bodySilent(), true);
    } else {
      this.#lookAgain(
        Math.min(this.#deadlineAt ?? Number.POSITIVE_INFINITY, Math.max(now, this.#quietSince) + silentMs),
      );
    }
  }

  /** The stream is over, or the client does not read the answer (unread-calls.ts). */
  #awaitClose(): void {
    if (this.stream.destroyed) return;
    if (++this.#turns < turnsToClose) this.#look();
    else endWhenUnread(this.stream, this.tenant, () => this.options.onRefused('answers_unread'));
  }

  /** The stream is over; before its request was whole when nothing has been answered. */
  closed(): void {
    if (this.#seat !== 'none') this.options.gate.leave(this);
    if (this.#bucket !== undefined) this.options.deadlines.remove(this, this.#bucket);
    this.#bucket = undefined;
    if (this.#done) return;
    this.#done = true;
    this.#release();
  }

  #release(): void {
    this.#message?.release?.();
    this.#message = undefined;
    this.#first = undefined;
    this.#growing?.close();
    this.#envelopes?.close();
    this.#body?.close();
    this.#parked?.drop();
    this.#parked = undefined;
  }

  #succeed(result: IngestResult): void {
    this.#release();
    this.#leaveSeat();
    this.#answered = true;
    this.#look();
    const { stream, protocol, answer } = this;
    if (stream.destroyed || stream.closed) return;
    const body = encodeResponse(result, protocol.enveloped);
    if (protocol.enveloped) {
      begin(stream, protocol, answer);
      end(stream, protocol, body, undefined);
    } else {
      answerUnary(stream, answer, body);
    }
  }

  /** @param ours see `refuseUnary`; the library itself writes the error of a passed deadline */
  #fail(reason: unknown, whileReading: boolean, ours = whileReading): void {
    this.#done = true;
    this.#release();
    this.#leaveSeat();
    this.#answered = true;
    const { stream, protocol, answer, options } = this;
    const { rpc, row } = classify(reason);
    if (whileReading && row !== undefined) options.onRefused(row.code);
    if (stream.destroyed || stream.closed) return;
    resetWhenAnswered(stream);
    if (protocol.enveloped) {
      begin(stream, protocol, answer);
      end(stream, protocol, undefined, rpc);
    } else {
      refuseUnary(stream, answer, rpc, ours);
    }
  }
}

/**
 * Publish on an HTTP/2 stream: one message in, one answer out.
 *
 * One object for each call, and listeners that all streams share and that find it by a symbol: of what a call costs, half is
 * node's HTTP/2, and closures, listeners and timers of our own were most of the rest (docs/performance.md).
 */
import type { IncomingHttpHeaders, ServerHttp2Stream } from 'node:http2';
import { Code, ConnectError } from '@connectrpc/connect';
import type { ErrorName } from '../../lib/errors.js';
import { resetWhenAnswered } from '../answered-early.js';
import type { CallGate, GatedCall } from '../call-gate.js';
import { requestLate } from '../call-timeout.js';
import type { Connection } from '../connection.js';
import type { Deadlines } from '../deadlines.js';
import type { IngestResult } from '../ingest.js';
import type { BatchCall, PublishBatch } from '../publish-batch.js';
import { classify } from '../rpc-errors.js';
import { type BatchMessage, publishRequestView } from '../view.js';
import { encodeResponse } from './answers.js';
import { detached, type Envelope, Envelopes, tooLarge } from './envelopes.js';
import type { MessageBuffers } from './message-buffers.js';
import { type AnswerOptions, answerUnary, begin, end, type Protocol, refuseUnary } from './protocols.js';
import { readRequest } from './request.js';

/** What all calls share. */
export interface UnaryOptions {
  /** Throws when the caller is not known. Asked before anything is read. */
  readonly authorize: (headers: IncomingHttpHeaders) => unknown;
  /** Once all is read. Throws when the caller is known no more. */
  readonly call: (headers: IncomingHttpHeaders, connection: Connection, deadlineAt: number | undefined) => BatchCall;
  readonly publish: PublishBatch;
  readonly gate: CallGate;
  /** Of calls whose request is not whole. */
  readonly deadlines: Deadlines<UnaryCall>;
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

/** A call from its headers on. To be told when its stream has closed. */
export class UnaryCall implements GatedCall {
  /** The answer is on its way, or can no more be: what still comes is thrown away. */
  #done = false;
  #message: BatchMessage | undefined;
  #envelopes: Envelopes | undefined;
  #chunks: Buffer[] | undefined;
  #size = 0;
  #deadlineAt: number | undefined;
  /** In `deadlines`, until the request is whole. */
  #deadlineBucket: number | undefined;

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
      options.authorize(headers);
      const length = headers['content-length'];
      if (!this.protocol.enveloped && length !== undefined && Number(length) > options.maxMessageBytes) {
        throw tooLarge(Number(length), options.maxMessageBytes);
      }
    } catch (reason) {
      this.#fail(reason, true);
      return;
    }
    if (timeout === 0) {
      this.late();
      return;
    }
    if (timeout !== undefined) {
      this.#deadlineAt = Date.now() + timeout;
      this.#deadlineBucket = options.deadlines.add(this, this.#deadlineAt);
    }
    options.gate.pass(this);
  }

  enter(): void {
    const { stream } = this;
    (stream as CallStream)[callKey] = this;
    stream.on('data', onData);
    stream.on('end', onEnd);
    // An empty request ends while the call waits, and nobody hears it.
    if (stream.readableEnded) this.end();
  }

  data(chunk: Buffer): void {
    if (this.#done) return;
    const { maxMessageBytes } = this.options;
    try {
      if (this.protocol.enveloped) {
        this.#envelope(chunk);
        return;
      }
      this.#size += chunk.length;
      if (this.#size > maxMessageBytes) throw tooLarge(undefined, maxMessageBytes);
      if (this.#chunks === undefined) this.#chunks = [chunk];
      else this.#chunks.push(chunk);
    } catch (reason) {
      this.#fail(reason, true);
    }
  }

  #envelope(chunk: Buffer): void {
    const { maxMessageBytes, buffers } = this.options;
    if (this.#envelopes === undefined) {
      // The rule: one chunk, one message.
      const size = chunk.length - 5;
      const flags = chunk[0] as number;
      const plain = (flags & this.protocol.reservedFlags) === 0;
      if (plain && size >= 0 && size <= maxMessageBytes && chunk.readUInt32BE(1) === size) {
        this.#take(flags, detached(chunk.subarray(5)), undefined);
        return;
      }
      this.#envelopes = new Envelopes(maxMessageBytes, this.protocol.reservedFlags, buffers);
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
  }

  end(): void {
    if (this.#done) return;
    try {
      if (!this.protocol.enveloped) {
        this.#message = readBody(this.#chunks, this.#size, this.options.buffers);
        this.#chunks = undefined;
      } else if (this.#envelopes?.incomplete === true) {
        throw new ConnectError('protocol error: incomplete envelope', Code.InvalidArgument);
      } else if (this.#message === undefined) {
        throw new ConnectError('Publish takes a message.', Code.InvalidArgument);
      }
    } catch (reason) {
      this.#fail(reason, true);
      return;
    }
    let call: BatchCall;
    try {
      call = this.options.call(this.headers, this.connection, this.#deadlineAt);
    } catch (reason) {
      this.#fail(reason, false);
      return;
    }
    this.#done = true;
    this.#forgetDeadline();
    this.options.publish(call, this.#message as BatchMessage).then(
      (result) => this.#succeed(result),
      (reason: unknown) => this.#fail(reason, false),
    );
  }

  /** Its deadline has passed. */
  late(): void {
    this.#deadlineBucket = undefined;
    if (!this.#done) this.#fail(requestLate(), true, false);
  }

  #leave(): void {
    this.options.gate.leave(this);
    this.#forgetDeadline();
  }

  #forgetDeadline(): void {
    if (this.#deadlineBucket === undefined) return;
    this.options.deadlines.remove(this, this.#deadlineBucket);
    this.#deadlineBucket = undefined;
  }

  /** The stream is over; before its request was whole when nothing has been answered. */
  closed(): void {
    this.#leave();
    if (this.#done) return;
    this.#done = true;
    this.#release();
  }

  #release(): void {
    this.#message?.release?.();
    this.#message = undefined;
    this.#chunks = undefined;
    this.#envelopes?.close();
  }

  #succeed(result: IngestResult): void {
    this.#release();
    this.#leave();
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
    this.#leave();
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

function readBody(chunks: readonly Buffer[] | undefined, size: number, buffers: MessageBuffers): BatchMessage {
  const [first] = chunks ?? [];
  if (chunks === undefined || first === undefined) return readRequest(publishRequestView, noBytes, undefined);
  if (chunks.length === 1) return readRequest(publishRequestView, detached(first), undefined);
  const joined = buffers.take(size);
  let at = 0;
  for (const chunk of chunks) at += chunk.copy(joined, at);
  return readRequest(publishRequestView, joined, () => buffers.give(joined));
}

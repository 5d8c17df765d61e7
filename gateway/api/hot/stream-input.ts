/**
 * The request's half of a stream: chunks in, messages to the call, one after another. It is read while the call takes messages and
 * the budget has room.
 */
import type { ServerHttp2Stream } from 'node:http2';
import { Code, ConnectError } from '@connectrpc/connect';
import type { ErrorName } from '../../../lib/errors.js';
import type { MessageBuffers } from '../../held/message-buffers.js';
import { ParkedInput } from '../../held/parked-input.js';
import type { BodyOwner, UnfinishedBody, UnfinishedBytes } from '../../held/unfinished.js';
import type { StreamCall } from '../stream-call.js';
import { publishStreamRequestView } from '../view.js';
import { type Envelope, Envelopes } from './envelopes.js';
import type { Protocol } from './protocols.js';
import { readRequest } from './request.js';

export interface StreamInputOptions {
  readonly protocol: Protocol;
  readonly call: { readonly caller: { readonly tenant: string } };
  readonly maxMessageBytes: number;
  readonly buffers: MessageBuffers;
  readonly unfinished: UnfinishedBytes;
  /** The gateway ends the stream for want of room. */
  readonly onRefused: (name: ErrorName) => void;
}

/**
 * What becomes of the next chunk.
 *
 *   reading   its messages go to the call
 *   taking    the call has no room for a message yet; nothing is read
 *   stopped   it is thrown away
 */
type Phase =
  | { readonly is: 'reading' }
  | { readonly is: 'taking'; readonly bytes: number }
  | { readonly is: 'stopped' };

const reading: Phase = { is: 'reading' };
const stopped: Phase = { is: 'stopped' };

export class StreamInput implements BodyOwner {
  readonly #stream: ServerHttp2Stream;
  readonly #options: StreamInputOptions;
  readonly #call: StreamCall;
  readonly #envelopes: Envelopes;
  #phase: Phase = reading;
  /** The budget has no room. */
  #crowded = false;
  #requestEnded = false;
  #parked: ParkedInput | undefined;
  #body: UnfinishedBody | undefined;

  constructor(stream: ServerHttp2Stream, options: StreamInputOptions, call: StreamCall) {
    const { protocol, unfinished, maxMessageBytes, buffers } = options;
    this.#stream = stream;
    this.#options = options;
    this.#call = call;
    this.#envelopes = new Envelopes(maxMessageBytes, protocol.reservedFlags, buffers, () => unfinished.roomy);
    stream.on('data', (chunk: Buffer) => this.#arrive(chunk));
    stream.on('end', () => {
      this.#requestEnded = true;
      if (this.#phase.is === 'reading') this.#finish();
    });
  }

  pause(): void {
    this.#crowded = true;
    this.#flow();
  }

  resume(): void {
    this.#crowded = false;
    this.#flow();
  }

  refuse(thrown: Parameters<BodyOwner['refuse']>[0]): void {
    this.#options.onRefused(thrown.code);
    this.#stop({ thrown });
  }

  close(): void {
    this.#letGo();
  }

  #letGo(): void {
    this.#phase = stopped;
    this.#envelopes.close();
    this.#parked?.drop();
    this.#parked = undefined;
    this.#body?.close();
  }

  #arrive(chunk: Buffer): void {
    if (this.#phase.is === 'stopped') return;
    this.#envelopes.push(chunk);
    if (this.#phase.is === 'taking') return;
    this.#pump();
    if (this.#phase.is === 'reading') this.#count(chunk.length);
  }

  /** @param came bytes that have arrived since the last time */
  #count(came: number): void {
    const taking = this.#phase.is === 'taking' ? this.#phase.bytes : 0;
    const bytes = this.#envelopes.held + taking + (this.#parked?.bytes ?? 0);
    if (bytes > 0 || this.#body !== undefined) this.#bodyOf().hold(bytes, came);
  }

  #bodyOf(): UnfinishedBody {
    this.#body ??= this.#options.unfinished.open(this.#options.call.caller.tenant, this);
    return this.#body;
  }

  #flow(): void {
    const { is } = this.#phase;
    const reads = is === 'stopped' || (is === 'reading' && !this.#crowded);
    if (reads && this.#parked !== undefined) {
      const before = this.#parked;
      this.#parked = undefined;
      before.resume();
    } else if (!reads && this.#parked === undefined) {
      this.#parked = new ParkedInput(this.#stream, this.#stream, (came) => this.#count(came));
    }
  }

  /** Nothing more is read; what still comes is thrown away. */
  #stop(reason?: { thrown: unknown }): void {
    if (this.#phase.is === 'stopped') return;
    this.#letGo();
    this.#stream.resume();
    this.#call.finish(reason);
  }

  #finish(): void {
    if (!this.#envelopes.incomplete) this.#call.finish();
    else this.#stop({ thrown: new ConnectError('protocol error: incomplete envelope', Code.InvalidArgument) });
  }

  /** The call has no room for the message: nothing is read until it has. */
  async #waitFor(taken: Promise<boolean>, bytes: number): Promise<void> {
    this.#phase = { is: 'taking', bytes };
    this.#envelopes.detach();
    this.#flow();
    this.#bodyOf().wait();
    this.#count(0);
    const goesOn = await taken;
    if (this.#isStopped) return;
    this.#phase = reading;
    if (!goesOn) return this.#stop();
    this.#pump();
    if (!this.#isReading) return;
    this.#body?.go();
    this.#count(0);
    this.#flow();
    if (this.#requestEnded) this.#finish();
  }

  get #isStopped(): boolean {
    return this.#phase.is === 'stopped';
  }

  get #isReading(): boolean {
    return this.#phase.is === 'reading';
  }

  /** Hands over what is there. */
  #pump(): void {
    try {
      for (let next = this.#envelopes.next(); next !== undefined; next = this.#envelopes.next()) {
        const taken = this.#hand(next);
        if (taken === true) continue;
        if (taken === false) this.#stop();
        else void this.#waitFor(taken, next.bytes.length);
        return;
      }
    } catch (thrown) {
      this.#stop({ thrown });
    }
  }

  #hand({ flags, bytes, release }: Envelope): boolean | Promise<boolean> {
    if ((flags & 1) === 1) {
      release?.();
      throw new ConnectError('received compressed envelope, but do not know how to decompress', Code.Internal);
    }
    if ((flags & this.#options.protocol.skippedFlags) !== 0) {
      release?.();
      return true;
    }
    return this.#call.take(readRequest(publishStreamRequestView, bytes, release));
  }
}

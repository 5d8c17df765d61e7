/**
 * The body of a request on Node's own request objects, for the RPC library and the plain HTTP routes: read on demand, parked between,
 * and counted (unfinished.ts). hot/ does the same on bare HTTP/2 streams.
 *
 *   INPUT-1  One chunk at most waits to be taken; what comes behind it is parked.
 *   INPUT-2  What the reader keeps of what it has taken stays counted until it says that it is gone, or the request is over.
 *   INPUT-3  Refused (by time, by the budget), it gives all bytes back at once; the reader hears the error when it asks next.
 *   INPUT-4  A reader that asks again within the turn keeps its place among those that are read; else the gateway does not read (BODY-4).
 */
import type { Readable } from 'node:stream';
import { createContextKey } from '@connectrpc/connect';
import type { SluiceError } from '../../lib/errors.js';
import { KiB } from '../../lib/units.js';
import { takeOver } from '../listener/connection-entry.js';
import type { NodeRequest, NodeResponse } from '../listener/node-request.js';
import { detached } from './held-bytes.js';
import { ParkedInput } from './parked-input.js';
import type { BodyOwner, UnfinishedBody, UnfinishedBytes } from './unfinished.js';

/**
 * What a single call costs while its body is read, beside its bytes: the objects of Node, the RPC library and this gateway. PublishStream
 * calls have places instead (stream-places.ts), and so have calls without a key (open-routes.ts): counted here, strangers could keep out
 * each other's health checks.
 */
const callBytes = 48 * KiB;

export interface RequestInputOptions {
  readonly unfinished: UnfinishedBytes;
  /** Empty: of a caller who is not known. */
  readonly tenant: string;
  /** It is one body, which is due until it ends; else messages, and pauses between them are as long as the client likes. */
  readonly single: boolean;
  readonly onRefused: (error: SluiceError) => void;
}

/**
 *   unread    nothing has been asked for
 *   flowing   read as it is asked for
 *   ended     all has come
 *   failed    refused, or the peer went away
 *   closed    the request is over
 */
type Phase = 'unread' | 'flowing' | 'ended' | 'failed' | 'closed';

interface Reader {
  readonly resolve: (chunk: Buffer | undefined) => void;
  readonly reject: (reason: unknown) => void;
}

export class RequestInput implements BodyOwner {
  #phase: Phase = 'unread';
  #received = 0;
  #chunk: Buffer | undefined;
  #reader: Reader | undefined;
  #kept = 0;
  #seated = true;
  #crowded = false;
  #failure: unknown;
  #parked: ParkedInput | undefined;
  readonly #body: UnfinishedBody;
  readonly #stream: Readable;

  constructor(
    private readonly request: NodeRequest,
    response: NodeResponse,
    private readonly options: RequestInputOptions,
  ) {
    // On HTTP/2 a request is a stream behind a stream.
    this.#stream = 'stream' in request ? request.stream : request;
    this.#body = options.unfinished.open(options.tenant, this);
    response.once('close', () => this.close());
  }

  get tenant(): string {
    return this.options.tenant;
  }

  /** Bytes so far; undefined: all have come. */
  get received(): number | undefined {
    return this.#phase === 'unread' || this.#phase === 'flowing' ? this.#received : undefined;
  }

  /** Nothing is read until `sit`. */
  standInLine(): void {
    this.#seated = false;
    this.#body.wait();
    this.#flow();
  }

  sit(): void {
    this.#seated = true;
  }

  /** The next chunk; undefined: the body has ended. @throws SluiceError overloaded | body_silent, and Error when the peer is gone */
  next(): Promise<Buffer | undefined> {
    if (this.#phase === 'unread') this.#start();
    const chunk = this.#chunk;
    if (chunk !== undefined) {
      this.#chunk = undefined;
      return Promise.resolve(chunk);
    }
    if (this.#phase === 'ended') return Promise.resolve(undefined);
    if (this.#phase !== 'flowing') return Promise.reject(this.#failure ?? gone());
    return new Promise((resolve, reject) => {
      this.#reader = { resolve, reject };
      this.#body.go();
      this.#flow();
      if (this.options.single && this.#phase === 'flowing') this.#body.expect();
    });
  }

  /** INPUT-2. */
  keep(bytes: number): void {
    if (bytes === this.#kept) return;
    this.#kept = bytes;
    this.#count(0);
  }

  /** The request is whole, and its batch is with admission, which counts it now. */
  admitted(): void {
    takeOver(this.#stream);
    this.close();
  }

  close(): void {
    if (this.#phase === 'closed') return;
    this.#phase = 'closed';
    this.#giveBack();
    this.#fail(gone());
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
    this.options.onRefused(error);
    this.#phase = 'failed';
    this.#giveBack();
    this.#fail(error);
  }

  #start(): void {
    const { request } = this;
    this.#phase = 'flowing';
    this.#count(0);
    request.on('data', (chunk: Buffer) => this.#arrive(chunk));
    request.once('end', () => {
      if (this.#phase !== 'flowing') return;
      this.#phase = 'ended';
      this.#body.wait();
      this.#answer(undefined);
    });
    const onGone = (): void => {
      if (this.#phase !== 'flowing') return;
      this.#phase = 'failed';
      this.#giveBack();
      this.#fail(gone());
    };
    request.once('error', onGone);
    request.once('aborted', onGone);
    request.once('close', onGone);
  }

  #arrive(chunk: Buffer): void {
    if (this.#phase !== 'flowing') return;
    this.#received += chunk.length;
    if (this.#reader !== undefined) {
      this.#body.hold(this.#held(), chunk.length);
      this.#answer(chunk);
      return;
    }
    // INPUT-1: none lay there, since the stream is parked behind one.
    this.#body.wait();
    this.#chunk = this.#chunk === undefined ? detached(chunk) : Buffer.concat([this.#chunk, chunk]);
    this.#count(chunk.length);
    this.#flow();
  }

  #answer(chunk: Buffer | undefined): void {
    const reader = this.#reader;
    this.#reader = undefined;
    reader?.resolve(chunk);
    if (chunk !== undefined) setImmediate(waitUnlessAsked, this);
  }

  /** INPUT-4. */
  waitUnlessAsked(): void {
    if (this.#reader === undefined) this.#body.wait();
  }

  #fail(reason: unknown): void {
    this.#failure ??= reason;
    const reader = this.#reader;
    this.#reader = undefined;
    reader?.reject(reason);
  }

  #held(): number {
    return this.#objects() + this.#kept + (this.#chunk?.length ?? 0) + (this.#parked?.bytes ?? 0);
  }

  #objects(): number {
    const { single, tenant } = this.options;
    return single && tenant !== '' && this.#phase !== 'unread' ? callBytes : 0;
  }

  #count(came: number): void {
    this.#body.hold(this.#held(), came);
  }

  #flow(): void {
    const done = this.#phase === 'failed' || this.#phase === 'closed';
    const reads = done || (this.#seated && !this.#crowded && this.#chunk === undefined && this.#phase !== 'unread');
    if (reads && this.#parked !== undefined) {
      const parked = this.#parked;
      this.#parked = undefined;
      parked.resume();
    } else if (!reads && this.#parked === undefined && this.#phase !== 'ended') {
      this.#parked = new ParkedInput(this.#stream, this.request, (came) => this.#count(came));
    }
  }

  #giveBack(): void {
    this.#chunk = undefined;
    this.#kept = 0;
    this.#parked?.drop();
    this.#parked = undefined;
    this.#body.close();
  }
}

/** Where handlers of the RPC library find what they call when admission counts the batch: the body counts no more. */
export const admittedKey = createContextKey<() => void>(() => {}, { description: 'the batch is with admission' });

function waitUnlessAsked(input: RequestInput): void {
  input.waitUnlessAsked();
}

const gone = (): Error => new Error('the peer has gone away');

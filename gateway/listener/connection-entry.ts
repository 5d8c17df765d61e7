/** One connection as the listener's table has it, from TCP's accept to its end. */
import type { ServerHttp2Session, ServerHttp2Stream } from 'node:http2';
import type { Socket } from 'node:net';
import { Readable } from 'node:stream';
import type { AddressEntry } from './address-limits.js';
import { CallBudget } from './call-budget.js';
import { type ConnectionControl, createConnection, type RefusalCount } from './connection.js';
import { EndedSession } from './ended-session.js';
import { ResetBudget } from './reset-budget.js';
import { ConnectionWindow } from './stream-windows.js';
import { tlsBytes, UselessBytes } from './useless-bytes.js';

/** On requests and streams: the connection that they came on. */
export const connectionKey = Symbol('connection');

const cutShortKey = Symbol('cutShort');
const takenOverKey = Symbol('takenOver');

export interface OnConnection {
  [connectionKey]?: ConnectionEntry;
  [cutShortKey]?: true;
  [takenOverKey]?: true;
}

/**
 * The request is whole, and admission has counted it: from now on its answer depends on the log alone. A client that gives up such a
 * call, because the log is slow, has not taken it back too early (reset-budget.ts).
 */
export function takeOver(stream: Readable & OnConnection): void {
  stream[takenOverKey] = true;
}

/** @see takeOver */
export const isTakenOver = (stream: OnConnection): boolean => stream[takenOverKey] === true;

/**
 *   opening   TCP is there; the TLS handshake or the first bytes are not
 *   serving   an HTTP server has it
 *   ending    it takes no new calls; what is open has a grace
 *   gone      closed, or destroyed; it counts for nothing any more
 */
export type ConnectionPhase = 'opening' | 'serving' | 'ending' | 'gone';

/** As many as an HTTP/2 connection may have open (http2-server.ts): when a key is revoked, all of them may be refused at once. */
const refusalsOfConnection = { max: 256, backPerSecond: 10 };
/**
 * What a refusal costs a connection of good standing while its address has none left: others behind the same address have used them up.
 * With a key an attacker gets 16 more of each connection, and one each 1.6 s.
 */
const sharedRefusalCost = 16;
/** For how long a call with a valid key gives its connection good standing, ms. */
const goodStandingMs = 60_000;

/** What is seen while calls are served, and not by the table. */
export type SeenAbuse = 'useless_bytes' | 'refusals';

export class ConnectionEntry implements RefusalCount {
  phase: ConnectionPhase = 'opening';
  readonly control: ConnectionControl;
  /** The socket that HTTP is read from: the TCP socket, until TLS stands. */
  socket: Socket;
  /** Of HTTP/2. */
  session: ServerHttp2Session | undefined;
  /** Calls without a complete answer. */
  open = 0;
  /** Calls so far. */
  calls = 0;
  /** Requests of HTTP/1.1 that were sent ahead and are not served. */
  ignored = 0;
  /** Of the last ones in a row, those that were over in the turn of the event loop in which they began. */
  hasty = 0;
  /** Of the calls, those that have ended before their body. */
  cutShort = 0;
  /** Of the calls, those that have been answered early, and are not reset yet (late-reset.ts). */
  lateResets: Set<ServerHttp2Stream> | undefined;
  /** Bytes of bodies that have arrived. */
  payload = 0;
  /** Pieces of them below `tinyPiece`, since the table has looked last. */
  tinyPieces = 0;
  /** When the last call ended, or the connection began. Monotonic, ms. */
  idleSince: number;
  readonly resets: ResetBudget;
  readonly refusals: CallBudget;
  readonly useless: UselessBytes;
  /** Of its streams. */
  readonly window: ConnectionWindow;
  readonly endedSession = new EndedSession();
  /** Streams between their early answer and its reset (answered-early.ts, EARLY-5). */
  #answering: Set<Readable> | undefined;
  /** Monotonic, ms. */
  #knownAt = Number.NEGATIVE_INFINITY;

  /**
   * @param address of a peer that is limited, else undefined
   * @param onAbuse the peer has gone too far; the connection is gone then
   */
  constructor(
    readonly raw: Socket,
    readonly address: AddressEntry | undefined,
    now: number,
    readonly onAbuse: (entry: ConnectionEntry, why: SeenAbuse) => void,
  ) {
    this.socket = raw;
    this.control = createConnection(raw.remoteAddress, this);
    this.idleSince = now;
    this.resets = new ResetBudget(now);
    this.refusals = new CallBudget(refusalsOfConnection, now);
    this.useless = new UselessBytes(now);
    this.window = new ConnectionWindow(now);
  }

  get network(): string | undefined {
    return this.address?.network;
  }

  /** Bytes that the peer has sent; over TLS also those that carry nothing. */
  get bytesRead(): number {
    const { raw, socket } = this;
    return raw === socket ? raw.bytesRead : tlsBytes(raw.bytesRead, socket.bytesRead);
  }

  /** It has shown a valid key lately. */
  isInGoodStanding(now: number): boolean {
    return now - this.#knownAt < goodStandingMs;
  }

  known(): void {
    this.#knownAt = performance.now();
    this.window.known = true;
    this.refusals.giveBack();
    this.address?.refusals?.giveBack();
  }

  refused(): boolean {
    // A trusted proxy speaks for many: the guesses of one of its clients must not end the calls of the others.
    if (this.address === undefined) return true;
    const time = performance.now();
    const left = this.address.refusals?.take(time) !== false;
    if (left || this.isInGoodStanding(time)) {
      if (this.refusals.take(time, left ? 1 : sharedRefusalCost)) return true;
    }
    this.onAbuse(this, 'refusals');
    return false;
  }

  /**
   * Node reads no more of the connection, until this has been taken back for each such stream. Frames that were read before are still served.
   * There is no public way: Node's session reads from the socket's handle.
   */
  stopReading(stream: Readable): void {
    this.#answering ??= new Set();
    this.#answering.add(stream);
    if (this.#answering.size === 1) handleOf(this.socket)?.readStop?.();
  }

  /** @see stopReading */
  goOnReading(stream: Readable): void {
    if (this.#answering?.delete(stream) && this.#answering.size === 0) handleOf(this.socket)?.readStart?.();
  }

  /** Makes room for others more readily than the other one: first who has never called, then who has not for the longest time. */
  yieldsBefore(other: ConnectionEntry): boolean {
    if ((this.calls === 0) !== (other.calls === 0)) return this.calls === 0;
    return this.idleSince < other.idleSince;
  }
}

/** Null when the socket is closed. */
const handleOf = (socket: Socket) =>
  (socket as unknown as { readonly _handle?: { readStop?(): void; readStart?(): void } | null })._handle;

/** The call of this stream is over, and its body is not: the rest is dropped where the connection does not see it. Twice does no harm. */
export function countCutShort(stream: OnConnection): void {
  const entry = stream[connectionKey];
  if (entry === undefined || stream[cutShortKey]) return;
  stream[cutShortKey] = true;
  entry.cutShort++;
}

/**
 * A DATA frame or chunk of fewer bytes costs a hundred times its bytes. One turn of the event loop may bring a million of them, and the
 * table looks between turns only.
 */
const tinyPiece = 16;
/** Between two looks of the table. */
const maxTinyPieces = 10_000;

/**
 * Takes the place of `push` on a request's stream, and counts what arrives of its body. One function for all streams: it runs once
 * for each DATA frame or chunk, and costs an addition.
 */
export function countPayload(stream: Readable & OnConnection, entry: ConnectionEntry): void {
  stream[connectionKey] = entry;
  // What came in one read with the headers is there already.
  entry.payload += stream.readableLength;
  stream.push = pushCounted;
}

function pushCounted(this: Readable & OnConnection, chunk: unknown, encoding?: BufferEncoding): boolean {
  const entry = this[connectionKey];
  if (entry !== undefined && chunk != null) {
    const { length } = chunk as Uint8Array;
    entry.payload += length;
    if (length < tinyPiece && ++entry.tinyPieces > maxTinyPieces) {
      // False: Node reads no more.
      entry.onAbuse(entry, 'useless_bytes');
      return false;
    }
  }
  return Readable.prototype.push.call(this, chunk, encoding);
}

/**
 * How many bytes a client may have under way on each stream of an HTTP/2 connection: its flow-control window. A wide one costs memory
 * when the gateway does not read; a narrow one costs time, since a batch that is larger waits for round trips.
 *
 *   WINDOW-1  A connection begins narrow.
 *   WINDOW-2  It becomes wide when it has shown a valid key, has few calls open, and brings as much as a narrow window may hold back. What
 *       calls on wide connections may send beyond narrow windows is bounded in all.
 *   WINDOW-3  It is narrow again when it has many calls, or brings little for `quietMs`, or when bodies are paused because the gateway holds
 *       too many unfinished bytes (unfinished.ts, BODY-2). Then it stays so for `quietMs`, however its calls come and go.
 *
 * HTTP/2 changes the windows of all streams of a connection at once, by SETTINGS, when the peer has acknowledged them. What a peer sends
 * that does not is bounded by BODY-3.
 */
import { KiB } from '../../lib/units.js';

/** Bytes. */
export const narrowWindow = 64 * KiB;
export const wideWindow = 256 * KiB;
/** On a wide connection. */
const maxCalls = 16;
/** Half of a narrow window each quarter of a second: a peer half a second away cannot send more. */
const busyBytesPerSecond = 128 * KiB;
const quietMs = 10_000;

/** The parts of Node's session that are used. */
export interface WindowSettings {
  readonly destroyed: boolean;
  readonly closed: boolean;
  readonly pendingSettingsAck: boolean;
  settings(settings: { initialWindowSize: number }): void;
}

/** A connection, as its table knows it. */
export interface WindowedConnection {
  readonly window: ConnectionWindow;
  /** Undefined: HTTP/1.1. */
  readonly session: WindowSettings | undefined;
  /** Calls now. */
  readonly open: number;
  /** Bytes of bodies so far. */
  readonly payload: number;
}

export class ConnectionWindow {
  /** Of its streams, bytes. */
  size = narrowWindow;
  /** The widest so far. */
  largest = narrowWindow;
  /** A call on it has shown a valid key. */
  known = false;
  /** Its calls, as long as it is wide. */
  calls = 0;
  payload = 0;
  lookedAt: number;
  busyAt = Number.NEGATIVE_INFINITY;
  staysNarrowUntil = Number.NEGATIVE_INFINITY;

  /** @param now monotonic, ms */
  constructor(now: number) {
    this.lookedAt = now;
  }
}

export interface StreamWindowsOptions {
  /** Most bytes that calls on wide connections may send beyond narrow windows. */
  readonly maxBytes: number;
  /** Bodies are paused for want of room. */
  readonly isCrowded: () => boolean;
}

export class StreamWindows {
  #calls = 0;
  readonly #maxCalls: number;

  constructor(private readonly options: StreamWindowsOptions) {
    this.#maxCalls = Math.floor(options.maxBytes / (wideWindow - narrowWindow));
  }

  /** What calls on wide connections may send beyond narrow windows. */
  get bytes(): number {
    return this.#calls * (wideWindow - narrowWindow);
  }

  /** A call has begun or ended on a wide connection. */
  changed(connection: WindowedConnection): void {
    this.#count(connection.window, connection.open);
    if (connection.open > maxCalls || this.#calls > this.#maxCalls) this.#narrow(connection);
  }

  /** To be called a few times a second. @param now monotonic, ms */
  look(connection: WindowedConnection, now: number): void {
    const { window, session, open, payload } = connection;
    if (session === undefined || session.destroyed || session.closed) return;
    const busy = payload - window.payload > (busyBytesPerSecond * (now - window.lookedAt)) / 1_000;
    window.payload = payload;
    window.lookedAt = now;
    if (busy) window.busyAt = now;
    const crowded = this.options.isCrowded();
    if (window.size === wideWindow) {
      if (crowded || open > maxCalls || now - window.busyAt > quietMs) this.#narrow(connection);
    } else if (busy && !crowded && now >= window.staysNarrowUntil && this.#mayWiden(connection)) {
      this.#widen(connection);
    }
  }

  /** The connection has ended. */
  gone({ window }: WindowedConnection): void {
    this.#count(window, 0);
  }

  #mayWiden({ window, open }: WindowedConnection): boolean {
    return window.known && open <= maxCalls && this.#calls + open <= this.#maxCalls;
  }

  #widen(connection: WindowedConnection): void {
    const { window } = connection;
    if (!this.#set(connection, wideWindow)) return;
    window.largest = wideWindow;
    this.#count(window, connection.open);
  }

  #narrow(connection: WindowedConnection): void {
    const { window } = connection;
    window.staysNarrowUntil = window.lookedAt + quietMs;
    if (this.#set(connection, narrowWindow)) this.#count(window, 0);
  }

  /** False: the peer has not acknowledged the last settings yet. */
  #set({ window, session }: WindowedConnection, size: number): boolean {
    if (session === undefined || session.destroyed || session.pendingSettingsAck) return false;
    session.settings({ initialWindowSize: size });
    window.size = size;
    return true;
  }

  #count(window: ConnectionWindow, calls: number): void {
    this.#calls += calls - window.calls;
    window.calls = calls;
  }
}

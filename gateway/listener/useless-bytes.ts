/**
 * Bounds the bytes of a peer that do nothing: frames of unknown types, window updates, pings, settings, priorities, frames of streams
 * that are closed, messages and chunks of a byte, chunk extensions, empty lines. Node shows none of these. It shows how many bytes came
 * in all, and we see what arrived of calls. The rest is framing, or useless. Pure: the clock is the caller's.
 *
 * These bytes are forgiven: as many as have arrived of bodies, the largest headers of each call, and `backPerSecond`. A client may also
 * have sent part of a body before it hears that its call is over, and nghttp2 drops that unseen. So each call that ends before its body
 * forgives a window, then or later. The rest adds up; at `max` the connection ends.
 */
import { KiB, MiB } from '../../lib/units.js';
import { maxHeaderBytes } from './header-limits.js';
import { narrowWindow } from './stream-windows.js';

const max = MiB;
/** The narrow windows of all streams that a connection may have. */
const maxForgiven = 256 * narrowWindow;
const backPerSecond = 64 * KiB;

/** For a TLS handshake, with the client's certificates. */
const handshakeBytes = 32 * KiB;
/** A KeyUpdate of TLS 1.3 has 27 bytes and costs as much time as 5 kB of other useless bytes. So its bytes count more than once. */
const tlsWeight = 16;

/**
 * What a peer has sent over TLS, as `UselessBytes` counts it. A record has 22 bytes of its own, so an honest peer sends no more than three times
 * what it has to say. What is beyond are KeyUpdates, or records of a byte or two.
 *
 * @param sent bytes of TCP
 * @param said bytes of HTTP in them
 */
export const tlsBytes = (sent: number, said: number): number =>
  sent + (tlsWeight - 1) * Math.max(0, sent - 3 * said - handshakeBytes);

/** Totals of a connection so far. */
export interface Received {
  /** Bytes of all kinds (of TLS: `tlsBytes`). */
  readonly bytes: number;
  /** Bytes of bodies that reached a call. */
  readonly payload: number;
  readonly calls: number;
  /** Of the calls, those that have ended before their body. */
  readonly cutShort: number;
  /** The largest that a stream has had, bytes. */
  readonly window: number;
}

export class UselessBytes {
  #level = 0;
  #bytes = 0;
  #payload = 0;
  #calls = 0;
  #cutShort = 0;
  /** Bytes that may still come of calls that were cut short. */
  #forgiven = 0;
  #at: number;

  /** @param now monotonic, ms */
  constructor(now: number) {
    this.#at = now;
  }

  /** @returns false when the peer has sent too many */
  look({ bytes, payload, calls, cutShort, window }: Received, now: number): boolean {
    this.#forgiven = Math.min(maxForgiven, this.#forgiven + (cutShort - this.#cutShort) * window);
    this.#cutShort = cutShort;
    if (bytes === this.#bytes) return true;
    const useful = 2 * (payload - this.#payload) + (calls - this.#calls) * maxHeaderBytes;
    const back = ((now - this.#at) / 1_000) * backPerSecond;
    const level = Math.max(0, this.#level + bytes - this.#bytes - useful - back);
    const dropped = Math.min(level, this.#forgiven);
    this.#forgiven -= dropped;
    this.#level = level - dropped;
    this.#bytes = bytes;
    this.#payload = payload;
    this.#calls = calls;
    this.#at = now;
    return this.#level <= max;
  }
}

/**
 * How many bytes a peer may send that do nothing: frames of unknown types, window updates, pings, settings, priorities, frames of
 * streams that are closed, messages and chunks of a byte, chunk extensions, empty lines. Node shows none of these. It shows how many bytes came in all, and
 * we see what arrived of calls. The rest is framing, or useless. Pure: the clock is the caller's.
 *
 * Forgiven are: as many bytes as have arrived of bodies, the largest headers of each call, what a client may have sent of a body before it
 * hears that its call is refused (nghttp2 drops that unseen), and `backPerSecond`. What is beyond that adds up, and `most` is the end.
 */
import { maxHeaderBytes } from './header-limits.js';

const most = 1024 * 1024;
/** The window of a stream. */
const mostDropped = 1024 * 1024;
const backPerSecond = 64 * 1024;

/** Totals of a connection so far. */
export interface Received {
  /** Bytes of all kinds. */
  readonly bytes: number;
  /** Bytes of bodies that reached a call. */
  readonly payload: number;
  readonly calls: number;
  /** Of the calls, those whose headers did not end them. */
  readonly bodies: number;
}

export class UselessBytes {
  #level = 0;
  #bytes = 0;
  #payload = 0;
  #calls = 0;
  #bodies = 0;
  #at: number;

  /** @param now monotonic, ms */
  constructor(now: number) {
    this.#at = now;
  }

  /** @returns false when the peer has sent too many */
  look({ bytes, payload, calls, bodies }: Received, now: number): boolean {
    if (bytes === this.#bytes) return true;
    const dropped = (bodies - this.#bodies) * mostDropped;
    const useful = 2 * (payload - this.#payload) + (calls - this.#calls) * maxHeaderBytes + dropped;
    const back = ((now - this.#at) / 1_000) * backPerSecond;
    this.#level = Math.max(0, this.#level + bytes - this.#bytes - useful - back);
    this.#bytes = bytes;
    this.#payload = payload;
    this.#calls = calls;
    this.#bodies = bodies;
    this.#at = now;
    return this.#level <= most;
  }
}

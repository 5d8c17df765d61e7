/**
 * Finds HTTP/2 sessions that nghttp2 has ended and Node has not reported (FACT-43).
 *
 * After a broken frame nghttp2 sends GOAWAY, and then reads and sends nothing. Node 22 reports that. Node 20 reports nothing, reads no
 * more, and does not see the peer leave: the connection would stay until its peer has been silent for 40 s. A client that breaks one
 * frame on each of its connections would hold hundreds of them.
 *
 * A PING shows it. A session that lives sends it at once; one that has ended keeps it in its queue. Pure: the clock is the caller's.
 */

/** ms without a byte until a connection is asked. */
const quietMs = 1_000;
/** Between two questions to a connection that sends now and then, ms. */
const askEveryMs = 5_000;
/** ms that a PING has to leave the queue. */
const leavesWithinMs = 2_000;

/** What is needed of a ServerHttp2Session. */
export interface Askable {
  readonly state: { readonly outboundQueueSize?: number | undefined };
  ping(callback: (error: Error | null) => void): boolean;
}

export class EndedSession {
  #bytes = -1;
  /** When the last bytes came. */
  #since = 0;
  #askedAt = Number.NEGATIVE_INFINITY;
  /** Since the last bytes: a PING is on its way, or was answered by those bytes. */
  #phase: 'unknown' | 'asked' | 'lives' = 'unknown';

  /**
   * To be called now and then.
   * @param bytesRead of the connection so far; asked again when the answer comes
   * @param unsent bytes that the peer has not taken: they keep a PING back, too
   * @param now monotonic, ms
   * @returns true when nghttp2 has ended the session
   */
  look(session: Askable, bytesRead: () => number, unsent: () => number, now: number): boolean {
    const bytes = bytesRead();
    if (bytes !== this.#bytes) {
      this.#bytes = bytes;
      this.#since = now;
      this.#phase = 'unknown';
      return false;
    }
    if (this.#phase === 'asked') {
      if (now - this.#askedAt < leavesWithinMs) return false;
      return (session.state.outboundQueueSize ?? 0) > 0 && unsent() === 0;
    }
    if (this.#phase === 'unknown' && now - this.#since >= quietMs && now - this.#askedAt >= askEveryMs) {
      this.#phase = 'asked';
      this.#askedAt = now;
      session.ping((error) => {
        if (error !== null) return;
        this.#bytes = bytesRead();
        this.#phase = 'lives';
      });
    }
    return false;
  }
}

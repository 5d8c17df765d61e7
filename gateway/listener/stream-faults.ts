/**
 * Keeps an HTTP/2 connection open after the fault of one of its streams (FACT-36).
 *
 * nghttp2 reports a request that is longer than its content-length as a protocol error, resets that one stream, and goes on. Since Node
 * 22 Node destroys the whole session for it, with all other calls on that connection, and from within nghttp2's own callback. Node does
 * the same for a true error of the connection, and does not report which it was. A PING shows it: after a true error nghttp2 reads
 * nothing, so there is no answer.
 *
 * What is repeated has a bound: nghttp2 counts invalid frames (`maxSessionInvalidFrames`), and beyond them the error is another one.
 */
import type { ServerHttp2Session } from 'node:http2';

/** ms from the fault to the answer. */
const answerWithin = 1_000;
/** NGHTTP2_ERR_PROTO. */
const protocolError = -505;

/** @param onFault the session goes on */
export function keepThroughStreamFaults(session: ServerHttp2Session, onFault: () => void): void {
  const destroy = session.destroy;
  let asking = false;
  const ask = (error: Error): void => {
    if (session.destroyed) return;
    const end = (): void => {
      if (!session.destroyed) destroy.call(session, error);
    };
    const dead = setTimeout(end, answerWithin);
    dead.unref();
    const sent = session.ping((failed) => {
      if (failed !== null) return;
      clearTimeout(dead);
      asking = false;
      onFault();
    });
    if (!sent) setImmediate(end);
  };
  // Node calls it with null, too.
  session.destroy = (error?: NodeJS.ErrnoException | null, code?: number): void => {
    if (error?.errno !== protocolError) {
      destroy.call(session, error as Error | undefined, code);
    } else if (!asking) {
      asking = true;
      setImmediate(ask, error);
    }
  };
}

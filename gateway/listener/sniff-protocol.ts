/** Finds out which HTTP a client without TLS speaks. */
import type { Socket } from 'node:net';

/** ms until the first bytes have come. */
const firstBytesTimeout = 10_000;

/** No HTTP/1 method begins like this, and every HTTP/2 connection without TLS does. */
const preface = Buffer.from('PRI ');

/** Finds out the protocol from the first bytes, and puts them back. */
export function sniffProtocol(socket: Socket, found: (protocol: 'h1' | 'h2') => void): void {
  const timer = setTimeout(() => socket.destroy(), firstBytesTimeout);
  let seen: Buffer = Buffer.alloc(0);
  const stop = (): void => {
    clearTimeout(timer);
    socket.off('readable', onReadable);
    socket.off('close', stop);
    socket.off('end', onEnd);
  };
  const onEnd = (): void => {
    stop();
    socket.destroy();
  };
  const onReadable = (): void => {
    const chunk = socket.read() as Buffer | null;
    if (chunk === null) return;
    seen = seen.length === 0 ? chunk : Buffer.concat([seen, chunk]);
    const begun = seen.subarray(0, preface.length).equals(preface.subarray(0, Math.min(seen.length, preface.length)));
    if (begun && seen.length < preface.length) return;
    stop();
    socket.unshift(seen);
    found(begun ? 'h2' : 'h1');
  };
  socket.on('readable', onReadable);
  socket.once('close', stop);
  socket.once('end', onEnd);
}

/** A socket of a test, and all that has come on it. */
import type { Socket } from 'node:net';

export interface WatchedPeer {
  readonly socket: Socket;
  readonly bytes: () => Buffer;
  /** The same as Latin-1. */
  readonly text: () => string;
  readonly closed: () => boolean;
}

export function createWatchedPeer(socket: Socket): WatchedPeer {
  const chunks: Buffer[] = [];
  socket.on('error', () => {});
  socket.on('data', (chunk: Buffer) => chunks.push(chunk));
  let closed = false;
  socket.on('close', () => {
    closed = true;
  });
  const bytes = (): Buffer => Buffer.concat(chunks);
  return { socket, bytes, text: () => bytes().toString('latin1'), closed: () => closed };
}

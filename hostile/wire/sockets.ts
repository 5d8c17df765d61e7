/** Plain and TLS sockets to the gateway, from a chosen address of this machine. */
import { connect as connectPlain, type Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';

export interface Target {
  readonly port: number;
  readonly tls: boolean;
  /** The address that connections come from, e.g. 127.0.0.9. */
  readonly from: string;
}

/** The attacks go here and nowhere else. */
const host = '127.0.0.1';

/** A TCP connection, also where the gateway serves TLS. Its errors are everyday life; 'close' follows. */
export function dialPlain({ port, from }: Target): Socket {
  const socket = connectPlain({ host, port, localAddress: from, noDelay: true });
  socket.on('error', () => {});
  // Streams of a connection wait on one socket.
  socket.setMaxListeners(0);
  return socket;
}

/** A connection that speaks `protocol`. Bytes that are written before it is open wait. */
export function dial(target: Target, protocol: 'h2' | 'http/1.1'): Socket {
  if (!target.tls) return dialPlain(target);
  // Certificates of a run are signed by themselves.
  const socket = connectTls({ socket: dialPlain(target), ALPNProtocols: [protocol], rejectUnauthorized: false });
  socket.on('error', () => {});
  socket.setMaxListeners(0);
  return socket;
}

/** Whether the connection opened within the time; a TLS connection with its handshake. */
export function opened(socket: Socket, withinMs = 10_000): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(end, withinMs, false);
    function end(result: boolean): void {
      clearTimeout(timer);
      resolve(result);
    }
    socket.once('encrypted' in socket ? 'secureConnect' : 'connect', () => end(true));
    socket.once('close', () => end(false));
  });
}

/** Writes, and waits while the other end takes no more. False: the connection is over. */
export function written(socket: Socket, bytes: Uint8Array | string, patienceMs = 30_000): Promise<boolean> {
  if (socket.destroyed || socket.writableEnded) return Promise.resolve(false);
  if (socket.write(bytes)) return Promise.resolve(true);
  return new Promise((resolve) => {
    const timer = setTimeout(end, patienceMs);
    function end(): void {
      clearTimeout(timer);
      socket.off('drain', end);
      socket.off('close', end);
      resolve(!socket.destroyed);
    }
    socket.once('drain', end);
    socket.once('close', end);
  });
}

/** node's own HTTP/2 server, which reads and checks every byte of the protocol, for tests of the load's clients. */
import { createServer, type IncomingHttpHeaders, type ServerHttp2Session, type ServerHttp2Stream } from 'node:http2';
import type { AddressInfo } from 'node:net';

export interface Http2Server {
  readonly url: string;
  /** Connections so far. */
  readonly opened: number;
}

/** @param windowBytes the window of each stream; the connection's stays at 64 KiB, so that it is used up again and again */
export async function withHttp2Server<T>(
  windowBytes: number,
  take: (stream: ServerHttp2Stream, headers: IncomingHttpHeaders) => void,
  use: (server: Http2Server) => Promise<T>,
): Promise<T> {
  const sessions = new Set<ServerHttp2Session>();
  let opened = 0;
  const server = createServer({ settings: { initialWindowSize: windowBytes } });
  server.on('session', (session) => {
    opened++;
    sessions.add(session);
    session.on('close', () => sessions.delete(session));
  });
  server.on('stream', (stream, headers) => {
    stream.on('error', () => undefined);
    take(stream, headers);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  try {
    return await use({
      url: `http://127.0.0.1:${port}`,
      get opened() {
        return opened;
      },
    });
  } finally {
    for (const session of sessions) session.destroy();
    await new Promise<void>((resolve) => server.close(() => resolve()));
  }
}

/** A message in a frame of gRPC. */
export function framed(message: Uint8Array): Buffer {
  const head = Buffer.alloc(5);
  head.writeUInt32BE(message.length, 1);
  return Buffer.concat([head, message]);
}

/** Requests by their batch id, in order. */
export function remember<T extends { readonly batchId: string }>(seen: Map<string, T[]>, request: T): void {
  seen.set(request.batchId, [...(seen.get(request.batchId) ?? []), request]);
}

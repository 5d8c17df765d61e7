/**
 * A TCP proxy that loses one answer: a request with a body arrives and has its effect, the connection is reset instead of the answer.
 * Everything else passes, such as health checks, and from then on everything. This is what a load balancer that dies at the wrong moment
 * does.
 */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

export interface SwallowingProxy {
  /** 127.0.0.1. */
  readonly port: number;
  /** How many answers were lost: 0 or 1. */
  swallowed(): number;
  close(): Promise<void>;
}

const frameHeaderBytes = 9;
const dataFrame = 0;
const headersFrame = 1;
/** What an HTTP/2 client sends first; frames follow. */
const preface = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';

/**
 * Reads one direction of a connection.
 * @param text what a message over HTTP/1.1 begins with, at the start of a chunk
 * @param type of an HTTP/2 frame
 * @returns a function that says of each chunk whether one of them has begun
 */
function spotter(text: string, type: number): (chunk: Buffer) => boolean {
  let protocol: 'unknown' | 'HTTP/1.1' | 'HTTP/2' = 'unknown';
  let rest = Buffer.alloc(0);
  let skip = 0;
  return (chunk) => {
    if (protocol === 'unknown')
      protocol = /^(?!PRI)[A-Z]{3}/.test(chunk.toString('latin1', 0, 3)) ? 'HTTP/1.1' : 'HTTP/2';
    if (protocol === 'HTTP/1.1') return chunk.toString('latin1', 0, text.length) === text;
    rest = Buffer.concat([rest, chunk]);
    if (skip === 0 && rest.toString('latin1', 0, 3) === 'PRI') skip = preface.length;
    for (;;) {
      const skipped = Math.min(skip, rest.length);
      rest = rest.subarray(skipped);
      skip -= skipped;
      if (skip > 0 || rest.length < frameHeaderBytes) return false;
      if (rest[3] === type) return true;
      skip = frameHeaderBytes + rest.readUIntBE(0, 3);
    }
  };
}

/** @param target port on 127.0.0.1, of a gateway */
export async function startSwallowingProxy(target: number): Promise<SwallowingProxy> {
  let swallowed = 0;
  const sockets = new Set<Socket>();
  const track = (socket: Socket): void => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.once('close', () => sockets.delete(socket));
  };
  const listener = createServer({ noDelay: true }, (client) => {
    const server = connect({ host: '127.0.0.1', port: target, noDelay: true });
    const asks = spotter('POST ', dataFrame);
    const answers = spotter('HTTP/', headersFrame);
    let asked = false;
    track(client);
    track(server);
    client.on('data', (chunk: Buffer) => {
      asked ||= swallowed === 0 && asks(chunk);
      if (!server.write(chunk)) {
        client.pause();
        server.once('drain', () => client.resume());
      }
    });
    client.once('end', () => server.end());
    server.on('data', (chunk: Buffer) => {
      if (swallowed === 0 && asked && answers(chunk)) {
        swallowed = 1;
        client.resetAndDestroy();
        server.destroy();
      } else {
        client.write(chunk);
      }
    });
    server.once('close', () => client.end());
    client.once('close', () => server.destroy());
  });
  await new Promise<void>((resolve, reject) => {
    listener.once('error', reject);
    listener.listen(0, '127.0.0.1', resolve);
  });
  return {
    port: (listener.address() as AddressInfo).port,
    swallowed: () => swallowed,
    close: () =>
      new Promise((resolve) => {
        for (const socket of sockets) socket.destroy();
        listener.close(() => resolve());
      }),
  };
}

/**
 * A TCP proxy that loses one answer: the request arrives and has its effect, the connection is reset instead of the answer. It then
 * passes everything on. This is what a load balancer that dies at the wrong moment does.
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
const headersFrame = 1;

/** @returns a function that says of each chunk of a server whether an answer begins in it, over HTTP/1.1 or HTTP/2 */
function answerSpotter(): (chunk: Buffer) => boolean {
  let rest = Buffer.alloc(0);
  let skip = 0;
  return (chunk) => {
    rest = Buffer.concat([rest, chunk]);
    if (rest.subarray(0, 5).toString('latin1') === 'HTTP/') return true;
    for (;;) {
      const skipped = Math.min(skip, rest.length);
      rest = rest.subarray(skipped);
      skip -= skipped;
      if (skip > 0 || rest.length < frameHeaderBytes) return false;
      if (rest[3] === headersFrame) return true;
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
    const answers = answerSpotter();
    track(client);
    track(server);
    client.pipe(server);
    server.on('data', (chunk: Buffer) => {
      if (swallowed === 0 && answers(chunk)) {
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

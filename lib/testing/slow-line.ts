/**
 * A TCP line to a server that can be held up for a while, for one test: what is sent meanwhile arrives later, in order.
 */
import { connect, createServer, type Socket } from 'node:net';

export interface SlowLine {
  /** `127.0.0.1:<port>`. */
  readonly url: string;
  /** From now on nothing passes in either direction, until `release`. */
  hold(): void;
  release(): void;
}

/** @param target `host:port` */
export async function withSlowLine<T>(target: string, use: (line: SlowLine) => Promise<T>): Promise<T> {
  const [host, port] = target.split(':');
  const sockets = new Set<Socket>();
  let stalled = false;
  const server = createServer((near) => {
    const far = connect({ host: host ?? '127.0.0.1', port: Number(port) });
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from);
      from.setNoDelay(true);
      if (stalled) from.pause();
      from.on('data', (bytes) => to.write(bytes));
      from.on('error', () => {});
      from.on('close', () => {
        sockets.delete(from);
        to.destroy();
      });
      from.on('end', () => to.end());
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  try {
    return await use({
      url: `127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`,
      hold() {
        stalled = true;
        for (const socket of sockets) socket.pause();
      },
      release() {
        stalled = false;
        for (const socket of sockets) socket.resume();
      },
    });
  } finally {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
}

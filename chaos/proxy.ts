/**
 * A TCP proxy that misbehaves when told to: between clients and gateways, gateways or workers and NATS, workers and ClickHouse.
 *
 *   pass          every byte at once
 *   drop-replies  requests arrive and have their effect; answers are thrown away, and the connections are cut when it ends
 *   cut           every connection is reset now
 *   half-open     nothing is passed on in either direction, and neither side hears of it; the connections are cut when it ends
 *   slow          every chunk comes late, both ways
 *   refuse        new connections are reset as well
 */

import type { AddressInfo } from 'node:net';
import { connect, createServer, type Server, type Socket } from 'node:net';

export type ProxyMode = 'pass' | 'drop-replies' | 'half-open' | 'slow' | 'refuse';

export interface ChaosProxy {
  /** 127.0.0.1. */
  readonly port: number;
  /** Connections now. */
  readonly connections: number;
  /** From now on, for old and new connections. What was dropped or held back makes its connection useless: it is cut at the next change. */
  set(mode: ProxyMode): void;
  /** Resets every connection. */
  cut(): void;
  close(): Promise<void>;
}

interface Pair {
  readonly client: Socket;
  readonly server: Socket;
  /** Bytes were dropped or held back. */
  spoiled: boolean;
  /** ms until which chunks are held back, for order. */
  due: number;
}

/** In `slow`: each chunk this much later, ms. */
const slowMs = 80;

/**
 * @param targets ports on 127.0.0.1, asked again for each connection: the first that can be reached takes it
 */
export async function startProxy(targets: () => readonly number[]): Promise<ChaosProxy> {
  let mode: ProxyMode = 'pass';
  const pairs = new Set<Pair>();
  const waiting = new Set<Socket>();

  const reset = (socket: Socket): void => {
    if (!socket.destroyed) socket.resetAndDestroy();
  };
  const end = (pair: Pair): void => {
    pairs.delete(pair);
    reset(pair.client);
    reset(pair.server);
  };

  const forward = (pair: Pair, from: Socket, to: Socket, isReply: boolean): void => {
    const pass = (chunk: Buffer): void => {
      if (to.destroyed) return;
      if (!to.write(chunk)) {
        from.pause();
        to.once('drain', () => from.resume());
      }
    };
    from.on('data', (chunk: Buffer) => {
      if (mode === 'half-open' || (mode === 'drop-replies' && isReply)) pair.spoiled = true;
      if (pair.spoiled && (isReply || mode === 'half-open')) return;
      const now = performance.now();
      if (mode !== 'slow' && pair.due <= now) return pass(chunk);
      pair.due = Math.max(pair.due, now + (mode === 'slow' ? slowMs : 0));
      setTimeout(pass, pair.due - now, chunk);
    });
    from.on('end', () => {
      if (mode === 'half-open' || pair.spoiled) return;
      setTimeout(() => to.end(), Math.max(0, pair.due - performance.now()));
    });
    from.on('close', () => {
      // Half-open: the other side is not told.
      if (mode === 'half-open') pair.spoiled = true;
      else end(pair);
    });
  };

  const dial = (client: Socket, ports: readonly number[]): void => {
    const [port, ...others] = ports;
    if (port === undefined || client.destroyed) {
      waiting.delete(client);
      return void reset(client);
    }
    const server = connect({ host: '127.0.0.1', port, noDelay: true });
    server.once('error', () => {
      if (waiting.has(client)) dial(client, others);
    });
    server.once('connect', () => {
      waiting.delete(client);
      if (client.destroyed) return void reset(server);
      const pair: Pair = { client, server, spoiled: false, due: 0 };
      pairs.add(pair);
      server.on('error', () => {});
      forward(pair, client, server, false);
      forward(pair, server, client, true);
    });
  };

  const listener: Server = createServer({ noDelay: true, allowHalfOpen: true }, (client) => {
    client.on('error', () => {});
    if (mode === 'refuse') return void reset(client);
    waiting.add(client);
    dial(client, targets());
  });
  await new Promise<void>((resolve, reject) => {
    listener.once('error', reject);
    listener.listen(0, '127.0.0.1', resolve);
  });

  return {
    port: (listener.address() as AddressInfo).port,
    get connections() {
      return pairs.size;
    },
    set(next) {
      mode = next;
      for (const pair of pairs) if (pair.spoiled || next === 'refuse') end(pair);
    },
    cut() {
      for (const pair of pairs) end(pair);
    },
    async close() {
      const closed = new Promise<void>((resolve) => listener.close(() => resolve()));
      for (const socket of waiting) reset(socket);
      for (const pair of pairs) end(pair);
      await closed;
    },
  };
}

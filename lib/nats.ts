/**
 * Connections to NATS, with the settings that measurement asked for (docs/design.md, fact F6), and the bookkeeping
 * that every role needs.
 */
import { connect, type NatsConnection } from '@nats-io/transport-node';
import type { Log } from './log.js';

export interface NatsOptions {
  /** Comma-separated `host:port` or `nats://` addresses. */
  readonly servers: string;
  /** Shown in nats-server's connection list. */
  readonly name: string;
  readonly log: Log;
  /** Give up the first connect after this many ms. @default wait for ever */
  readonly timeoutMs?: number;
}

/**
 * Connects and stays connected: after the first success every loss is followed by reconnects without end, 100 ms to
 * 2 s apart with jitter, so that a restarted nats-server is not met by a storm.
 */
export async function connectNats(options: NatsOptions): Promise<NatsConnection> {
  const nc = await connect({
    servers: options.servers.split(',').map((server) => server.trim()),
    name: options.name,
    maxReconnectAttempts: -1,
    noAsyncTraces: true,
    reconnectTimeWait: 100,
    reconnectJitter: 400,
    pingInterval: 5_000,
    maxPingOut: 3,
    ...(options.timeoutMs === undefined ? { waitOnFirstConnect: true } : { timeout: options.timeoutMs }),
  });
  void (async () => {
    for await (const status of nc.status()) {
      if (status.type === 'disconnect' || status.type === 'reconnect' || status.type === 'error') {
        options.log.warn({ nats: status.type, detail: 'server' in status ? status.server : undefined }, 'nats status');
      }
    }
  })();
  return nc;
}

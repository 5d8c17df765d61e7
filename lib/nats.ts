/**
 * Connections to NATS, with the settings that measurement asked for (docs/architecture.md, fact F6), and the bookkeeping
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

/** How long one try may take: a server that takes the connection and says nothing must not keep us from another. */
const dialMs = 5_000;
/** Tries to connect, ms apart; they double from the first to the last, and each is cut by up to a half. */
const pacing = { first: 100, last: 1_000 } as const;
/** A connection that is lost after so long was a good one: the next tries start from the beginning, ms. */
const goodMs = 10_000;

/**
 * How long the library is to wait since its last try with the same server, ms; it asks before each try and again after
 * each wait. The first try after a good connection goes at once: what was lost is the server, and another may be there.
 * The library measures by the wall clock, and would wait for an hour after that was set back by one; so once the time has
 * come by the monotonic clock, it is told not to wait.
 */
export function reconnectPacing(
  now: () => number = () => performance.now(),
  random: () => number = Math.random,
): () => number {
  let tries = 0;
  let lastTry = Number.NEGATIVE_INFINITY;
  let waitMs = 0;
  return () => {
    const at = now();
    // Timers may fire a millisecond early.
    if (at - lastTry < waitMs - 2) return waitMs;
    tries = at - lastTry > goodMs ? 0 : tries + 1;
    waitMs = Math.min(pacing.first * 2 ** Math.min(tries, 10), pacing.last) * (1 - random() / 2);
    lastTry = at;
    return Number.NEGATIVE_INFINITY;
  };
}

/**
 * Connects and stays connected: after the first success every loss is followed by reconnects without end, 50 ms to 1 s
 * apart with back-off and jitter, so that a restarted nats-server is not met by a storm.
 */
export async function connectNats(options: NatsOptions): Promise<NatsConnection> {
  const nc = await connect({
    servers: options.servers.split(',').map((server) => server.trim()),
    name: options.name,
    maxReconnectAttempts: -1,
    noAsyncTraces: true,
    reconnectDelayHandler: reconnectPacing(),
    pingInterval: 5_000,
    maxPingOut: 3,
    ...(options.timeoutMs === undefined
      ? { waitOnFirstConnect: true, timeout: dialMs }
      : { timeout: options.timeoutMs }),
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

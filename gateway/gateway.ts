/**
 * Builds and starts a gateway, for main.ts and for tests. The map of the rooms is in main.ts.
 */
import type { NatsConnection } from '@nats-io/transport-node';
import type { GatewayConfig } from '../lib/config/index.js';
import { failpoint } from '../lib/failpoint.js';
import type { Logger } from '../lib/logger.js';
import { watchTenants } from '../lib/tenants.js';
import { createCalls } from './api/calls.js';
import type { Readiness } from './api/health.js';
import { watchKeys } from './auth/key-watch.js';
import { createPendingTenants } from './auth/pending-tenants.js';
import { startEarlyCollection } from './early-collection.js';
import { createHeld } from './held/held.js';
import { followHints } from './ingest/committed-hints.js';
import { createIngest, type Ingest } from './ingest/ingest.js';
import { createStallWatch, type StallWatch, watchStalls } from './ingest/stall.js';
import { allowedConnections } from './listener/open-files.js';
import { listen } from './listener/server.js';
import { openTlsFiles } from './listener/tls-files.js';
import { createIsTrusted } from './listener/trusted-proxies.js';
import { createHedger, type Hedger } from './log/hedge.js';
import { createGatewayMetrics, type GatewayMetrics } from './metrics.js';

export interface GatewayParts {
  /** When it comes; the gateway starts without it, not ready. Stays the caller's to close, after the drain. */
  readonly nats: Promise<NatsConnection>;
  /** A second one, for `hedgeDelay`; stays the caller's to close, too. */
  readonly hedgeNats?: Promise<NatsConnection> | undefined;
  readonly logger: Logger;
}

export interface Gateway {
  readonly port: number;
  readonly ready: boolean;
  readonly reason: string | undefined;
  /** Open now. */
  readonly connections: number;
  /** Requests without a complete answer now. */
  readonly requests: number;
  /** Who deals out its connections stood still for so many ms. */
  stalled(ms: number): void;
  /** Not ready → no new connections → streams told, requests answered → what is gathered published. */
  drain(): Promise<void>;
}

/** @throws UsageError when the port, the certificate or the key cannot be used */
export async function startGateway(config: GatewayConfig, parts: GatewayParts): Promise<Gateway> {
  const { nats, logger } = parts;
  const metrics = createGatewayMetrics();
  let draining = false;

  const stalls = startStallWatch(config, metrics, logger);
  const hedger = openHedger(config, parts, metrics);
  const ingest = createIngest({ nats, config, metrics, logger, stalls: stalls.watch, hedger });
  const leaveHints = followHintsOf(parts, ingest);
  const tenants = createPendingTenants({ open: async () => watchTenants(await nats, logger, config.replicas), logger });
  const keys = watchKeys(tenants);
  const readiness = createReadiness(ingest, tenants, () => draining);
  const held = createHeld(config, ingest.isFull);
  const collections = startCollections(held.unfinished, metrics);
  const isTrusted = createIsTrusted(config.trustedProxies);
  const calls = createCalls({ config, nats, ingest, tenants, keys, held, readiness, isTrusted, metrics, logger });
  const tls = await openTlsFiles({ ...config, logger });
  const server = await listen({
    host: config.host,
    port: config.port,
    tls,
    onRefused: (reason) => metrics.handshakeFailed(reason),
    maxConnections: allowedConnections(config.maxConnections, logger),
    maxConnectionsPerAddress: config.maxConnectionsPerAddress,
    newConnectionsPerAddress: config.newConnectionsPerAddress,
    isTrusted,
    onRefusedConnection: metrics.connectionRefused,
    onEndedConnection: metrics.connectionEnded,
    maxConnectionAge: config.maxConnectionAge,
    grace: config.drainGrace,
    windows: held.windows,
    onRequest: calls.onRequest,
    onStream: calls.onStream,
    logger,
  });
  metrics.observe({
    keyCache: () => tenants.stats(),
    openStreams: () => keys.size,
    unfinishedBytes: () => held.unfinished.bytes,
    connections: () => server.connections,
    ...(tls === undefined ? {} : { certificateExpiresAtMs: () => tls.expiresAtMs, tlsReloads: () => tls.reloads }),
  });

  return {
    port: server.port,
    get ready() {
      return readiness.ready;
    },
    get reason() {
      return readiness.reason;
    },
    get connections() {
      return server.connections;
    },
    get requests() {
      return server.requests;
    },
    stalled: (ms) => stalls.watch.stalled(performance.now(), ms),
    async drain() {
      if (draining) return;
      draining = true;
      stalls.end();
      collections.end();
      tls?.close();
      const until = Date.now() + config.drainGrace;
      const served = server.drain('This gateway is going away.', config.drainGrace);
      failpoint('gateway.draining');
      await served;
      failpoint('gateway.drained');
      await ingest.drain(Math.max(500, until - Date.now()));
      leaveHints();
      calls.close();
      await tenants.close();
    },
  };
}

function startStallWatch(
  { stallAfter }: GatewayConfig,
  metrics: GatewayMetrics,
  logger: Logger,
): { readonly watch: StallWatch; end(): void } {
  let count = 0;
  const watch = createStallWatch(stallAfter, (ms) => {
    count++;
    logger.warn(
      { ms: Math.round(ms) },
      'the gateway stood still: batches on older connections are treated as possible retries (LOAD-5)',
    );
  });
  metrics.observe({ stalls: () => count });
  return { watch, end: watchStalls(watch) };
}

function startCollections(
  unfinished: { readonly crowded: boolean; readonly roomy: boolean },
  metrics: GatewayMetrics,
): { end(): void } {
  let count = 0;
  const end = startEarlyCollection(
    () => unfinished.crowded || !unfinished.roomy,
    () => {
      count++;
    },
  );
  metrics.observe({ earlyCollections: () => count });
  return { end };
}

/** Undefined: no message is sent twice. */
function openHedger(
  { hedgeDelay, coalesceBytes }: GatewayConfig,
  { hedgeNats, logger }: GatewayParts,
  metrics: GatewayMetrics,
): Hedger | undefined {
  if (hedgeDelay === 0 || hedgeNats === undefined) return undefined;
  return createHedger({ nats: hedgeNats, delayMs: hedgeDelay, payloadBytes: coalesceBytes, metrics, logger });
}

/** Listens to the workers' words as soon as NATS is there. @returns what ends that */
function followHintsOf({ nats, logger }: GatewayParts, { commits }: Ingest): () => void {
  let ended = false;
  let leave: (() => void) | undefined;
  nats.then(
    (nc) => {
      if (!ended) leave = followHints(nc, commits, logger);
    },
    // The publisher reports it.
    () => {},
  );
  return () => {
    ended = true;
    leave?.();
  };
}

function createReadiness(
  ingest: Pick<Ingest, 'ready' | 'reason'>,
  tenants: { readonly ready: boolean },
  isDraining: () => boolean,
): Readiness {
  return {
    get ready() {
      return !isDraining() && ingest.ready && tenants.ready;
    },
    get reason() {
      if (isDraining()) return 'draining';
      return ingest.reason ?? (tenants.ready ? undefined : 'the keys have not been read yet');
    },
  };
}

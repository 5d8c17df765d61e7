/**
 * Builds and starts a gateway, for main.ts and for tests. The map of the rooms is in main.ts.
 */
import type { NatsConnection } from '@nats-io/transport-node';
import { Health } from '#gen/grpc/health/v1/health_pb.js';
import { IngestService } from '#gen/sluice/ingest/v1/ingest_pb.js';
import type { GatewayConfig } from '../lib/config/index.js';
import { SluiceError } from '../lib/errors.js';
import { failpoint } from '../lib/failpoint.js';
import type { Logger } from '../lib/logger.js';
import { isStrangers, watchTenants } from '../lib/tenants.js';
import { createBatchStatus } from './api/batch-status.js';
import { passInTime } from './api/call-timeout.js';
import { createHealth, type Readiness } from './api/health.js';
import { createHotHandler } from './api/hot/handler.js';
import { refuseCall } from './api/hot/protocols.js';
import { createHttpApi } from './api/http-api.js';
import { jsonLimitsOf } from './api/json-request.js';
import { createPublishBatch } from './api/publish-batch.js';
import { reflectionRoutes } from './api/reflection.js';
import { createRpcRoutes, maxJsonBytes } from './api/routes.js';
import { createRpcAdapter } from './api/rpc-adapter.js';
import { watchKeys } from './auth/key-watch.js';
import { pendingTenants } from './auth/pending-tenants.js';
import { startEarlyCollection } from './early-collection.js';
import { answerError } from './errors/http-answers.js';
import { toConnectError } from './errors/rpc-errors.js';
import { createCallGate } from './held/call-gate.js';
import { createInflater } from './held/inflate.js';
import { createJsonTurns } from './held/json-turns.js';
import { createMessageBuffers } from './held/message-buffers.js';
import { RequestInput } from './held/request-input.js';
import { createStreamPlaces } from './held/stream-places.js';
import { createUnfinished, type UnfinishedBytes } from './held/unfinished.js';
import { followHints } from './ingest/committed-hints.js';
import { createIngest } from './ingest/ingest.js';
import { createStallWatch, watchStalls } from './ingest/stall.js';
import { resetWhenAnswered } from './listener/answered-early.js';
import type { Connection } from './listener/connection.js';
import { createCors } from './listener/cors.js';
import { headerFault } from './listener/header-limits.js';
import type { NodeRequest, NodeResponse } from './listener/node-request.js';
import { allowedConnections } from './listener/open-files.js';
import { listen } from './listener/server.js';
import { StreamWindows } from './listener/stream-windows.js';
import { openTlsFiles } from './listener/tls-files.js';
import { createClientAddress, createIsTrusted } from './listener/trusted-proxies.js';
import { createHedger } from './log/hedge.js';
import { createGatewayMetrics } from './metrics.js';
import { createTracing } from './tracing.js';

/** Single calls that are read at the same time: far more than it takes to keep two cores busy. */
const callsAtOnce = 96;
const tenantCallsAtOnce = 24;
/** Of whole calls that need no seat: a quarter of what admission holds for one tenant by default. */
const maxSeatlessBytes = 4 * 1024 ** 2;
/** Buffers for messages that came in parts, kept for the next ones. */
const maxBufferBytes = 8 * 1024 ** 2;
/** A call that takes longer does not count any more. */
const slowCallMs = 2_000;

const singleBatchPath = /^\/(?:sluice\.ingest\.v1\.IngestService\/Publish|v1\/events(?:\/batch)?)(?:\?|$)/;
/** Messages come whenever their client likes. */
const isStream = (url: string): boolean => /\/(?:PublishStream|ServerReflectionInfo)$/.test(url);
const tooManyRefused = (): SluiceError =>
  new SluiceError(
    'too_many_refusals',
    'Too many requests on this connection had no valid key, had nothing at their path, or were probes: the connection ends.',
    { retryAfterMs: 5_000 },
  );
const isSingleBatch = (url: string): boolean => singleBatchPath.test(url);

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
export async function startGateway(config: GatewayConfig, { nats, hedgeNats, logger }: GatewayParts): Promise<Gateway> {
  const metrics = createGatewayMetrics();
  let stallCount = 0;
  const stalls = createStallWatch(config.stallAfter, (ms) => {
    stallCount++;
    logger.warn(
      { ms: Math.round(ms) },
      'the gateway stood still: batches on older connections are treated as possible retries (LOAD-5)',
    );
  });
  const endWatch = watchStalls(stalls);
  let earlyCollections = 0;
  const endCollections = startEarlyCollection(
    () => unfinished.crowded || !unfinished.roomy,
    () => {
      earlyCollections++;
    },
  );
  const hedger =
    config.hedgeDelay === 0 || hedgeNats === undefined
      ? undefined
      : createHedger({
          nats: hedgeNats,
          delayMs: config.hedgeDelay,
          payloadBytes: config.coalesceBytes,
          metrics,
          logger,
        });
  const ingest = createIngest({ nats, config, metrics, logger, stalls, hedger });
  let draining = false;
  let leaveHints: (() => void) | undefined;
  nats.then(
    (nc) => {
      if (!draining) leaveHints = followHints(nc, ingest.commits, logger);
    },
    // The publisher reports it.
    () => {},
  );
  const tenants = pendingTenants({ open: async () => watchTenants(await nats, logger, config.replicas), logger });
  const keys = watchKeys(tenants);
  metrics.observe({
    keyCache: () => tenants.stats(),
    openStreams: () => keys.size,
    stalls: () => stallCount,
    earlyCollections: () => earlyCollections,
  });

  const readiness: Readiness = {
    get ready() {
      return !draining && ingest.ready && tenants.ready;
    },
    get reason() {
      if (draining) return 'draining';
      return ingest.reason ?? (tenants.ready ? undefined : 'the keys have not been read yet');
    },
  };

  const isTrusted = createIsTrusted(config.trustedProxies);
  const facts = {
    storeClientAddress: config.storeClientAddress,
    storeUserAgent: config.storeUserAgent,
    clientAddress: createClientAddress(isTrusted),
  };
  const publish = createPublishBatch({
    ingest,
    tracing: createTracing(),
    metrics,
    logPositions: config.logPositions,
    logger,
  });
  const health = createHealth(readiness, [IngestService.typeName]);
  const reflection = reflectionRoutes([IngestService, Health], {
    authorize: config.reflection === 'open' ? undefined : (header) => tenants.lookup(header.get('authorization')),
  });
  const streams = createStreamPlaces(config);
  const inflater = createInflater();
  const jsonTurns = createJsonTurns();
  const windows = new StreamWindows({
    maxBytes: config.maxUnfinishedBytes / 4,
    isCrowded: () => unfinished.crowded,
  });
  const unfinished: UnfinishedBytes = createUnfinished({
    beyondNarrow: () => windows.bytes,
    maxBytes: config.maxUnfinishedBytes,
    maxTenantBytes: config.maxTenantUnfinishedBytes,
    isFull: ingest.isFull,
    random: Math.random,
    everyTick: (callback, ms) => {
      const timer = setInterval(callback, ms).unref();
      return () => clearInterval(timer);
    },
  });
  metrics.observe({ unfinishedBytes: () => unfinished.bytes });
  const buffers = createMessageBuffers(maxBufferBytes);
  const routes = createRpcRoutes({
    ingest,
    tenants,
    keys,
    streams: streams.library,
    publish,
    batchStatus: createBatchStatus(nats),
    metrics,
    facts,
    inflater,
    jsonTurns,
    unfinished,
    more: (router) => {
      health.routes(router);
      if (config.reflection !== 'off') reflection(router);
    },
  });
  const maxBodyBytes = maxJsonBytes(config.maxBatchBytes);
  const http = createHttpApi({
    tenants,
    publish,
    readiness,
    metrics,
    facts,
    maxBodyBytes,
    buffers,
    limits: jsonLimitsOf(config),
    inflater,
    jsonTurns,
    logger,
  });
  const cors = createCors(config.corsOrigins);
  const gate = createCallGate({
    max: callsAtOnce,
    maxOfTenant: tenantCallsAtOnce,
    holdMs: slowCallMs,
    maxSkippedBytes: maxSeatlessBytes,
  });

  const handle = createRpcAdapter({
    routes,
    fallback: http,
    maxBatchBytes: config.maxBatchBytes,
    buffers,
    isRoomy: () => unfinished.roomy,
    onRefused: metrics.failed,
    logger,
  });

  const hot = config.hotPath
    ? createHotHandler({
        ingest,
        tenants,
        keys,
        streams: streams.hot,
        publish,
        metrics,
        facts,
        gate,
        unfinished,
        buffers,
        cors: cors.headers,
      })
    : undefined;

  const refuse = (response: NodeResponse, error: SluiceError): void => {
    metrics.failed(error.code);
    answerError(response, error);
  };

  /**
   * Whether a call without a key brings nothing: it is refused, there is nothing at its path, or it is a probe. Each probe costs 0.1 ms,
   * and a balancer asks a few times a second. Open RPCs have bounds of their own (open-routes.ts).
   */
  const bringsNothing = (url: string): boolean => routes.get(url.split('?', 1)[0] ?? '')?.open !== true;

  /**
   * Who calls on Node's request objects. `tenant` undefined: a stranger, or the keys have not been read.
   * @throws SluiceError too_many_refusals: strangers have made too many calls on this connection, and it ends
   */
  const admitCaller = ({ headers, url = '' }: NodeRequest, connection: Connection): string | undefined => {
    try {
      const { tenant } = tenants.lookup(headers.authorization);
      connection.known();
      return tenant;
    } catch (reason) {
      if (isStrangers(reason) && bringsNothing(url) && !connection.refused()) throw tooManyRefused();
      return undefined;
    }
  };

  const tls = await openTlsFiles({ ...config, logger });
  if (tls !== undefined)
    metrics.observe({ certificateExpiresAtMs: () => tls.expiresAtMs, tlsReloads: () => tls.reloads });
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
    windows,
    onRequest: (request, response, connection) => {
      if (cors.answer(request, response)) return;
      const fault = headerFault(request.rawHeaders);
      if (fault !== undefined) {
        connection.refused();
        return refuse(response, fault);
      }
      let tenant: string | undefined;
      try {
        tenant = admitCaller(request, connection);
      } catch (reason) {
        return refuse(response, reason as SluiceError);
      }
      const input = new RequestInput(request, response, {
        unfinished,
        tenant: tenant ?? '',
        single: !isStream(request.url ?? ''),
        onRefused: ({ code }) => metrics.failed(code),
      });
      // Strangers take no seat: the refusal reads nothing.
      if (tenant === undefined || !isSingleBatch(request.url ?? ''))
        return handle(request, response, connection, input);
      passInTime(gate, request, response, input, () => handle(request, response, connection, input));
    },
    onStream: (stream, headers, connection, rawHeaders) => {
      const malformed = headerFault(rawHeaders);
      const served = malformed === undefined ? hot?.(stream, headers, connection) : undefined;
      if (served !== undefined) return served;
      const fault = malformed ?? routes.get(headers[':path'] ?? '')?.refusal?.(connection);
      if (fault === undefined) return undefined;
      stream.on('error', () => {});
      if (!refuseCall(stream, headers['content-type'], toConnectError(fault))) return undefined;
      connection.refused();
      resetWhenAnswered(stream);
      metrics.failed(fault.code);
      return { closed: () => {} };
    },
    logger,
  });

  metrics.observe({ connections: () => server.connections });

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
    stalled: (ms) => stalls.stalled(performance.now(), ms),
    async drain() {
      if (draining) return;
      draining = true;
      endWatch();
      endCollections();
      tls?.close();
      const until = Date.now() + config.drainGrace;
      const served = server.drain('This gateway is going away.', config.drainGrace);
      failpoint('gateway.draining');
      await served;
      failpoint('gateway.drained');
      await ingest.drain(Math.max(500, until - Date.now()));
      leaveHints?.();
      health.close();
      await tenants.close();
    },
  };
}

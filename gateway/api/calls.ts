/**
 * All calls of a gateway, put together: the RPCs through the library and below it, plain HTTP, and the entrance in front of them.
 */
import type { NatsConnection } from '@nats-io/transport-node';
import { Health } from '#gen/grpc/health/v1/health_pb.js';
import { IngestService } from '#gen/sluice/ingest/v1/ingest_pb.js';
import type { GatewayConfig } from '../../lib/config/index.js';
import type { Logger } from '../../lib/logger.js';
import type { TenantDirectory } from '../../lib/tenants.js';
import type { KeyWatch } from '../auth/key-watch.js';
import type { Held } from '../held/held.js';
import { createStreamPlaces } from '../held/stream-places.js';
import type { Ingest } from '../ingest/ingest.js';
import { createCors } from '../listener/cors.js';
import { createClientAddress } from '../listener/trusted-proxies.js';
import type { GatewayMetrics } from '../metrics.js';
import { createTracing } from '../tracing.js';
import { createBatchStatus } from './batch-status.js';
import { createEntrance, type Entrance } from './entrance.js';
import { createHealth, type Readiness } from './health.js';
import { createHotHandler } from './hot/handler.js';
import { createHttpApi } from './http-api.js';
import { jsonLimitsOf } from './json-request.js';
import { createPublishBatch } from './publish-batch.js';
import { reflectionRoutes } from './reflection.js';
import { createRpcRoutes, maxJsonBytes } from './routes.js';
import { createRpcAdapter } from './rpc-adapter.js';

export interface CallOptions {
  readonly config: GatewayConfig;
  readonly nats: Promise<NatsConnection>;
  readonly ingest: Ingest;
  readonly tenants: TenantDirectory;
  readonly keys: KeyWatch;
  readonly held: Held;
  readonly readiness: Readiness;
  /** Whether an address is that of a proxy that may say where the client is. */
  readonly isTrusted: (address: string) => boolean;
  readonly metrics: GatewayMetrics;
  readonly logger: Logger;
}

export interface Calls extends Entrance {
  /** Ends the watches of health. */
  close(): void;
}

export function createCalls(options: CallOptions): Calls {
  const { config, ingest, tenants, keys, held, readiness, metrics, logger } = options;
  const { unfinished, buffers, inflater, jsonTurns, gate } = held;
  const facts = {
    storeClientAddress: config.storeClientAddress,
    storeUserAgent: config.storeUserAgent,
    clientAddress: createClientAddress(options.isTrusted),
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
  const cors = createCors(config.corsOrigins);

  const shared = { ingest, tenants, keys, publish, metrics, facts, unfinished, buffers, inflater, jsonTurns, logger };
  const routes = createRpcRoutes({
    ...shared,
    streams: streams.library,
    batchStatus: createBatchStatus(options.nats),
    more: (router) => {
      health.routes(router);
      if (config.reflection !== 'off') reflection(router);
    },
  });
  const http = createHttpApi({
    ...shared,
    readiness,
    maxBodyBytes: maxJsonBytes(config.maxBatchBytes),
    limits: jsonLimitsOf(config),
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
    ? createHotHandler({ ...shared, streams: streams.hot, gate, cors: cors.headers })
    : undefined;
  return {
    ...createEntrance({ tenants, metrics, held, cors, routes, handle, hot }),
    close: health.close,
  };
}

/** What serves calls with a key, through the RPC library and below it. */
import type { TenantDirectory } from '../../lib/tenants.js';
import type { KeyWatch } from '../auth/key-watch.js';
import type { Places } from '../held/places.js';
import type { UnfinishedBytes } from '../held/unfinished.js';
import type { Ingest } from '../ingest/ingest.js';
import type { GatewayMetrics } from '../metrics.js';
import type { PublishBatch } from './publish-batch.js';
import type { FactOptions } from './request-facts.js';

export interface KeyedCallOptions {
  readonly ingest: Pick<Ingest, 'limits' | 'room' | 'commits'>;
  readonly tenants: Pick<TenantDirectory, 'lookup'>;
  readonly keys: KeyWatch;
  /** Of PublishStream calls, by key id. */
  readonly streams: Pick<Places<string>, 'take'>;
  readonly publish: PublishBatch;
  readonly metrics: Pick<GatewayMetrics, 'failed'>;
  readonly facts: FactOptions;
  readonly unfinished: UnfinishedBytes;
}

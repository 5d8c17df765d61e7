import { metrics as api } from '@opentelemetry/api';
import { MeterProvider, MetricReader } from '@opentelemetry/sdk-metrics';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { RejectionCode } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { createGatewayMetrics } from './metrics.js';

class ManualReader extends MetricReader {
  protected async onShutdown(): Promise<void> {}
  protected async onForceFlush(): Promise<void> {}
}

test('what is reported is what is collected', async () => {
  const reader = new ManualReader();
  api.setGlobalMeterProvider(new MeterProvider({ readers: [reader] }));
  const metrics = createGatewayMetrics();
  metrics.scanned(500, 0, []);
  metrics.stored(500);
  metrics.scanned(1, 103, [
    { code: RejectionCode.REQUIRED },
    { code: RejectionCode.REQUIRED },
    { code: RejectionCode.UTF8 },
  ]);
  metrics.stored(1);
  metrics.scanned(0, 1, [{ code: RejectionCode.WIRE }]);
  metrics.stored(0);
  metrics.failed('overloaded');
  metrics.flushed('delay');
  metrics.sent(70_000);
  metrics.published('stored', 3);
  metrics.published('timeout', 0);
  metrics.observe({ bytesInFlight: () => 42, unfinishedBytes: () => 7, openStreams: () => 1 });
  metrics.observe({ openStreams: () => 3, keyCache: () => ({ hits: 9, misses: 1 }) });

  const { resourceMetrics, errors } = await reader.collect();
  assert.equal(errors, []);
  const points = new Map<string, unknown>();
  for (const { descriptor, dataPoints } of resourceMetrics.scopeMetrics.flatMap((scope) => scope.metrics)) {
    for (const { attributes, value } of dataPoints) {
      const labels = Object.values(attributes).join();
      points.set(`${descriptor.name}{${labels}}`, typeof value === 'number' ? value : value.count);
    }
  }
  assert.equal(Object.fromEntries([...points].toSorted()), {
    'sluice_gateway_batch_events{}': 3,
    'sluice_gateway_batches_total{nothing_valid}': 1,
    'sluice_gateway_batches_total{stored}': 2,
    'sluice_gateway_errors_total{overloaded}': 1,
    'sluice_gateway_events_total{accepted}': 501,
    'sluice_gateway_events_total{rejected}': 104,
    'sluice_gateway_flushes_total{delay}': 1,
    'sluice_gateway_in_flight_bytes{}': 42,
    'sluice_gateway_key_cache_total{hit}': 9,
    'sluice_gateway_key_cache_total{miss}': 1,
    'sluice_gateway_open_streams{}': 3,
    'sluice_gateway_payload_bytes{}': 1,
    'sluice_gateway_publish_ms{}': 1,
    'sluice_gateway_publishes_total{stored}': 1,
    'sluice_gateway_publishes_total{timeout}': 1,
    'sluice_gateway_rejected_events_total{NOT_LISTED}': 100,
    'sluice_gateway_rejected_events_total{REQUIRED}': 2,
    'sluice_gateway_rejected_events_total{UTF8}': 1,
    'sluice_gateway_rejected_events_total{WIRE}': 1,
    'sluice_gateway_unfinished_bytes{}': 7,
  });
});

test.run();

/**
 * Drives the ingest core in its own process against a real nats-server: what scan, framing, group commit and publishing
 * cost, without any RPC.
 *
 *   node --import tsx bench/ingest-core.ts [--events 500] [--seconds 5] [--callers 64] [--tenants 1]
 *                                          [--window 32] [--coalesce-bytes 131072]
 */
import { parseArgs } from 'node:util';
import { createIngest } from '../gateway/ingest/ingest.js';
import { createGatewayMetrics } from '../gateway/metrics.js';
import { gatewayOptions } from '../lib/config/index.js';
import { contractRevision } from '../lib/contract/index.js';
import { silentLogger } from '../lib/logger.js';
import { connectNats } from '../lib/nats.js';
import { createRandom, encodeBatch, makeBatch } from '../lib/testing/batches.js';
import { withNats } from '../lib/testing/nats.js';
import { cpuSeconds } from '../lib/testing/process-use.js';
import { GiB, MiB } from '../lib/units.js';

const { values } = parseArgs({
  options: {
    events: { type: 'string', default: '500' },
    seconds: { type: 'string', default: '5' },
    callers: { type: 'string', default: '64' },
    tenants: { type: 'string', default: '1' },
    window: { type: 'string', default: String(gatewayOptions.publishWindow.default) },
    'coalesce-bytes': { type: 'string', default: String(gatewayOptions.coalesceBytes.default) },
  },
});
const [events, seconds, callers, tenants] = [values.events, values.seconds, values.callers, values.tenants].map(
  Number,
) as [number, number, number, number];

const defaults = Object.fromEntries(
  Object.entries(gatewayOptions).map(([name, spec]) => [name, spec.default]),
) as unknown as Parameters<typeof createIngest>[0]['config'];

const random = createRandom(1);
const batches = Array.from({ length: 32 }, () => encodeBatch(makeBatch(random, events)));
const eventBytes = batches.reduce((sum, batch) => sum + batch.length, 0) / (batches.length * events);

await withNats(async ({ url, process: natsServer }) => {
  const natsPid = natsServer().pid ?? -1;
  const nats = connectNats({ servers: url, name: 'bench', logger: silentLogger });
  const ingest = createIngest({
    nats,
    config: {
      ...defaults,
      shardMaxBytes: 16 * GiB,
      publishWindow: Number(values.window),
      coalesceBytes: Number(values['coalesce-bytes']),
    },
    metrics: createGatewayMetrics(),
    logger: silentLogger,
  });
  while (!ingest.ready) await new Promise((resolve) => setTimeout(resolve, 10));

  let acked = 0;
  let failed = 0;
  let running = true;
  let measuring = false;
  const latencies: number[] = [];
  const caller = async (name: number): Promise<void> => {
    for (let i = 0; running; i++) {
      const began = performance.now();
      try {
        const result = await ingest.publish({
          tenant: `tenant-${name % tenants}`,
          batch: batches[(name + i) % batches.length] as Uint8Array,
          batchId: `bench-${name}-${i}`,
          attempt: 1,
          client: 'sluice-bench/0.1.0',
        });
        if (measuring) {
          acked += result.accepted;
          if ((i & 15) === 0) latencies.push(performance.now() - began);
        }
      } catch (error) {
        failed++;
        if (failed === 1) console.error(error);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  };
  const work = Array.from({ length: callers }, (_, name) => caller(name));
  const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));
  await pause(1_500);
  const cpuBefore = process.cpuUsage();
  const natsBefore = cpuSeconds(natsPid);
  const messagesBefore = (await nats).stats().outMsgs;
  const began = performance.now();
  measuring = true;
  await pause(seconds * 1_000);
  measuring = false;
  const cpu = process.cpuUsage(cpuBefore);
  const natsCpu = cpuSeconds(natsPid) - natsBefore;
  const messages = (await nats).stats().outMsgs - messagesBefore;
  const elapsed = (performance.now() - began) / 1_000;
  running = false;
  await Promise.all(work);
  await ingest.drain(1_000);
  await (await nats).close();

  latencies.sort((a, b) => a - b);
  const quantile = (q: number) => Number((latencies[Math.floor(latencies.length * q)] ?? 0).toFixed(2));
  console.log(
    JSON.stringify({
      case: 'ingest-core',
      contract: contractRevision,
      events_per_batch: events,
      bytes_per_event: Math.round(eventBytes),
      callers,
      tenants,
      acked_events_per_s: Math.round(acked / elapsed),
      cpu_s_per_million: Number(((cpu.user + cpu.system) / 1e6 / (acked / 1e6)).toFixed(3)),
      nats_cpu_s_per_million: Number((natsCpu / (acked / 1e6)).toFixed(3)),
      events_per_message: Math.round((acked / messages) * 10) / 10,
      user_s_per_million: Number((cpu.user / 1e6 / (acked / 1e6)).toFixed(3)),
      ack_ms: { p50: quantile(0.5), p95: quantile(0.95), p99: quantile(0.99) },
      rss_mib: Math.round(process.memoryUsage().rss / MiB),
      failed,
    }),
  );
});

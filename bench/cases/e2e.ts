/**
 * Everything: streams through a gateway into JetStream, a worker, ClickHouse. Ends with a comparison of what is stored
 * with what was acknowledged, and with what it takes on disk.
 */
import type { Command } from 'commander';
import { profileArguments } from '../../lib/testing/role-process.js';
import { latencyChart, sampleCharts } from '../charts.js';
import { checkExactlyOnce } from '../exactly-once.js';
import { startFleet } from '../fleet.js';
import { measurePhase, type Phase } from '../measure.js';
import { positive, sizeFlag } from '../options.js';
import { ingestReport, ingestTitle, phaseLines, type Result, row, whole } from '../report.js';
import { partsOf } from '../samples.js';
import { eventsTable, withStack } from '../stack.js';
import { addStreamOptions, type CaseOptions, caseCommand, type Progress, type StreamOptions } from './case.js';
import { diskLines, measureStorage, storageLines } from './storage.js';

interface E2eOptions extends CaseOptions, StreamOptions {
  readonly workers: number;
  readonly shardMaxBytes: string;
}

async function* e2e(options: E2eOptions, progress: Progress): AsyncGenerator<Result> {
  const { workers, shards, shardMaxBytes, flags, telemetry, profile, batch, seconds } = options;
  progress('starting the servers');
  yield await withStack(
    { gateways: 1, workers, shards, shardMaxBytes, flags, telemetry, profile },
    async (stack): Promise<Result> => {
      const { clickhouse } = stack;
      if (clickhouse === undefined) throw new Error('e2e needs a worker');
      const { connections, streams, inFlight, seed } = options;
      const fleet = await startFleet({
        target: { kind: 'gateway', url: stack.gatewayUrl, key: stack.key, connections, streams },
        tenant: stack.tenant,
        batch,
        inFlight,
        seed,
        processes: options.loadProcesses,
        nodeArguments: profileArguments(profile, 'load'),
      });
      try {
        const shape = { warmUpSeconds: options.warmUp, seconds, progress };
        const first = await measurePhase(stack, fleet, { ...shape, rate: options.rate ?? 'max' });
        const phases: Phase[] = [first];
        if (options.rate === undefined) {
          const sustained = Math.min(first.acked_events_per_s, first.stored_events_per_s ?? 0);
          phases.push(await measurePhase(stack, fleet, { ...shape, rate: sustained / 2 }));
        }
        const latency = phases.at(-1) ?? first;
        progress('comparing what is stored with what was acknowledged');
        const checked = await checkExactlyOnce(
          clickhouse.ask,
          eventsTable,
          { batches: latency.total_batches, eventsPerBatch: batch, resends: latency.total_resends },
          progress,
        );
        const storage = await measureStorage(clickhouse, progress);
        const { bytesPerEvent } = fleet;
        const report = ingestReport({ case: 'e2e', throughput: [first], latency, batch, bytesPerEvent, seconds });
        const lags = first.samples.map((sample) => sample.lag ?? 0);
        const json = {
          ...report,
          checked,
          // The last phase is the longest look when there is one phase only; with two, the first is the loaded one.
          rss_slope_mib_per_min: Object.fromEntries(
            Object.entries(first.rss_slope).map(([role, { perMinute, low, high }]) => [role, [perMinute, low, high]]),
          ),
          lag_events: { most: Math.max(...lags), end: lags.at(-1) ?? 0 },
          drain_s: first.drain_s,
          active_parts: partsOf(first.samples),
          log_mib_most: Math.max(...first.samples.map((sample) => sample.logMib ?? 0)),
          resends: latency.total_resends,
          disk_write_mb_per_s: first.disk_write_mb_per_s,
          disk_busy: first.disk_busy,
          storage,
        };
        const slopes = Object.entries(first.rss_slope).map(
          ([role, slope]) =>
            `${role} ${slope.perMinute.toFixed(1)} (${slope.low.toFixed(1)} to ${slope.high.toFixed(1)})`,
        );
        const lines = [
          ingestTitle(report),
          ...phases.flatMap((phase) => phaseLines('e2e', phase)),
          '',
          row(
            'stored = acknowledged',
            `${whole(checked.events)} events in ${whole(checked.batches)} batches, each once`,
          ),
          row('behind, most and end', `${whole(json.lag_events.most)} and ${whole(json.lag_events.end)} events`),
          row('active parts, most, end', `${json.active_parts.most}, ${json.active_parts.end}`),
          row('log, most', `${whole(json.log_mib_most)} MiB (limit ${shardMaxBytes} a shard)`),
          ...(slopes.length === 0 ? [] : [row('memory, MiB/min', slopes.join(', '))]),
          ...diskLines(first),
          ...storageLines(storage),
        ];
        const charts = [
          latencyChart(`e2e at ${Math.round(latency.acked_events_per_s)}/s`, latency.ack_distribution),
          ...sampleCharts('e2e', first.samples),
        ];
        return { json, lines, charts };
      } finally {
        await fleet.close();
      }
    },
  );
}

export const e2eCommand = (): Command =>
  caseCommand<E2eOptions>({
    name: 'e2e',
    summary: 'gRPC streams → gateway → JetStream → worker → ClickHouse; checks that stored = acknowledged',
    seconds: 10,
    warmUp: 3,
    add: (command) =>
      addStreamOptions(command)
        .option('--workers <n>', 'workers', positive(64), 1)
        .option(
          '--shard-max-bytes <size>',
          'most bytes of a shard of the log; full means "slow down"',
          sizeFlag,
          '2GiB',
        ),
    help: `
Figures:
  Default: a closed-loop phase (as fast as acks allow) gives throughput and CPU; what is not stored by then is waited for.
  Then an open-loop phase at half of what was stored meanwhile gives ack_ms. --rate makes it one phase.
  stored_events_per_s: rows that reached ClickHouse inside the window. lag_events: acknowledged, not stored yet.
  At the end each batch is counted in ClickHouse: there once, with exactly its events (checked).
  rss_slope_mib_per_min: rise of memory over the last two thirds of the window: [slope, low, high], the ends of its 95 %
  interval (from 60 s on).
  storage: bytes on disk an event after merging, and the ratio to the events as JSON, with random ids and without them.
  disk_busy near 1 means that the disk is the limit.
Examples:
  npm run bench -- e2e --json
  npm run bench -- e2e --rate 510000 --seconds 900 --report e2e.html       15 minutes at a rate
  npm run bench -- e2e --rate max --seconds 120 --shard-max-bytes 1GiB     more than ClickHouse can take: the log fills
`,
    run: e2e,
  });

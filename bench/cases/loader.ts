/**
 * Draining a backlog: streams that are full before a worker starts, then rows a second into ClickHouse, as fast as it goes.
 */
import { execFile } from 'node:child_process';
import { statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { promisify } from 'node:util';
import type { Command } from 'commander';
import { ensureShards } from '../../lib/log-streams.js';
import { samplesCharts } from '../charts.js';
import { cpuByRole, diskUse } from '../cpu.js';
import { checkExactlyOnce } from '../exactly-once.js';
import { positive } from '../options.js';
import { machine, processLines, type Result, row, whole } from '../report.js';
import { profileArguments } from '../roles.js';
import { startSampling } from '../samples.js';
import { slopeOf } from '../scenarios/slope.js';
import { eventsTable, withStack } from '../stack.js';
import { type CaseOptions, caseCommand, type Progress } from './case.js';
import { fillLog } from './fill.js';
import { diskLines, measureStorage, storageLines } from './storage.js';

interface LoaderOptions extends CaseOptions {
  readonly batch: number;
  readonly workers: number;
  /** Events; undefined: enough for the window at a rate that was never reached. */
  readonly backlog: number | undefined;
  readonly firstSeconds: number;
}

/** Events/s that the backlog is made for. */
const bestRate = 1_300_000;
/** Bytes an event takes in the log and, at most, in ClickHouse while it merges. */
const diskBytesPerEvent = 160 + 120;
/** The benchmark takes at most this share of the free disk. */
const shareOfDisk = 0.5;

async function* loader(options: LoaderOptions, progress: Progress): AsyncGenerator<Result> {
  const { workers, shards, flags, telemetry, profile, batch, seed } = options;
  const { bavail, bsize } = statfsSync(tmpdir());
  const room = Math.floor((bavail * bsize * shareOfDisk) / diskBytesPerEvent);
  const wanted = options.backlog ?? Math.ceil(options.seconds * bestRate);
  const events = Math.ceil(Math.min(wanted, room) / batch) * batch;
  progress(
    `a backlog of ${whole(events)} events, ${Math.ceil((events * 160) / 1e9)} GB` +
      (room < wanted ? `: ${whole(wanted)} were wanted, but the free disk is not enough for more` : ''),
  );
  yield await withStack(
    { gateways: 0, workers, workersLater: true, shards, flags, telemetry, profile },
    async (stack): Promise<Result> => {
      const { warehouse } = stack;
      if (warehouse === undefined) throw new Error('loader needs a worker');
      await ensureShards(stack.nc, { shards, replicas: 1, maxBytes: Math.ceil((events * 200) / shards) + 2 ** 28 });
      const filled = await fillLog(
        stack,
        { events, batch, shards, tenant: stack.tenant, seed, nodeArguments: profileArguments(profile, 'load') },
        progress,
      );
      progress('writing the backlog back to disk');
      await promisify(execFile)('sync', { timeout: 120_000 }).catch(() => undefined);
      progress('starting the worker');
      await stack.startWorkers();
      const guarded = <T>(work: Promise<T>): Promise<T> => Promise.race([work, stack.failure]);
      const sampling = startSampling(stack, stack.pids, () => filled.events, 500);
      try {
        const began = performance.now();
        const [cpuStart, diskStart, storedStart] = [cpuByRole(stack.pids), diskUse(), await guarded(warehouse.count())];
        let first: number | undefined;
        let seconds = 0;
        let stored = storedStart;
        while (seconds < options.seconds && stored < filled.events) {
          await guarded(new Promise((resolve) => setTimeout(resolve, 500)));
          stored = await guarded(warehouse.count());
          seconds = (performance.now() - began) / 1000;
          if (first === undefined && seconds >= options.firstSeconds) first = (stored - storedStart) / seconds;
          const parts = sampling.samples.at(-1)?.parts ?? 0;
          progress(`${seconds.toFixed(0)} s: ${whole((stored - storedStart) / seconds)} rows/s, ${parts} parts`);
        }
        const cpuEnd = cpuByRole(stack.pids);
        const diskEnd = diskUse();
        const drained = stored >= filled.events;
        const rows = stored - storedStart;
        const { samples, peak } = sampling.stop();
        await stack.stopWorkers();
        progress('comparing what is stored with what was in the log');
        const expected = { batches: filled.batches, eventsPerBatch: batch, resends: filled.resends, atMost: !drained };
        const checked = await checkExactlyOnce(warehouse.ask, eventsTable, expected, progress);
        const storage = await measureStorage(warehouse, progress);
        const roles = Object.keys(stack.pids);
        const cpu = Object.fromEntries(roles.map((role) => [role, (cpuEnd[role] ?? 0) - (cpuStart[role] ?? 0)]));
        const perMillion = Object.fromEntries(roles.map((role) => [role, ((cpu[role] ?? 0) / rows) * 1e6]));
        const share = Object.fromEntries(roles.map((role) => [role, (cpu[role] ?? 0) / seconds]));
        const later = samples.slice(Math.floor(samples.length / 2));
        const trend = slopeOf(later.map(({ at, parts }) => ({ at, value: parts ?? Number.NaN })));
        const parts = { most: Math.max(0, ...samples.map((one) => one.parts ?? 0)), end: samples.at(-1)?.parts ?? 0 };
        const disk = {
          disk_write_mb_per_s: (diskEnd.writtenBytes - diskStart.writtenBytes) / 1e6 / seconds,
          disk_busy: (diskEnd.busyMs - diskStart.busyMs) / 1000 / seconds,
        };
        const json = {
          case: 'loader',
          acked_events_per_s: null,
          stored_events_per_s: rows / seconds,
          first_stored_events_per_s: first ?? rows / seconds,
          first_seconds: Math.min(options.firstSeconds, seconds),
          seconds,
          ...{ ratio_to_ceiling: null, cpu_ratio_to_ceiling: null, ack_ms: null },
          cpu_s_per_million: perMillion,
          rss_mib: peak,
          backlog_events: filled.events,
          drained,
          batch,
          checked,
          active_parts: { ...parts, per_minute: [trend.perMinute, trend.low, trend.high] },
          ...disk,
          storage,
        };
        const rate = rows / seconds;
        const lines = [
          `loader: a backlog of ${whole(filled.events)} events in batches of ${batch}, ${machine.cpus} × ${machine.model}, Node ${machine.node}`,
          '',
          row(
            'stored',
            `${whole(rate)} events/s over ${seconds.toFixed(1)} s${drained ? ', then all was stored' : ''}`,
          ),
          row(`first ${json.first_seconds.toFixed(0)} s`, `${whole(json.first_stored_events_per_s)} events/s`),
          row(
            'active parts',
            `${parts.most} at most, ${parts.end} at the end; over the second half ${trend.perMinute.toFixed(1)} a minute` +
              ` (${trend.low.toFixed(1)} to ${trend.high.toFixed(1)})`,
          ),
          row('checked', `${whole(checked.events)} events in ${whole(checked.batches)} batches, each once`),
          ...diskLines(disk),
          ...storageLines(storage),
          ...processLines(perMillion, share, peak),
        ];
        const bars = Object.entries(perMillion).map(([name, value]) => ({
          name,
          points: [['loader', value] as const],
        }));
        return {
          json,
          lines,
          charts: [
            ...samplesCharts('loader', samples),
            {
              title: 'CPU-seconds per million events, by process',
              kind: 'bar',
              stacked: true,
              x: 'case, events of a batch',
              y: 'CPU-s per million',
              series: bars,
            },
          ],
        };
      } finally {
        sampling.stop();
      }
    },
  );
}

export const loaderCommand = (): Command =>
  caseCommand<LoaderOptions>({
    name: 'loader',
    summary: 'a full log, then the worker starts: rows/s into ClickHouse, parts over time',
    seconds: 20,
    warmUp: 1,
    add: (command) =>
      command
        .option('--batch <events>', 'events of a batch', positive(10_000), 500)
        .option('--workers <n>', 'workers', positive(64), 1)
        .option(
          '--backlog <events>',
          'events in the log before the worker starts (default: enough for the window)',
          positive(1e9),
        )
        .option('--first-seconds <s>', 'the beginning that is told apart', positive(3600, false), 20),
    help: `
Figures:
  The raw publisher fills the gateway's streams; the backlog is written back to disk; then the worker starts, and from
  when it says that it is ready, rows in ClickHouse are counted for --seconds, or until all are stored (drained).
  The backlog is at most what half of the free disk holds, which is said at the start; --rate and --warm-up do nothing here.
  At the end each batch that is stored has exactly its events, and none is there twice (checked).
  active_parts.per_minute: their rise over the second half, [slope, low, high], the ends of its 95 % interval.
Examples:
  npm run bench -- loader --json
  npm run bench -- loader --seconds 120 --report loader.html
`,
    run: loader,
  });

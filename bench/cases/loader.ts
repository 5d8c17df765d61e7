/**
 * Draining a backlog: streams that are full before a worker starts, then rows a second into ClickHouse, as fast as it goes.
 */
import { execFile } from 'node:child_process';
import { statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { promisify } from 'node:util';
import type { Command } from 'commander';
import { ensureShards } from '../../lib/log-streams.js';
import { cpuByRole, diskUse } from '../../lib/testing/process-use.js';
import { profileArguments } from '../../lib/testing/role-process.js';
import { sampleCharts } from '../charts.js';
import { type Checked, checkExactlyOnce } from '../exactly-once.js';
import type { Phase } from '../measure.js';
import { positive } from '../options.js';
import { machine, processLines, type Result, row, whole } from '../report.js';
import { partsOf, type Sample, startSampling } from '../samples.js';
import { slopeOf } from '../slope.js';
import { type BenchClickHouse, eventsTable, type Stack, withStack } from '../stack.js';
import { type CaseOptions, caseCommand, type Progress } from './case.js';
import { type Filled, fillLog } from './fill.js';
import { diskLines, measureStorage, type Storage, storageLines } from './storage.js';

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

/** As many events as are wanted, or as the free disk has room for. */
function backlogOf({ backlog, seconds, batch }: LoaderOptions, progress: Progress): number {
  const { bavail, bsize } = statfsSync(tmpdir());
  const room = Math.floor((bavail * bsize * shareOfDisk) / diskBytesPerEvent);
  const wanted = backlog ?? Math.ceil(seconds * bestRate);
  const events = Math.ceil(Math.min(wanted, room) / batch) * batch;
  progress(
    `a backlog of ${whole(events)} events, ${Math.ceil((events * 160) / 1e9)} GB` +
      (room < wanted ? `: ${whole(wanted)} were wanted, but the free disk is not enough for more` : ''),
  );
  return events;
}

/** What was seen while the worker drained the backlog. */
interface Drained {
  readonly rows: number;
  readonly seconds: number;
  /** Rows a second of the beginning. */
  readonly first: number;
  /** Everything was stored before the time was over. */
  readonly whole: boolean;
  /** CPU seconds by role. */
  readonly cpu: Readonly<Record<string, number>>;
  readonly peak: Readonly<Record<string, number>>;
  readonly samples: readonly Sample[];
  readonly disk: Pick<Phase, 'disk_write_mb_per_s' | 'disk_busy'>;
}

async function drain(
  stack: Stack,
  clickhouse: BenchClickHouse,
  backlog: number,
  { seconds: most, firstSeconds }: LoaderOptions,
  progress: Progress,
): Promise<Drained> {
  const guarded = <T>(work: Promise<T>): Promise<T> => Promise.race([work, stack.failure]);
  const sampling = startSampling(stack, stack.pids, () => backlog, 500);
  try {
    const began = performance.now();
    const [cpuStart, diskStart, storedStart] = [cpuByRole(stack.pids), diskUse(), await guarded(clickhouse.count())];
    let first: number | undefined;
    let seconds = 0;
    let rows = 0;
    while (seconds < most && storedStart + rows < backlog) {
      await guarded(new Promise((resolve) => setTimeout(resolve, 500)));
      rows = (await guarded(clickhouse.count())) - storedStart;
      seconds = (performance.now() - began) / 1000;
      if (first === undefined && seconds >= firstSeconds) first = rows / seconds;
      const parts = sampling.samples.at(-1)?.parts ?? 0;
      progress(`${seconds.toFixed(0)} s: ${whole(rows / seconds)} rows/s, ${parts} parts`);
    }
    const cpuEnd = cpuByRole(stack.pids);
    const diskEnd = diskUse();
    const roles = Object.keys(stack.pids);
    return {
      ...{ rows, seconds, first: first ?? rows / seconds, whole: storedStart + rows >= backlog },
      cpu: Object.fromEntries(roles.map((role) => [role, (cpuEnd[role] ?? 0) - (cpuStart[role] ?? 0)])),
      ...sampling.stop(),
      disk: {
        disk_write_mb_per_s: (diskEnd.writtenBytes - diskStart.writtenBytes) / 1e6 / seconds,
        disk_busy: (diskEnd.busyMs - diskStart.busyMs) / 1000 / seconds,
      },
    };
  } finally {
    sampling.stop();
  }
}

function resultOf(
  { batch, firstSeconds }: LoaderOptions,
  filled: Filled,
  drained: Drained,
  checked: Checked,
  storage: Storage,
): Result {
  const { rows, seconds, cpu, samples } = drained;
  const per = (by: number) => Object.fromEntries(Object.entries(cpu).map(([role, used]) => [role, used / by]));
  const perMillion = per(rows / 1e6);
  const later = samples.slice(Math.floor(samples.length / 2));
  const trend = slopeOf(later.map(({ at, parts }) => ({ at, value: parts ?? Number.NaN })));
  const parts = partsOf(samples);
  const json = {
    case: 'loader',
    acked_events_per_s: null,
    stored_events_per_s: rows / seconds,
    first_stored_events_per_s: drained.first,
    first_seconds: Math.min(firstSeconds, seconds),
    seconds,
    ...{ ratio_to_ceiling: null, cpu_ratio_to_ceiling: null, ack_ms: null },
    cpu_s_per_million: perMillion,
    rss_mib: drained.peak,
    backlog_events: filled.events,
    drained: drained.whole,
    batch,
    checked,
    active_parts: { ...parts, per_minute: [trend.perMinute, trend.low, trend.high] },
    ...drained.disk,
    storage,
  };
  const end = drained.whole ? ', then all was stored' : '';
  const rise = `${trend.perMinute.toFixed(1)} a minute (${trend.low.toFixed(1)} to ${trend.high.toFixed(1)})`;
  const lines = [
    `loader: a backlog of ${whole(filled.events)} events in batches of ${batch}, ${machine.cpus} × ${machine.model}, Node ${machine.node}`,
    '',
    row('stored', `${whole(rows / seconds)} events/s over ${seconds.toFixed(1)} s${end}`),
    row(`first ${json.first_seconds.toFixed(0)} s`, `${whole(drained.first)} events/s`),
    row('active parts', `${parts.most} at most, ${parts.end} at the end; over the second half ${rise}`),
    row('checked', `${whole(checked.events)} events in ${whole(checked.batches)} batches, each once`),
    ...diskLines(drained.disk),
    ...storageLines(storage),
    ...processLines(perMillion, per(seconds), drained.peak),
  ];
  return { json, lines, charts: sampleCharts('loader', samples) };
}

async function* loader(options: LoaderOptions, progress: Progress): AsyncGenerator<Result> {
  const { workers, shards, flags, telemetry, profile, batch, seed } = options;
  const events = backlogOf(options, progress);
  const servers = { gateways: 0, workers, workersLater: true, shards, flags, telemetry, profile };
  yield await withStack(servers, async (stack): Promise<Result> => {
    const { clickhouse } = stack;
    if (clickhouse === undefined) throw new Error('loader needs a worker');
    await ensureShards(stack.nc, { shards, replicas: 1, maxBytes: Math.ceil((events * 200) / shards) + 2 ** 28 });
    const fill = {
      events,
      batch,
      shards,
      tenant: stack.tenant,
      seed,
      nodeArguments: profileArguments(profile, 'load'),
    };
    const filled = await fillLog(stack, fill, progress);
    progress('writing the backlog back to disk');
    await promisify(execFile)('sync', { timeout: 120_000 }).catch(() => undefined);
    progress('starting the worker');
    await stack.startWorkers();
    const drained = await drain(stack, clickhouse, filled.events, options, progress);
    await stack.stopWorkers();
    progress('comparing what is stored with what was in the log');
    const { batches, resends } = filled;
    const expected = { batches, eventsPerBatch: batch, resends, atMost: !drained.whole };
    const checked = await checkExactlyOnce(clickhouse.ask, eventsTable, expected, progress);
    return resultOf(options, filled, drained, checked, await measureStorage(clickhouse, progress));
  });
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

/**
 * Runs a scenario through the whole stack: gateway → JetStream → worker → ClickHouse, each its own process, customers with real keys,
 * all virtual clients in one load process. Watches lag and memory meanwhile, and checks at the end what is stored.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { addTenant } from '../../lib/tenants.js';
import { cpuByRole, type Pids, rssMib } from '../cpu.js';
import { profileArguments, type RoleName } from '../roles.js';
import { type BenchWarehouse, eventsTable, withStack } from '../stack.js';
import type { FromCrowd, ToCrowd } from './crowd-protocol.js';
import { createLagMeter } from './lag.js';
import { type Plan, phaseAt, planSeconds } from './plan.js';
import type { RunFacts } from './run-facts.js';
import type { Scenario } from './scenario.js';
import { boundedSeries } from './series.js';
import type { Sample } from './slope.js';
import type { Slot, TallyResult } from './tally.js';
import type { StoredBatches } from './verdicts.js';

export interface RunOptions {
  readonly connections: number;
  readonly workers: number;
  readonly shards: number;
  readonly seed: number;
  readonly telemetry: boolean;
  readonly profile: string | undefined;
  readonly flags: Readonly<Partial<Record<RoleName, readonly string[]>>>;
}

/** Slots of a quarter of a second tell a recovery of 3 s exactly enough; a long run gets by with longer ones. */
const shortSlotMs = 250;
const longSlotMs = 1_000;
const longRunSeconds = 900;
const patienceMs = 30_000;
const drainPatienceMs = 60_000;
/** Points of a curve that are kept. */
const maxPoints = 4_096;
/** Batches that one statement groups at a time. */
const batchesAtOnce = 500_000;

/** @throws Error when a process ends, or ClickHouse does not get everything in time */
export async function runScenario(
  scenario: Scenario,
  options: RunOptions,
  progress: (line: string) => void,
): Promise<RunFacts> {
  const { plan } = scenario;
  const { workers, shards, flags, telemetry, profile } = options;
  progress('starting the servers');
  return withStack({ gateways: 1, workers, shards, flags, telemetry, profile }, async (stack) => {
    const keys: string[] = [];
    for (const tenant of plan.customers) keys.push((await addTenant(stack.nc, { tenant })).key);
    const crowd = startCrowd(profile);
    const { warehouse } = stack;
    if (warehouse === undefined) throw new Error('a scenario needs at least one worker');
    try {
      const slotMs = planSeconds(plan) > longRunSeconds ? longSlotMs : shortSlotMs;
      const pids: Pids = { ...stack.pids, load: [crowd.pid] };
      const cpuStart = cpuByRole(pids);
      const watch = startWatch(warehouse, crowd, pids, plan, slotMs, progress);
      try {
        const target = { url: stack.gatewayUrl, keys, connections: options.connections };
        crowd.tell({ type: 'begin', settings: { plan, target, seed: options.seed, slotMs, patienceMs } });
        const tally = await Promise.race([crowd.result, stack.failure, watch.failure]);
        const cpuEnd = cpuByRole(pids);
        const drain = await drained(warehouse, tally, Promise.race([stack.failure, watch.failure]), progress);
        const facts = watch.stop();
        progress('comparing what is stored with what was acknowledged');
        const stored = await storedBatches(warehouse, tally);
        const cpu = Object.fromEntries(
          Object.keys(pids).map((role) => [role, (cpuEnd[role] ?? 0) - (cpuStart[role] ?? 0)]),
        );
        return { plan, ...facts, cpu, tally, stored, drain };
      } finally {
        watch.stop();
      }
    } finally {
      await crowd.close();
    }
  });
}

interface RunningCrowd {
  readonly pid: number;
  /** What the tally came to; rejects when the process fails. */
  readonly result: Promise<TallyResult>;
  tell(message: ToCrowd): void;
  onMessage(listen: (message: FromCrowd) => void): void;
  close(): Promise<void>;
}

const entry = fileURLToPath(new URL('./crowd-process.ts', import.meta.url));

function startCrowd(profile: string | undefined): RunningCrowd {
  const child: ChildProcess = fork(entry, [], {
    execArgv: ['--import', 'tsx', ...profileArguments(profile, 'load')],
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  let closing = false;
  const result = new Promise<TallyResult>((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code, signal) => {
      if (!closing) reject(new Error(`the load process ended with ${signal ?? code}`));
    });
    child.on('message', (message: FromCrowd) => {
      if (message.type === 'failed') reject(new Error(message.message));
      if (message.type === 'result') resolve(message.result);
    });
  });
  result.catch(() => undefined); // the code that waits hears of it
  return {
    pid: child.pid ?? 0,
    result,
    tell: (message) => child.send(message),
    onMessage: (listen) => child.on('message', listen),
    close: () =>
      new Promise((resolve) => {
        closing = true;
        if (child.exitCode !== null || child.signalCode !== null) return resolve();
        const killer = setTimeout(() => child.kill('SIGKILL'), 3_000);
        child.once('exit', () => {
          clearTimeout(killer);
          resolve();
        });
        child.send({ type: 'end' } satisfies ToCrowd);
      }),
  };
}

/** Two neighbours as one: sums of counts, the worse of the latencies. */
const mergeSlots = (a: Slot, b: Slot): Slot => ({
  at: b.at,
  ok: a.ok + b.ok,
  failed: a.failed + b.failed,
  waiting: b.waiting,
  acked: b.acked,
  ack: { p50: worse(a.ack.p50, b.ack.p50), p95: worse(a.ack.p95, b.ack.p95), p99: worse(a.ack.p99, b.ack.p99) },
});
const worse = (a: number, b: number): number => (Number.isNaN(a) ? b : Number.isNaN(b) ? a : Math.max(a, b));
const mergeSamples = (a: Sample, b: Sample): Sample => ({ at: b.at, value: Math.max(a.value, b.value) });
const meanSamples = (a: Sample, b: Sample): Sample => ({ at: (a.at + b.at) / 2, value: (a.value + b.value) / 2 });

interface Watch {
  readonly failure: Promise<never>;
  stop(): Pick<RunFacts, 'slots' | 'lag' | 'rss'>;
}

function startWatch(
  warehouse: BenchWarehouse,
  crowd: RunningCrowd,
  pids: Pids,
  plan: Plan,
  slotMs: number,
  progress: (line: string) => void,
): Watch {
  const slots = boundedSeries<Slot>(maxPoints * 8, mergeSlots);
  const lag = boundedSeries<Sample>(maxPoints, mergeSamples);
  const rss = Object.fromEntries(
    Object.keys(pids).map((role) => [role, boundedSeries<Sample>(maxPoints, meanSamples)]),
  );
  const meter = createLagMeter();
  let began: number | undefined;
  let lastLag = 0;
  let told = 0;
  let before: Slot | undefined;
  const progressMs = slotMs === shortSlotMs ? 1_000 : 10_000;
  let fail: (error: Error) => void = () => undefined;
  const failure = new Promise<never>((_, reject) => {
    fail = reject;
  });
  failure.catch(() => undefined);
  const elapsed = () => (began === undefined ? 0 : (performance.timeOrigin + performance.now() - began) / 1000);

  crowd.onMessage((message) => {
    if (message.type === 'began') began = message.at;
    if (message.type !== 'slot') return;
    // JSON has no NaN: a slot without an answer comes with null.
    const { ack } = message.slot;
    const slot = {
      ...message.slot,
      ack: { p50: ack.p50 ?? Number.NaN, p95: ack.p95 ?? Number.NaN, p99: ack.p99 ?? Number.NaN },
    };
    slots.push(slot);
    meter.acked(slot.at / 1000, slot.acked);
    if (slot.at - told < progressMs) return;
    const phase = plan.phases[phaseAt(plan.phases, slot.at)]!.name;
    const perSecond = ((slot.acked - (before?.acked ?? 0)) / (slot.at - (before?.at ?? 0))) * 1000;
    const p95 = Number.isNaN(slot.ack.p95) ? '-' : slot.ack.p95.toFixed(1);
    progress(
      `${(slot.at / 1000).toFixed(0)} of ${planSeconds(plan).toFixed(0)} s, ${phase}: ${Math.round(perSecond)} events/s acked, ` +
        `P95 ${p95} ms, ${slot.failed} failed, ${slot.waiting} waiting, lag ${lastLag.toFixed(1)} s`,
    );
    told = slot.at;
    before = slot;
  });

  let asking = false;
  const timer = setInterval(() => {
    if (began === undefined) return;
    const at = elapsed();
    for (const [role, list] of Object.entries(pids)) {
      rss[role]!.push({ at, value: list.reduce((sum, pid) => sum + rssMib(pid), 0) });
    }
    if (asking) return;
    asking = true;
    warehouse
      .count()
      .then((stored) => {
        // What was stored was stored when the statement began, or later: the age errs to the low side by its few ms.
        lastLag = meter.lag(at, stored);
        lag.push({ at, value: lastLag });
        asking = false;
      })
      .catch((error: Error) => fail(error));
  }, slotMs);
  return {
    failure,
    stop: () => {
      clearInterval(timer);
      return {
        slots: slots.points,
        lag: lag.points,
        rss: Object.fromEntries(Object.entries(rss).map(([role, series]) => [role, series.points])),
      };
    },
  };
}

/** Waits until ClickHouse has as many events as were acknowledged, or a minute: then the comparison says what is missing. */
async function drained(
  warehouse: BenchWarehouse,
  tally: TallyResult,
  failure: Promise<never>,
  progress: (line: string) => void,
): Promise<number> {
  const from = performance.now();
  const acked = tally.acked.reduce((sum, one) => sum + one.events, 0);
  for (;;) {
    const stored = await Promise.race([warehouse.count(), failure]);
    const waited = performance.now() - from;
    if (stored >= acked || waited > drainPatienceMs) return waited / 1000;
    progress(`waiting for ClickHouse: ${acked - stored} events to go`);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

/** Batches by customer and number of rows, in slices, so that neither side holds all batches at once. */
async function storedBatches(warehouse: BenchWarehouse, tally: TallyResult): Promise<StoredBatches[]> {
  const batches = tally.acked.reduce(
    (sum, one) => sum + Object.values(one.batches).reduce((n, count) => n + count, 0),
    0,
  );
  const slices = Math.max(1, Math.ceil(batches / batchesAtOnce));
  const sums = new Map<string, StoredBatches>();
  for (let slice = 0; slice < slices; slice++) {
    const rows = await warehouse.ask(`
      SELECT tenant, rows, count() AS batches, sum(ids) % 4294967296 AS id_sum
      FROM (
        SELECT tenant, _batch, count() AS rows,
          sum(toUInt64(reinterpretAsUInt32(reverse(unhex(substring(event_id, 1, 8)))))) AS ids
        FROM ${eventsTable} WHERE tenant != '' AND _batch % ${slices} = ${slice} GROUP BY tenant, _batch
      ) GROUP BY tenant, rows`);
    for (const row of rows) {
      const name = `${row.tenant} ${row.rows}`;
      const before = sums.get(name);
      sums.set(name, {
        tenant: row.tenant ?? '',
        rows: Number(row.rows),
        batches: Number(row.batches) + (before?.batches ?? 0),
        idSum: (Number(row.id_sum) + (before?.idSum ?? 0)) % 2 ** 32,
      });
    }
  }
  return [...sums.values()];
}

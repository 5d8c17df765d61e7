/**
 * Runs a scenario through the whole stack: gateway → JetStream → worker → ClickHouse, each its own process, customers with real keys,
 * all virtual clients in one load process. Watches lag and memory meanwhile, and checks at the end what is stored.
 */
import { addTenant } from '../../lib/tenants.js';
import { cpuByRole, type Pids, rssMib } from '../../lib/testing/process-use.js';
import { profileArguments, type RoleName } from '../../lib/testing/role-process.js';
import { type LoadChild, startLoadChild } from '../load-child.js';
import type { Sample } from '../slope.js';
import { type BenchClickHouse, eventsTable, withStack } from '../stack.js';
import { createLagMeter } from './lag.js';
import type { FromLoad, ToLoad } from './load-protocol.js';
import { type Plan, phaseAt, planSeconds } from './plan.js';
import type { RunFacts, Scenario } from './scenario.js';
import type { TallyResult, TimeSlot } from './tally.js';
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
/** Batches that one statement groups at a time. */
const batchesAtOnce = 500_000;

const entry = new URL('./load-process.ts', import.meta.url);
type Load = LoadChild<ToLoad, FromLoad>;

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
    const load: Load = startLoadChild(entry, profileArguments(profile, 'load'));
    const { clickhouse } = stack;
    if (clickhouse === undefined) throw new Error('a scenario needs at least one worker');
    try {
      const slotMs = planSeconds(plan) > longRunSeconds ? longSlotMs : shortSlotMs;
      const pids: Pids = { ...stack.pids, load: [load.pid] };
      const cpuStart = cpuByRole(pids);
      const watch = startWatch(clickhouse, load, pids, plan, slotMs, progress);
      try {
        const target = { url: stack.gatewayUrl, keys, connections: options.connections };
        const result = new Promise<TallyResult>((resolve) => {
          load.listen((message) => {
            if (message.type === 'result') resolve(message.result);
          });
        });
        load.tell({ type: 'begin', settings: { plan, target, seed: options.seed, slotMs, patienceMs } });
        const tally = await Promise.race([result, load.failure, stack.failure, watch.failure]);
        const cpuEnd = cpuByRole(pids);
        const drain = await drained(clickhouse, tally, Promise.race([stack.failure, watch.failure]), progress);
        const facts = watch.stop();
        progress('comparing what is stored with what was acknowledged');
        const stored = await storedBatches(clickhouse, tally);
        const cpu = Object.fromEntries(
          Object.keys(pids).map((role) => [role, (cpuEnd[role] ?? 0) - (cpuStart[role] ?? 0)]),
        );
        return { plan, ...facts, cpu, tally, stored, drain };
      } finally {
        watch.stop();
      }
    } finally {
      await load.close();
    }
  });
}

interface Watch {
  readonly failure: Promise<never>;
  stop(): Pick<RunFacts, 'slots' | 'lag' | 'rss'>;
}

/** Gathers what the load process says, and looks at lag and memory once a slot. */
function startWatch(
  clickhouse: BenchClickHouse,
  load: Load,
  pids: Pids,
  plan: Plan,
  slotMs: number,
  progress: (line: string) => void,
): Watch {
  const slots: TimeSlot[] = [];
  const lag: Sample[] = [];
  const rss = Object.fromEntries(Object.keys(pids).map((role) => [role, [] as Sample[]]));
  const meter = createLagMeter();
  const tell = progressOf(plan, slotMs === shortSlotMs ? 1_000 : 10_000, progress);
  let began: number | undefined;
  let fail: (error: Error) => void = () => undefined;
  const failure = new Promise<never>((_, reject) => {
    fail = reject;
  });
  failure.catch(() => undefined);

  load.listen((message) => {
    if (message.type === 'began') began = message.at;
    if (message.type !== 'slot') return;
    const slot = withNumbers(message.slot);
    slots.push(slot);
    meter.acked(slot.at / 1000, slot.acked);
    tell(slot, lag.at(-1)?.value ?? 0);
  });

  let asking = false;
  const look = async (at: number): Promise<void> => {
    for (const [role, list] of Object.entries(pids)) {
      rss[role]!.push({ at, value: list.reduce((sum, pid) => sum + rssMib(pid), 0) });
    }
    if (asking) return;
    asking = true;
    // What was stored was stored when the statement began, or later: the age errs to the low side by its few ms.
    lag.push({ at, value: meter.lag(at, await clickhouse.count()) });
    asking = false;
  };
  const timer = setInterval(() => {
    if (began !== undefined) look((performance.timeOrigin + performance.now() - began) / 1000).catch(fail);
  }, slotMs);
  return {
    failure,
    stop: () => {
      clearInterval(timer);
      return { slots, lag, rss };
    },
  };
}

/** JSON has no NaN: a slot without an answer comes with null. */
const withNumbers = ({ ack, ...slot }: TimeSlot): TimeSlot => ({
  ...slot,
  ack: { p50: ack.p50 ?? Number.NaN, p95: ack.p95 ?? Number.NaN, p99: ack.p99 ?? Number.NaN },
});

/** A line about a slot, at most every `everyMs`. */
function progressOf(
  plan: Plan,
  everyMs: number,
  progress: (line: string) => void,
): (slot: TimeSlot, lag: number) => void {
  let before = { at: 0, acked: 0 };
  return (slot, lag) => {
    if (slot.at - before.at < everyMs) return;
    const phase = plan.phases[phaseAt(plan.phases, slot.at)]!.name;
    const perSecond = ((slot.acked - before.acked) / (slot.at - before.at)) * 1000;
    const p95 = Number.isNaN(slot.ack.p95) ? '-' : slot.ack.p95.toFixed(1);
    progress(
      `${(slot.at / 1000).toFixed(0)} of ${planSeconds(plan).toFixed(0)} s, ${phase}: ${Math.round(perSecond)} events/s acked, ` +
        `P95 ${p95} ms, ${slot.failed} failed, ${slot.waiting} waiting, lag ${lag.toFixed(1)} s`,
    );
    before = slot;
  };
}

/** Waits until ClickHouse has as many events as were acknowledged, or a minute: then the comparison says what is missing. */
async function drained(
  clickhouse: BenchClickHouse,
  tally: TallyResult,
  failure: Promise<never>,
  progress: (line: string) => void,
): Promise<number> {
  const from = performance.now();
  const acked = tally.acked.reduce((sum, one) => sum + one.events, 0);
  for (;;) {
    const stored = await Promise.race([clickhouse.count(), failure]);
    const waited = performance.now() - from;
    if (stored >= acked || waited > drainPatienceMs) return waited / 1000;
    progress(`waiting for ClickHouse: ${acked - stored} events to go`);
    await new Promise((resolve) => setTimeout(resolve, 250));
  }
}

/** Batches by customer and number of rows, in slices, so that neither side holds all batches at once. */
async function storedBatches(clickhouse: BenchClickHouse, tally: TallyResult): Promise<StoredBatches[]> {
  const batches = tally.acked.reduce(
    (sum, one) => sum + Object.values(one.batches).reduce((n, count) => n + count, 0),
    0,
  );
  const slices = Math.max(1, Math.ceil(batches / batchesAtOnce));
  const sums = new Map<string, StoredBatches>();
  for (let slice = 0; slice < slices; slice++) {
    const rows = await clickhouse.ask(`
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

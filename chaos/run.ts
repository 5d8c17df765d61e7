/**
 * One run: a stack under load, faults until there were enough, then peace, and the check.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { jetstreamManager } from '@nats-io/jetstream';
import { shardStream } from '../lib/subjects.js';
import { createRandom, type Random } from '../lib/testing/batches.js';
import type { Durability } from '../sdk-gen/typescript/src/delivery.js';
import { buildProject } from './build.js';
import { checkHistory, type Findings } from './check.js';
import { type Control, withoutProtection } from './controls.js';
import { type Customers, startCustomers } from './customers.js';
import { diskFaults, isChosen } from './faults.js';
import { openJournal } from './journal.js';
import { countLate } from './late.js';
import type { ClusterOptions } from './nats-nodes.js';
import { createPoisoner, neighbourSource, type Poisoner } from './poison.js';
import { createProber, type Prober, proberSource } from './prober.js';
import { createRecoveries, type Recoveries } from './recovery.js';
import { createSchedule, type Schedule } from './schedule.js';
import { type Stack, startStack } from './stack.js';
import { type Watermark, watchWatermark } from './watermark.js';

export interface RunOptions {
  readonly seed: number;
  /** The run goes on until so many processes were killed, and each failpoint was died at `minFailpoint` times. */
  readonly kills: number;
  /** … and so many faults of any kind happened. */
  readonly faults: number;
  /** … or for so long, ms, whatever happened. */
  readonly maxMs: number;
  readonly minFailpoint: number;
  /** Names or beginnings of names of faults; empty: all. */
  readonly only: readonly string[];
  /** Events per second. */
  readonly rate: number;
  /** Client processes at a time. */
  readonly clients: number;
  readonly durability: Durability;
  readonly pace: number;
  readonly cluster: ClusterOptions | undefined;
  /** Each fault waits until what the one before hit has recovered. */
  readonly oneByOne: boolean;
  readonly control: Control | undefined;
  /** The data stay where they are. */
  readonly keep: boolean;
  /** A fault happened, or a step is done. */
  readonly say: (line: string) => void;
  /** Several times a second. */
  readonly progress: (line: string) => void;
  /** Ends the run early, with everything that belongs to an end. */
  readonly interrupted: AbortSignal;
}

export interface RunResult extends Findings {
  readonly seconds: number;
  readonly schedule: Schedule;
  readonly recoveries: Recoveries;
  /** Bad messages that the log took; those that are not among the dead letters, a line each. */
  readonly poisoned: number;
  readonly undead: readonly string[];
  /** Events that were acknowledged and then stored later than {@link lateMs}. */
  readonly late: number;
  /** Events that clients gave up at the end. */
  readonly undelivered: number;
  /** Why the stack did not come to rest; undefined: it did. */
  readonly stuck: string | undefined;
  /** Where the data are, when they were kept. */
  readonly folder: string | undefined;
}

export const lateMs = 30_000;
const table = 'sluice.events';
const gateways = 2;
const workers = 2;
const shards = 4;
/** How long it may take until something that was hit works again, and until everything is stored at the end. */
const recoverWithinMs = 90_000;
const restWithinMs = 90_000;
/** An INSERT of a worker that was killed may still be running in ClickHouse. */
const echoMs = 1_500;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

export async function run(options: RunOptions): Promise<RunResult> {
  const { say } = options;
  const folder = await mkdtemp(join(tmpdir(), 'sluice-chaos-'));
  const random = createRandom(options.seed);
  const { only, pace, oneByOne } = options;
  const schedule = createSchedule({ random, only, cluster: options.cluster !== undefined, pace, oneByOne, say });
  let stack: Stack | undefined;
  let customers: Customers | undefined;
  let kept = options.keep;
  try {
    stack = await startProcesses(options, folder, schedule);
    const instruments = createInstruments(stack, random);
    const { prober, poisoner, recoveries } = instruments;
    customers = startCustomers({
      stack,
      count: options.clients,
      rate: options.rate,
      durability: options.durability,
      random,
      onDeath: (death) => schedule.died(death),
      onFirstAck: (slot, at) => recoveries.firstAck(slot, at),
    });
    await Promise.all(customers.slots.map((slot) => slot.whenReady()));
    const since = Date.now();
    schedule.begin({ stack, clients: customers.slots, prober, poisoner }, recoveries);
    await untilEnough(options, schedule, customers, since);
    say('no more faults');
    await schedule.end();
    undoFaults(stack, customers);
    const seconds = (Date.now() - since) / 1_000;
    options.progress('waiting until everything is delivered and stored');
    const rest = await comeToRest(stack, customers, instruments);
    options.progress('comparing what clients heard with what is stored');
    // Should the check itself fail, its data are worth a look.
    kept = true;
    const checked = await check(stack, customers, instruments);
    kept = options.keep || (options.control === undefined && isBad(checked, rest, recoveries));
    return { ...checked, ...rest, seconds, schedule, recoveries, folder: kept ? folder : undefined };
  } catch (error) {
    if (kept && error instanceof Error) error.message += ` (the data are in ${folder})`;
    throw error;
  } finally {
    await Promise.all((customers?.slots ?? []).map((slot) => slot.close(0)));
    await stack?.close(kept);
    if (!kept) await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** Compiles the project into the folder, and starts all processes but the clients. */
async function startProcesses(options: RunOptions, folder: string, schedule: Schedule): Promise<Stack> {
  const { say } = options;
  const build = join(folder, 'build');
  buildProject(build);
  say('compiled');
  const stack = await startStack({
    folder,
    build,
    gateways,
    workers,
    shards,
    cluster: options.cluster,
    disks: diskFaults.filter(({ name }) => isChosen(name, options.only)).map(({ disk }) => disk),
    onDeath: (death) => schedule.died(death),
    say,
    arm: (role) => schedule.arm(role),
    nodeArguments: withoutProtection(build, options.control),
  });
  say('the stack is up');
  return stack;
}

/** What a run sends beside its customers (probes and poison), and what it watches its stack with. */
interface Instruments {
  readonly watermark: Watermark;
  readonly prober: Prober;
  readonly poisoner: Poisoner;
  readonly recoveries: Recoveries;
  /** What prober and poisoner sent. */
  readonly sources: Customers['sources'];
}

function createInstruments(stack: Stack, random: Random): Instruments {
  const { nc, tenant, key, folder } = stack;
  const source = (number: number) => ({ source: number, journal: join(folder, `journal-${number}`) });
  const probes = source(proberSource);
  const neighbours = source(neighbourSource);
  const watermark = watchWatermark(nc, shards);
  const prober = createProber({ tenant, key, shards, journal: openJournal(probes.journal) });
  const poisoner = createPoisoner({ nc, tenant, shards, journal: openJournal(neighbours.journal), random });
  const recoveries = createRecoveries({
    prober,
    watermark,
    shards,
    gateways: () => stack.slotsOf('gateway'),
    withinMs: recoverWithinMs,
  });
  return { watermark, prober, poisoner, recoveries, sources: [probes, neighbours] };
}

function undoFaults(stack: Stack, customers: Customers): void {
  for (const slot of [...stack.slots, ...customers.slots]) if (slot.paused) slot.resume();
  for (const proxy of Object.values(stack.proxies)) proxy.set('pass');
}

/** Waits until clients have delivered, and workers have stored, what they can. */
async function comeToRest(
  stack: Stack,
  customers: Customers,
  { recoveries, watermark }: Instruments,
): Promise<Pick<RunResult, 'undelivered' | 'stuck'>> {
  // First what is still recovering: a client that was killed last has yet to hear something, which it will not once it is closed.
  await recoveries.settled();
  await resent(customers, restWithinMs);
  const undelivered = await customers.close();
  const stuck = await untilStored(stack, watermark);
  await sleep(echoMs);
  return { undelivered, stuck };
}

async function check(
  { clickhouse, tenant }: Stack,
  customers: Customers,
  { poisoner, watermark, sources }: Instruments,
): Promise<Findings & Pick<RunResult, 'poisoned' | 'undead' | 'late'>> {
  const findings = await checkHistory({ clickhouse, table, tenant, sources: [...sources, ...customers.sources] });
  const undead = await poisoner.missing();
  const late = await countLate(clickhouse, table, watermark, lateMs);
  watermark.close();
  return { ...findings, poisoned: poisoner.taken, undead, late };
}

/** The data of such a run are kept. */
function isBad(
  { lost, doubled, altered, foreign, undead }: Findings & Pick<RunResult, 'undead'>,
  { stuck, undelivered }: Pick<RunResult, 'undelivered' | 'stuck'>,
  { hangs }: Recoveries,
): boolean {
  const hung = stuck !== undefined || hangs.length > 0 || undelivered > 0;
  return lost + doubled + altered + foreign + undead.length > 0 || hung;
}

async function untilEnough(
  options: RunOptions,
  schedule: Schedule,
  customers: Customers,
  since: number,
): Promise<void> {
  const { kills, faults, minFailpoint, maxMs, interrupted } = options;
  while (!interrupted.aborted && Date.now() - since < maxMs) {
    const enough = schedule.kills >= kills && schedule.faults >= faults && schedule.minFailpoint >= minFailpoint;
    if (enough) return;
    const seconds = Math.round((Date.now() - since) / 1_000);
    const min = Number.isFinite(schedule.minFailpoint) ? `, each failpoint ${schedule.minFailpoint} times` : '';
    options.progress(
      `${seconds} s, ${schedule.kills} kills${min}, ${schedule.faults - schedule.kills} other faults, ` +
        `${customers.acked.toLocaleString('en')} events acknowledged`,
    );
    await sleep(250);
  }
}

/** What earlier client processes had not heard of is settled, or the time is over. */
async function resent(customers: Customers, ms: number): Promise<void> {
  for (const until = Date.now() + ms; customers.leftovers > 0 && Date.now() < until; ) await sleep(50);
}

/** Waits until the workers say that all shards are stored. @returns why not, when they do not in time */
async function untilStored(stack: Stack, watermark: Watermark): Promise<string | undefined> {
  const until = Date.now() + restWithinMs;
  const jsm = await jetstreamManager(stack.nc, { checkAPI: false });
  let behind: string[] = [];
  for (;;) {
    try {
      behind = [];
      for (let shard = 0; shard < shards; shard++) {
        const { state } = await jsm.streams.info(shardStream(shard));
        const sequence = watermark.sequence(shard);
        if (state.last_seq > sequence) behind.push(`shard ${shard} is stored up to ${sequence} of ${state.last_seq}`);
      }
      if (behind.length === 0) return undefined;
    } catch (error) {
      behind = [`the log does not answer: ${String(error)}`];
    }
    if (Date.now() > until) return `after ${restWithinMs / 1_000} s without faults, ${behind.join('; ')}`;
    await sleep(100);
  }
}

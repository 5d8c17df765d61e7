/**
 * One run of the fuzz: two gateways (one with the hot path, one where the library serves all), requests in turn, and the verdicts.
 *
 *   FUZZ-1  No gateway dies. Every request has a status, a reset or, where its own bytes are to blame, the end of its connection. It comes
 *       within 2 s after the request's end, or later only where an event loop stood still for 500 ms meanwhile: the machine was busy.
 *       A connection that carries good requests beside bad ones is not ended for the bad ones.
 *   FUZZ-2  Valid requests, one in 50, are accepted, and are in the log once. Nothing else is in the log under their ids.
 *   FUZZ-3  Memory comes back to within 30 MiB of what it was after the warm-up, a minute after the end. Each look is behind a collection
 *       (collect.ts).
 *   FUZZ-4  A good client beside it loses no call.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { usesJemalloc } from '../../lib/config/allocator.js';
import { addTenant } from '../../lib/tenants.js';
import { logBatchIds } from '../../lib/testing/log-batch-ids.js';
import { type TestNats, withNats } from '../../lib/testing/nats.js';
import { type Role, startRole } from '../../lib/testing/role-process.js';
import { type Bystanders, type PhaseSeen, startBystanders } from '../bystanders.js';
import { type ProcessWatch, watchProcesses } from '../process-watch.js';
import { bearer } from '../wire/messages.js';
import type { Target } from '../wire/sockets.js';
import { type LoopLog, startLoopLog } from './loop-log.js';
import { acceptedBy, answerWithinMs, type Fate, type RequestOutcome, shownAnswer } from './outcome.js';
import { batchIdOf, type Plan, planOf } from './plan.js';
import { sendBytes } from './send-bytes.js';
import { FrameConnection } from './send-frames.js';
import { NodeConnection } from './send-node.js';

export interface FuzzOptions {
  readonly seed: number;
  /** The first request, from 0, and how many. */
  readonly from: number;
  readonly requests: number;
  /** Seconds that memory has to come back; 0: it is not looked at. */
  readonly memorySeconds: number;
  readonly say: (line: string) => void;
  /** Rejects when the run is to end early; never resolves. */
  readonly interrupted?: Promise<never>;
}

export interface FuzzFigures {
  readonly requests: number;
  readonly seconds: number;
  readonly fates: Readonly<Partial<Record<Fate, number>>>;
  /** Answers after 2 s, and the longest wait for any answer, ms. */
  readonly late: { readonly requests: number; readonly longestMs: number };
  readonly valid: { readonly sent: number; readonly accepted: number; readonly stored: number };
  /** MiB of each gateway: before, at most, at the end. */
  readonly rss: readonly { readonly before: number; readonly most: number; readonly after: number }[];
  /** Before and during. */
  readonly good: { readonly alone: PhaseSeen['good']; readonly during: PhaseSeen['good'] };
  /** In words, with the request's number where it is one. */
  readonly failures: readonly string[];
}

const lanes = 48;
const tenants = 4;
const maxOpen = 8;
/** Short lives, so that nothing of the limits on one connection is met. */
const maxOfConnection = 60;
const maxFailures = 50;
const memoryMib = 30;
/** Requests after which code is compiled and pools are filled. */
const warmUpOf = (requests: number): number => Math.min(requests, Math.max(2_000, Math.ceil(requests / 50)));
/** A collection takes some 100 ms; then pages go back to the system. */
const collectMs = 1_000;
const lookEveryMs = 4_000;
/** A delay of a loop from which on a late answer is the machine's, ms. */
const stoodStillMs = 500;

interface Pool {
  take(target: Target): Promise<FrameConnection | NodeConnection | undefined>;
  close(): void;
}

/** Connections with few requests at a time. */
function createPool<C extends FrameConnection | NodeConnection>(
  open: (target: Target) => Promise<C | undefined>,
): Pool {
  let connections: C[] = [];
  let opening: Promise<C | undefined> | undefined;
  return {
    async take(target) {
      for (;;) {
        for (const one of connections) if (one.open === 0 && (one.over || one.count >= maxOfConnection)) one.close();
        connections = connections.filter((one) => !one.over && (one.count < maxOfConnection || one.open > 0));
        const free = connections.find((one) => one.open < maxOpen && one.count < maxOfConnection);
        if (free !== undefined) return free;
        opening ??= open(target).finally(() => {
          opening = undefined;
        });
        const opened = await opening;
        if (opened === undefined) return undefined;
        if (!connections.includes(opened)) connections.push(opened);
      }
    },
    close() {
      for (const one of connections) one.close();
    },
  };
}

export async function fuzz(options: FuzzOptions): Promise<FuzzFigures> {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-fuzz-'));
  try {
    return await withNats(async (nats) => {
      const roles: Role[] = [];
      try {
        for (const hotPath of ['true', 'false']) {
          const flags = ['--nats-url', nats.url, '--port', '0', '--metrics-port', '0', '--log-level', 'warn'];
          const more = ['--hot-path', hotPath];
          const gateway = { folder, telemetry: true, flags: [...flags, ...more], preload: ['hostile/fuzz/collect.ts'] };
          roles.push(await startRole('gateway', roles.length, gateway));
        }
        return await play(options, nats, roles);
      } finally {
        await Promise.all(roles.map((role) => role.close()));
      }
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function play(options: FuzzOptions, nats: TestNats, roles: readonly Role[]): Promise<FuzzFigures> {
  const keyOf = async (tenant: string): Promise<string> => (await addTenant(nats.nc, { tenant })).key;
  const keys: string[] = [];
  for (let i = 0; i < tenants; i++) keys.push(await keyOf(`fuzz-${i}`));
  const [goodKey, otherKey] = [await keyOf('good'), await keyOf('other')];
  const book = new Book(options);
  for (const { failure, name } of roles) failure.catch((error: Error) => book.fail(`${name} died: ${error.message}`));
  const watches = roles.map(watchProcesses);
  const { port } = roles[0] as Role;
  const bystanders = await startBystanders({ port, tls: false, goodKey, otherKey });
  const loops = startLoopLog(watches);
  const sender = createSender(roles, keys);
  const collected = createLook(roles, watches);
  const playing = playRounds(options, { collected, nats, keys, sender, book, watches, bystanders, loops });
  try {
    return await (options.interrupted === undefined ? playing : Promise.race([playing, options.interrupted]));
  } finally {
    book.stop();
    sender.close();
    playing.catch(() => undefined);
    bystanders.close();
    await loops.close();
    for (const watch of watches) watch.close();
  }
}

interface Playground {
  readonly nats: TestNats;
  readonly keys: readonly string[];
  readonly sender: Sender;
  readonly book: Book;
  readonly watches: readonly ProcessWatch[];
  /** MiB of each gateway, behind a collection. */
  readonly collected: () => Promise<number[]>;
  readonly bystanders: Bystanders;
  readonly loops: LoopLog;
}

async function playRounds(
  options: FuzzOptions,
  { nats, keys, sender, book, watches, collected, bystanders, loops }: Playground,
): Promise<FuzzFigures> {
  await pause(500);
  // Code is compiled and pools are filled before memory is looked at and answers must be there in time.
  const warmUp = warmUpOf(options.requests);
  await runLanes(options, options.from, warmUp, keys.length, sender, book);
  book.forgiveLate();
  await bystanders.next('alone');
  await pause(options.memorySeconds > 0 ? 3_000 : 500);
  const before = await collected();
  for (const watch of watches) await watch.reset();
  const alone = await bystanders.next('attack');
  const since = performance.now();
  await runLanes(options, options.from + warmUp, options.requests - warmUp, keys.length, sender, book);
  const seconds = (performance.now() - since) / 1_000;
  const during = await bystanders.next('after');
  await pause(1_500);
  book.judgeLate(loops);
  if (during.good.errors > 0) book.fail(`FUZZ-4: ${JSON.stringify(during.good)}`);
  await book.checkLog(nats);
  const after = await settleMemory(options, collected, before, book);
  const rss = watches.map((watch, i) => ({ before: before[i]!, most: watch.peakRss(), after: after[i]! }));
  await bystanders.next(undefined);
  return { ...book.figures(), seconds, rss, good: { alone: alone.good, during: during.good } };
}

async function runLanes(
  { seed, say }: FuzzOptions,
  from: number,
  count: number,
  keys: number,
  sender: Sender,
  book: Book,
): Promise<void> {
  let next = from;
  const until = from + count;
  const since = performance.now();
  const lane = async (): Promise<void> => {
    while (next < until && !book.over) {
      const index = next++;
      if (index % 10_000 === 0 && index > from) {
        const rate = ((index - from) / (performance.now() - since)) * 1_000;
        say(`${index - from} of ${count}, ${Math.round(rate)} a second …`);
      }
      const plan = planOf(seed, index, keys);
      book.note(plan, await sender.send(plan));
    }
  };
  await Promise.all(Array.from({ length: lanes }, lane));
}

interface Sender {
  send(plan: Plan): Promise<RequestOutcome>;
  /** Ends the connections that are kept for the next request. */
  close(): void;
}

/** Connections come from many addresses, as those of many clients do. */
function createSender(roles: readonly Role[], keys: readonly string[]): Sender {
  let connection = 0;
  const pools = roles.map(() => ({
    frames: createPool((target) => FrameConnection.open(target)),
    node: createPool((target) => NodeConnection.open(target)),
  }));
  const attempt = async (plan: Plan): Promise<RequestOutcome> => {
    const which = plan.library ? 1 : 0;
    const { port } = roles[which] as Role;
    const pool = pools[which] as (typeof pools)[number];
    connection++;
    const from = `127.20.${(connection >> 7) & 127}.${1 + (connection & 127)}`;
    const target = { port, tls: false, from };
    const authorization = bearer(keys[plan.key] as string);
    if (plan.transport === 'http1' || plan.transport === 'bytes') return sendBytes(plan, target, authorization);
    const open = await pool[plan.transport].take(target);
    return open === undefined ? { fate: 'not taken' } : open.send(plan, authorization);
  };
  return {
    async send(plan) {
      const outcome = await attempt(plan);
      // It was not looked at: a client sends it again.
      return outcome.fate === 'not taken' && plan.valid !== undefined ? attempt(plan) : outcome;
    },
    close() {
      for (const { frames, node } of pools) for (const pool of [frames, node]) pool.close();
    },
  };
}

/** What became of all requests. */
class Book {
  private readonly fates: Partial<Record<Fate, number>> = {};
  private readonly failures: string[] = [];
  private readonly accepted = new Set<string>();
  private sent = 0;
  private valid = 0;
  private stored = 0;
  private stopped = false;
  private longestMs = 0;
  private readonly late: { readonly plan: Plan; readonly at: number; readonly outcome: RequestOutcome }[] = [];

  constructor(private readonly options: FuzzOptions) {}

  get full(): boolean {
    return this.failures.length >= maxFailures;
  }

  get over(): boolean {
    return this.stopped || this.full;
  }

  /** No more requests are to be sent. */
  stop(): void {
    this.stopped = true;
  }

  fail(words: string): void {
    if (!this.full) this.failures.push(words);
  }

  note(plan: Plan, outcome: RequestOutcome): void {
    if (this.stopped) return;
    const { fate, answer, waitedMs = 0 } = outcome;
    this.longestMs = Math.max(this.longestMs, waitedMs);
    this.sent++;
    this.fates[fate] = (this.fates[fate] ?? 0) + 1;
    const shared = plan.transport === 'frames' || plan.transport === 'node';
    const wrong = fate === 'silent' || fate === 'unended' || (fate === 'ended' && shared);
    if (wrong) this.failed(plan, `FUZZ-1: ${fate}, ${shownAnswer(answer)}`);
    else if (waitedMs > answerWithinMs) {
      this.late.push({ plan, at: performance.now(), outcome });
    }
    if (plan.valid === undefined) return;
    this.valid++;
    const { batchId, events } = plan.valid;
    if (answer !== undefined && acceptedBy(plan, answer) === events) this.accepted.add(batchId);
    else if (!wrong) this.failed(plan, `FUZZ-2: ${fate}, ${shownAnswer(answer)}`);
  }

  private failed({ index, transport, library, name, request }: Plan, words: string): void {
    const { seed } = this.options;
    const how = `${transport}${library ? ', library' : ''}, ${name}, ${request.method} ${request.path}`;
    this.fail(`${words} (${how}): npm run hostile -- fuzz --seed ${seed} --from ${index} --requests 1`);
  }

  /** Those so far. */
  forgiveLate(): void {
    this.late.length = 0;
    this.longestMs = 0;
  }

  /** FUZZ-1, for answers that came late. */
  judgeLate(loops: LoopLog): void {
    for (const { plan, at, outcome } of this.late) {
      const { fate, answer, waitedMs = 0 } = outcome;
      const delay = loops.worst(plan.library ? 1 : 0, at - waitedMs, at);
      const words = `${fate} after ${Math.round(waitedMs)} ms, ${shownAnswer(answer)}; no loop stood still for more than ${Math.round(delay)} ms`;
      if (delay < stoodStillMs) this.failed(plan, `FUZZ-1: ${words}`);
    }
  }

  /** FUZZ-2 */
  async checkLog(nats: TestNats): Promise<void> {
    const prefix = batchIdOf(this.options.seed, 0).slice(0, -1);
    const counts = new Map<string, number>();
    for await (const id of logBatchIds(nats.nc)) if (id.startsWith(prefix)) counts.set(id, (counts.get(id) ?? 0) + 1);
    this.stored = counts.size;
    for (const id of this.accepted) {
      const count = counts.get(id) ?? 0;
      if (count !== 1) this.fail(`FUZZ-2: ${id} was accepted, and is in the log ${count} times`);
    }
    for (const id of counts.keys())
      if (!this.accepted.has(id)) this.fail(`FUZZ-2: ${id} is in the log, and was not accepted`);
  }

  figures(): Pick<FuzzFigures, 'requests' | 'fates' | 'late' | 'valid' | 'failures'> {
    const { sent, fates, failures } = this;
    return {
      requests: sent,
      fates,
      late: { requests: this.late.length, longestMs: this.longestMs },
      valid: { sent: this.valid, accepted: this.accepted.size, stored: this.stored },
      failures,
    };
  }
}

/** Memory of gateways behind a collection, which each makes for itself. */
function createLook(roles: readonly Role[], watches: readonly ProcessWatch[]): () => Promise<number[]> {
  return async () => {
    for (const { pid } of roles) {
      try {
        process.kill(pid, 'SIGUSR2');
      } catch {
        // It has died, which is a failure already.
      }
    }
    await pause(collectMs);
    return watches.map((watch) => watch.rss());
  };
}

/** FUZZ-3. @returns MiB of each gateway at the end */
async function settleMemory(
  { memorySeconds }: FuzzOptions,
  collected: () => Promise<number[]>,
  before: readonly number[],
  book: Book,
): Promise<number[]> {
  const until = performance.now() + memorySeconds * 1_000;
  for (;;) {
    const now = await collected();
    const isBack = now.every((rss, i) => rss <= (before[i] as number) + memoryMib);
    if (memorySeconds === 0 || isBack) return now;
    if (performance.now() > until) {
      const shown = (list: readonly number[]): string => list.map(Math.round).join(' and ');
      const allocator = usesJemalloc() ? 'jemalloc' : 'the malloc of libc, which keeps holes: install libjemalloc2';
      book.fail(`FUZZ-3: ${shown(now)} MiB at the end, ${shown(before)} before (with ${allocator})`);
      return now;
    }
    await pause(lookEveryMs);
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

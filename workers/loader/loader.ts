/**
 * The loader's protocol for one shard: exactly once, with ClickHouse as the only record. Pure: everything it does goes through {@link
 * ShardIo}, so that tests can crash, pause and deceive it at each step.
 *
 *   LOAD-1  One INSERT is one block is one part: it is there whole or not at all (the statement's settings see to it).
 *   LOAD-2  An INSERT of a block that is there inserts nothing. So any retry, by any worker, at any later time, is harmless. Crashed,
 *       paused and cut-off workers need no fencing, and two workers on one shard only waste work.
 *   LOAD-3  The next block starts after the `hi` that ClickHouse reports, never after what the worker remembers. Every
 *      worker's block k+1 therefore starts with the same message and lies on the same day. After another's block the
 *      worker recovers in full. A worker that was away for long may find that the others loaded AND trimmed what its next
 *      block would start with; what it reads then belongs to a later block, perhaps of another day, where the probe of
 *      LOAD-2 would not see its number. So a block that does not start at hi+1 is not written before one more look at ClickHouse
 *       has shown that no worker went on from hi: then the messages were truly removed.
 *   LOAD-4  Replicated tables add a deduplication token: the statement's business (workers/clickhouse/schema).
 *   LOAD-5  A batch that was sent again is not stored again. Before a block is written, its suspects (dedup.ts) are compared with
 *      what ClickHouse has, and what is there already is left out. That look holds for block k+1 if ClickHouse has
 *      block k and nothing later, which is what LOAD-2 and LOAD-3 make sure of. A block of which nothing is left is deferred: it is
 *      not written, its messages become the front of the next block. They count as committed, because their events are
 *      stored; and they stay in the stream, because no block says so. What is deferred is bounded; past the bound a block
 *      of a tombstone row alone is written.
 *   LOAD-6  What ClickHouse refuses for its content is taken out of the block, batch by batch, and put into the dead letters
 *      before the block is written without it. One bad batch never blocks a shard, and none is dropped unseen. An error that
 *      no list names is treated so after a few tries, with more doubt; a block that is too large is cut smaller.
 *   LOAD-7  One block in flight per shard; the next one's messages are fetched meanwhile (pull-reader.ts).
 *   LOAD-8  What is in ClickHouse of messages that are still in the stream is never deleted (trim.ts, retention.ts, erase.ts), and a
 *      stream that was made again or lost its end stops the shard. A log that lost its end becomes as long as before when it grows. So
 *      rows hold when the log took the block's last message (`_hi_at`): a message of that sequence from another time is another
 *      message. Each recovery checks this, and each break of the connection to the log leads to a recovery (pull-reader.ts), because
 *      power may have been lost meanwhile.
 *
 * In each block, events of its messages = rows + duplicate + dead.
 */
import { backOff } from '../../lib/back-off.js';
import { type Block, maxLinks, maxSpanMs } from './block.js';

/** What the stream and ClickHouse know of the shard. */
export interface ShardState {
  /** Identity of the stream that is there now: another one after it was made again. */
  readonly generation: string;
  readonly firstSequence: number;
  readonly lastSequence: number;
  /** The last block of this generation in ClickHouse, 0 when none, and its last message. */
  readonly block: number;
  readonly hi: number;
  /** The log has another message of the sequence `hi` than the one that was loaded: it lost its end, and went on. */
  readonly replaced: boolean;
  /** Other generations of this shard in ClickHouse; looked for only when this one has no block. */
  readonly others: readonly { readonly generation: string; readonly hi: number }[];
  /** Whether the operator has said that this generation may be loaded in spite of `others`. */
  readonly accepted: boolean;
  /** Most bytes of messages that may be deferred (LOAD-5): they stay in the stream. */
  readonly deferBytes: number;
}

/** Where a block stands: the constants of its INSERT that do not come from its messages. */
export interface Place {
  readonly generation: string;
  /** Number of the block within shard and generation, from 1. */
  readonly block: number;
}

/** How an INSERT failed, as far as the protocol cares. */
export type InsertFailure = 'busy' | 'content' | 'fatal' | 'large' | 'transient' | 'unclear';

/** A block as ClickHouse has it. */
export interface FoundBlock {
  /** First and last message. */
  readonly lo: number;
  readonly hi: number;
  /** When the log took the last message, ms; 0 or nothing when that is not known. */
  readonly hiAtMs?: number;
}

export interface ShardIo {
  /** Reads the state; rejects when the log or ClickHouse cannot be reached. */
  recover(): Promise<ShardState>;
  /**
   * The next block of messages after `hi`; waits for them. `again`: the log may have changed, recover first.
   * `undefined`: stopping, and nothing is left to store.
   */
  gather(generation: string, hi: number): Promise<Block | 'again' | undefined>;
  /**
   * The block without what must not be stored: copies of batches that are in ClickHouse (LOAD-5), and messages that are no
   * sequence of batches, which are in the dead letters by then (LOAD-6). Rejects when it cannot find out; it is tried again.
   */
  plan(place: Place, block: Block): Promise<Block>;
  /**
   * Insert-if-absent; of a block without rows, the tombstone. Rejects with anything; {@link classify} tells what it means.
   */
  insert(place: Place, block: Block): Promise<void>;
  /**
   * LOAD-6. The block without the batches that ClickHouse refuses, which are in the dead letters by then; the same block
   * when it refuses none of them, or so many that it is not the batches' fault. Rejects when it cannot find out.
   * @param error what the INSERT ended with: `content` or `unclear`
   */
  isolate(place: Place, block: Block, error: unknown): Promise<Block>;
  /** The block is too large for ClickHouse. The next ones are cut smaller; false when they cannot be. */
  smaller(block: Block): boolean;
  classify(error: unknown): InsertFailure;
  /** The block of this number that ClickHouse has, undefined when it has none. */
  readBack(place: Place, block: Block): Promise<FoundBlock | undefined>;
  /** The block is in ClickHouse: mine, or one that another worker stored under its number. */
  settled(place: Place, block: Block, mine: boolean): void;
  /** LOAD-5: the block has no row and is not written for now; its messages are committed, but no block has them yet. */
  deferred(place: Place, block: Block): void;
  /** Something worth a line in the log and a metric. */
  tell(event: LoaderEvent): void;
  /** Waits about so long; less when stopping. */
  pause(ms: number): Promise<void>;
  /** Take no new block. */
  stopping(): boolean;
  /** Leave even the block in flight; harmless by LOAD-2. */
  givingUp(): boolean;
}

export type LoaderEvent =
  | { readonly kind: 'recovered'; readonly state: ShardState }
  | { readonly kind: 'recover-failed'; readonly error: unknown; readonly waitMs: number }
  | { readonly kind: 'gap'; readonly from: number; readonly to: number }
  | { readonly kind: 'plan-failed'; readonly place: Place; readonly error: unknown; readonly waitMs: number }
  | {
      readonly kind: 'insert-failed';
      readonly failure: InsertFailure;
      readonly place: Place;
      readonly block: Block;
      readonly error: unknown;
      readonly waitMs: number;
    }
  /** The INSERT failed, and the block is there all the same. */
  | { readonly kind: 'stored-anyway'; readonly place: Place; readonly block: Block; readonly error: unknown }
  | { readonly kind: 'read-back-failed'; readonly place: Place; readonly error: unknown; readonly waitMs: number }
  | { readonly kind: 'absent'; readonly place: Place; readonly block: Block };

/** How the loader of a shard ended. */
export type Ending = { readonly kind: 'left' } | { readonly kind: 'stopped'; readonly reason: string };

/** Waits between tries, in ms; they double from the first to the last. The shell adds jitter. */
const waits = {
  transient: { first: 100, last: 5_000 },
  // A running query of the same name ends soon, one way or the other.
  busy: { first: 50, last: 1_000 },
  // What LOAD-6 could not put down to some batches: never skip, but do not hammer either.
  content: { first: 5_000, last: 60_000 },
  fatal: { first: 2_000, last: 30_000 },
  large: { first: 100, last: 5_000 },
  unclear: { first: 500, last: 5_000 },
} as const;

/** INSERTs of a block that may fail with an unlisted error, before the block is taken apart: half a dozen seconds. */
const maxUnclear = 5;

/** Gives the wait after each failure in a row. */
function growing(kind: keyof typeof waits): () => number {
  let failures = 0;
  return () => backOff(waits[kind], ++failures);
}

const mendText =
  'remove nothing. `sluice shards mend <shard>` keeps a copy of what is not loaded, makes the stream again, and publishes the copy again';

/** Why this shard must not be loaded now; undefined when it may. */
export function refusal(state: ShardState): string | undefined {
  if (state.block === 0 && state.others.length > 0 && !state.accepted) {
    const known = state.others.map((other) => `${other.generation} (loaded up to ${other.hi})`).join(', ');
    return (
      `the stream was made again: it is now ${state.generation}, and ClickHouse holds ${known}. If all of its messages are ` +
      'new ones, `sluice shards accept <shard>` goes on with them. If some may be stored already, as in an old stream restored, ' +
      '`sluice shards mend <shard>` publishes them again as retries, so that each is stored once'
    );
  }
  if (state.lastSequence < state.hi) {
    return (
      `the stream went backwards: its last message is ${state.lastSequence}, but ClickHouse holds up to ` +
      `${state.hi}. What it took since is not in ClickHouse: ${mendText}`
    );
  }
  if (state.replaced) {
    return (
      `the stream lost its end and went on: its message ${state.hi} is not the one that ClickHouse holds. What it took ` +
      `since is not in ClickHouse, and going on would pass over it: ${mendText}`
    );
  }
  return undefined;
}

/** Loads one shard until it is asked to stop, or must not go on. Never rejects while its io keeps to the contract. */
export async function loadShard(io: ShardIo): Promise<Ending> {
  let recoverWait = growing('transient');
  let gap: Gap | undefined;
  while (!io.stopping()) {
    let state: ShardState;
    try {
      state = await io.recover();
    } catch (error) {
      const waitMs = recoverWait();
      io.tell({ kind: 'recover-failed', error, waitMs });
      await io.pause(waitMs);
      continue;
    }
    recoverWait = growing('transient');
    const reason = refusal(state);
    if (reason !== undefined) return { kind: 'stopped', reason }; // LOAD-8
    io.tell({ kind: 'recovered', state });
    gap = await follow(io, state, gap);
  }
  return { kind: 'left' };
}

/** The next message was not the one after `hi`. */
interface Gap {
  readonly hi: number;
  readonly lo: number;
}

/** Most messages that are deferred; the bound of their bytes is the stream's ({@link ShardState.deferBytes}). */
const maxDeferred = 10_000;

/** LOAD-5: a block without rows may wait for the next one. */
const mayWait = (block: Block, { deferBytes }: ShardState): boolean =>
  block.bytes < deferBytes && block.hi - block.lo < maxDeferred;

/**
 * LOAD-8. The same sequences are not the same messages when the log has lost its end: another worker may have stored what this one
 * has never seen, under the same range.
 */
const isSame = (found: FoundBlock, block: Block): boolean =>
  found.lo === block.lo &&
  found.hi === block.hi &&
  ((found.hiAtMs ?? 0) === 0 || found.hiAtMs === Math.floor(block.lastTimeMs));

/** What was deferred becomes the front of the next block. Its bytes are gone: none of them is to be stored. */
function joined(deferred: Block | undefined, next: Block): Block {
  if (deferred === undefined) return next;
  return {
    ...next,
    lo: deferred.lo,
    day: deferred.day,
    firstTimeMs: deferred.firstTimeMs,
    duplicate: deferred.duplicate + next.duplicate,
    dead: deferred.dead + next.dead,
    batches: deferred.batches + next.batches,
    bytes: deferred.bytes + next.bytes,
    traces: [...deferred.traces, ...next.traces].slice(0, maxLinks),
  };
}

const emptied = (block: Block): Block => ({ ...block, messages: [], sequences: [], batchIndexes: [] });

/** What is read and not stored: messages that wait without rows for the next block (LOAD-5), and a planned block behind them. */
interface Front {
  deferred: Block | undefined;
  ready: Block | undefined;
}

/** A planned block; or the reason to leave: a recovery, that must look into the gap if there is one, or the end. */
type Next = { readonly kind: 'planned'; readonly block: Block } | { readonly kind: 'leave'; readonly gap?: Gap };

/**
 * Stores block after block, until something calls for a recovery or the end.
 * @param seen a gap that was met before the recovery of `state`
 * @returns a gap that must be looked into by another recovery
 */
async function follow(io: ShardIo, state: ShardState, seen: Gap | undefined): Promise<Gap | undefined> {
  const { generation } = state;
  let { block: last, hi } = state;
  const front: Front = { deferred: undefined, ready: undefined };
  while (true) {
    const place: Place = { generation, block: last + 1 };
    if (front.ready === undefined) {
      const next = await nextPlanned(io, place, front.deferred?.hi ?? hi, seen);
      if (next.kind === 'leave') return next.gap;
      front.ready = next.block;
    }
    const block = takeFront(front);
    if (block.rows === 0 && front.ready === undefined && mayWait(block, state)) {
      defer(io, place, front, block);
      continue;
    }
    const outcome = await store(io, state, place, block);
    if (outcome === undefined) return undefined;
    if (outcome.found === undefined) {
      defer(io, place, front, outcome.block);
      continue;
    }
    const mine = isSame(outcome.found, block);
    io.settled(place, outcome.block, mine);
    // LOAD-3: after another's block, recover in full; its `hi` alone would not tell what is inside it (LOAD-5).
    if (!mine) return undefined;
    last = place.block;
    hi = outcome.found.hi;
  }
}

/** The next block after `end`, without what must not be stored. */
async function nextPlanned(io: ShardIo, place: Place, end: number, seen: Gap | undefined): Promise<Next> {
  const gathered = await io.gather(place.generation, end);
  if (gathered === 'again' || gathered === undefined) return { kind: 'leave' };
  if (gathered.lo !== end + 1) {
    if (seen?.hi !== end || seen.lo !== gathered.lo) return { kind: 'leave', gap: { hi: end, lo: gathered.lo } }; // LOAD-3
    io.tell({ kind: 'gap', from: end + 1, to: gathered.lo - 1 });
  }
  const block = await tried(io, place, gathered, () => io.plan(place, gathered));
  return block === undefined ? { kind: 'leave' } : { kind: 'planned', block };
}

/** The block to store next, out of what is deferred and what is ready; takes it from the front. */
function takeFront(front: Front): Block {
  const { deferred, ready } = front;
  front.deferred = undefined;
  // The two are too far apart to lie in the partition of the first.
  if (deferred !== undefined && ready !== undefined && ready.lastTimeMs - deferred.firstTimeMs > maxSpanMs) {
    return deferred;
  }
  front.ready = undefined;
  return joined(deferred, ready as Block);
}

/** LOAD-5: the block is not written; its messages become the front of the next one. */
function defer(io: ShardIo, place: Place, front: Front, block: Block): void {
  front.deferred = emptied(block);
  io.deferred(place, front.deferred);
}

/** What `work` says of a block, however often it takes. Undefined: giving up, or the block is cut smaller. */
async function tried<T>(io: ShardIo, place: Place, block: Block, work: () => Promise<T>): Promise<T | undefined> {
  const wait = growing('transient');
  while (!io.givingUp()) {
    try {
      return await work();
    } catch (error) {
      const waitMs = wait();
      io.tell({ kind: 'plan-failed', place, error, waitMs });
      await io.pause(waitMs);
      if (io.classify(error) === 'large' && io.smaller(block)) return undefined;
    }
  }
  return undefined;
}

interface SentBlock {
  /** The block as it was sent last. */
  readonly block: Block;
  /** What ClickHouse has under its number. Undefined: nothing, because no row of it is left (LOAD-6). */
  readonly found: FoundBlock | undefined;
}

interface Failed {
  readonly failure: InsertFailure;
  readonly error: unknown;
}

/** Sends a block once. Whatever an error says, the INSERT may have happened or may still be running: only reading back tells. */
async function insertOnce(io: ShardIo, place: Place, block: Block): Promise<Failed | undefined> {
  try {
    await io.insert(place, block);
    return undefined;
  } catch (error) {
    return { failure: io.classify(error), error };
  }
}

/** What ClickHouse has under the block's number, however often it must be asked. `left`: giving up. */
async function look(io: ShardIo, place: Place, block: Block): Promise<FoundBlock | 'absent' | 'left'> {
  const wait = growing('transient');
  while (!io.givingUp()) {
    try {
      const found = await io.readBack(place, block);
      if (found !== undefined) return found;
      io.tell({ kind: 'absent', place, block });
      return 'absent';
    } catch (error) {
      const waitMs = wait();
      io.tell({ kind: 'read-back-failed', place, error, waitMs });
      await io.pause(waitMs);
    }
  }
  return 'left';
}

/** How a block is tried: the waits by failure, and how often its failure was an unlisted one. */
interface Tries {
  readonly wait: Readonly<Record<InsertFailure, () => number>>;
  unclear: number;
}

/** Insert and read back until ClickHouse has a block of this number. Undefined: giving up, or recover first. */
async function store(io: ShardIo, state: ShardState, place: Place, whole: Block): Promise<SentBlock | undefined> {
  const kinds = Object.keys(waits) as (keyof typeof waits)[];
  const wait = Object.fromEntries(kinds.map((kind) => [kind, growing(kind)])) as Record<InsertFailure, () => number>;
  const tries: Tries = { wait, unclear: 0 };
  let block = whole;
  while (!io.givingUp()) {
    const made = await attempt(io, place, block, tries);
    if (made.kind === 'left') return undefined;
    if (made.kind === 'found') return { block, found: made.found };
    const { failed, suspect } = made;
    if (failed === undefined) {
      // ClickHouse took the INSERT and stored nothing: it has these messages under another number. Look again.
      await io.pause(wait.transient());
      return undefined;
    }
    if (failed.failure === 'large' && io.smaller(block)) return undefined;
    if (!suspect) continue;
    const rid = await withoutRefused(io, place, block, tries, failed);
    if (rid === undefined) return undefined;
    if (rid !== block && rid.rows === 0 && mayWait(rid, state)) return { block: rid, found: undefined };
    block = rid;
  }
  return undefined;
}

/** What came of one INSERT: ClickHouse has a block of the number, or none; or the loader gives up. */
type Attempt =
  | { readonly kind: 'left' }
  | { readonly kind: 'found'; readonly found: FoundBlock }
  | { readonly kind: 'absent'; readonly failed: Failed | undefined; readonly suspect: boolean };

async function attempt(io: ShardIo, place: Place, block: Block, tries: Tries): Promise<Attempt> {
  const failed = await insertOnce(io, place, block);
  const suspect = failed !== undefined && isSuspect(failed, tries);
  if (failed !== undefined && !suspect) await rest(io, place, block, tries, failed);
  const found = await look(io, place, block);
  if (found === 'left') return { kind: 'left' };
  if (found === 'absent') return { kind: 'absent', failed, suspect };
  if (failed !== undefined && isSame(found, block)) {
    io.tell({ kind: 'stored-anyway', place, block, error: failed.error });
  }
  return { kind: 'found', found };
}

/** LOAD-6: the bytes may be at fault. */
const isSuspect = ({ failure }: Failed, tries: Tries): boolean =>
  failure === 'content' || (failure === 'unclear' && ++tries.unclear >= maxUnclear);

/** Reports a failure, and waits. */
async function rest(
  io: ShardIo,
  place: Place,
  block: Block,
  { wait }: Tries,
  { failure, error }: Failed,
  pace = failure,
): Promise<void> {
  const waitMs = wait[pace]();
  io.tell({ kind: 'insert-failed', failure, place, block, error, waitMs });
  await io.pause(waitMs);
}

/** LOAD-6. The same block, after a wait, when none of its batches is to blame. Undefined: giving up, or the block is cut smaller. */
async function withoutRefused(
  io: ShardIo,
  place: Place,
  block: Block,
  tries: Tries,
  failed: Failed,
): Promise<Block | undefined> {
  const rid = await tried(io, place, block, () => io.isolate(place, block, failed.error));
  if (rid === block) await rest(io, place, block, tries, failed, 'content');
  return rid;
}

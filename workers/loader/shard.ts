/**
 * One shard at work: the protocol (loader.ts) bound to the stream (pull-reader.ts), ClickHouse (block-store.ts), the clock,
 * logs, metrics and spans; and the round that looks at the stream every few seconds, to measure and to trim.
 */
import type { JetStreamManager } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/nats-core';
import type { DeadLetters } from '../../lib/dead-letters.js';
import { failpoint } from '../../lib/failpoint.js';
import { generationOf } from '../../lib/log-streams.js';
import type { Logger } from '../../lib/logger.js';
import { streamInfo } from '../../lib/stream-info.js';
import { shardStream } from '../../lib/subjects.js';
import { utcDay } from '../../lib/timestamp.js';
import { StatementError } from '../clickhouse/errors.js';
import type { ByteBudget } from '../reader/budget.js';
import type { BufferPool } from '../reader/buffer-pool.js';
import { isReplaced } from '../reader/end.js';
import { logLink } from '../reader/link.js';
import type { LogMessage } from '../reader/log-message.js';
import { createPullReader } from '../reader/pull-reader.js';
import { type Block, type BlockLimits, type FlushReason, startBlock } from './block.js';
import { blockSizer } from './block-size.js';
import type { BlockStore } from './block-store.js';
import { type Dead, partRefused, partRescanned, partUnframed, placeOf, withoutPlaces } from './dead-letters.js';
import { scanDead } from './dead-scan.js';
import { createDeduplicator, suspectMs } from './dedup.js';
import { type LoaderEvent, loadShard, type Place, type ShardIo, type ShardState } from './loader.js';
import type { LoaderMetrics } from './loader-metrics.js';
import { controlBatch, currentContract } from './rescan.js';
import { standsStillMs, standstill, type Wait } from './standstill.js';
import { trimLedger } from './trim.js';

export interface ShardLoaderOptions {
  readonly nc: NatsConnection;
  readonly jsm: JetStreamManager;
  readonly shard: number;
  readonly store: BlockStore;
  readonly limits: BlockLimits;
  readonly budget: ByteBudget;
  readonly buffers: BufferPool;
  readonly deadLetters: DeadLetters;
  /** How long loaded messages stay in the stream, ms. */
  readonly replayMs: number;
  readonly metrics: LoaderMetrics;
  readonly logger: Logger;
  /** The key of the settings bucket by which an operator accepts a stream that was made again. */
  readonly accepted: (shard: number, generation: string) => Promise<boolean>;
  /**
   * Everything up to here is committed. Told with each block, and again every second, as long as the log is known to be the
   * one that was loaded: not after a break (pull-reader.ts) until the next recovery, for what comes back may have lost its end,
   * and gives the same sequences to other messages.
   */
  readonly onCommitted?: ((shard: number, generation: string, hi: number) => void) | undefined;
  /** How often the stream is looked at, to measure and to trim, ms. @default 2000 */
  readonly roundMs?: number;
  /** How long a shard that must not be loaded waits before it looks again, ms. @default 15000 */
  readonly stoppedMs?: number;
  /** How often what is committed is published again, ms. @default 1000 */
  readonly hintMs?: number;
  /** After this long without a stored block, a shard that has messages raises an alarm, ms. @default 20 s and a block's delay */
  readonly standstillMs?: number;
}

export interface ShardLoader {
  /**
   * Takes no new block, stores what is gathered, and ends.
   * @param graceMs after this long even the block in flight is left; another worker loads it (LOAD-2)
   */
  stop(graceMs: number): Promise<void>;
  /** Why the shard stands still; undefined while it moves. */
  wait(): Wait | undefined;
}

/** A block as it was gathered, and what became of it. */
interface Cut {
  readonly block: Block;
  planned: Block;
  /** Batches that ClickHouse refuses, by place; and all that the dead letters have. */
  readonly refused: Map<string, Dead>;
  readonly deadLettered: Set<string>;
  /** How many of `refused` the planned block is without. */
  applied: number;
  /** The dead letters were asked for batches of it. */
  recalled: boolean;
}

const dayMs = 86_400_000;
const wasUnsent = (error: unknown): boolean => error instanceof StatementError && error.unsent;
/** Read ahead while a block is in flight: 40 % of one of the usual size (200k rows of 150 bytes); more brought 2 % and cost memory. */
const mostAhead = 12 * 1024 ** 2;
/** Share of a stream's limit that deferred messages may take (LOAD-5): they cannot be trimmed. */
const deferShare = 1 / 8;
const mostDeferredBytes = 64 * 1024 ** 2;
/** Retried batches that are read from ClickHouse after a recovery. */
const mostRetried = 50_000;
/** How far a gateway's clock, by which they are found, may be behind the log's; and what a gateway may hold a batch for. */
const clockMarginMs = 3_600_000;

/** The newest dead letters of a shard that are read for a block that is refused: what a worker before this one has found. */
const mostRecalled = 5_000;
/** Causes of an INSERT that fails though its block is stored, that are reported one by one. */
const mostCauses = 16;
/** Dead letters of a block that are logged one by one. */
const mostTold = 5;

/** The view that ClickHouse's message names. */
const viewIn = (message: string): string | undefined => /\bview ([^\s(,]*[^\s(,.:;])/.exec(message)?.[1];

/** `accept.<shard>` in the settings bucket. */
export const acceptKey = (shard: number): string => `accept.${shard}`;

export function startShardLoader(options: ShardLoaderOptions): ShardLoader {
  const { nc, jsm, shard, store, limits, metrics, roundMs = 2_000, stoppedMs = 15_000, hintMs = 1_000 } = options;
  const stream = shardStream(shard);
  const logger = options.logger.child({ shard, stream });
  const ledger = trimLedger();
  const dedup = createDeduplicator(store);
  const sizer = blockSizer(limits);
  const still = standstill({ afterMs: options.standstillMs ?? standsStillMs + limits.delayMs });
  /** INSERTs that failed though their block was stored, by cause. */
  const causes = new Set<string>();
  const aheadBytes = Math.min(limits.bytes, mostAhead);
  const tellGap = (from: number, to: number): void => {
    metrics.gap(shard, to - from + 1);
    logger.error(
      { from, to },
      'messages are gone from the stream that ClickHouse does not show: they were removed by hand, or ' +
        'their rows were erased; the shard goes on after them',
    );
  };
  const { budget, buffers } = options;
  const ask = logLink(nc);
  const reader = createPullReader({ nc, jsm, stream, budget, buffers, aheadBytes, onGap: tellGap, logger });

  let stopping = false;
  let giveUpAt = Number.POSITIVE_INFINITY;
  /** What ClickHouse is known to have; `deferred`: the end of what is deferred besides (LOAD-5). */
  let committed: { generation: string; hi: number; deferred: number } | undefined;
  /** The reader's breaks when the log was looked at last. */
  let lookedAfter = 0;
  let inFlight: Block | undefined;
  /** The messages of the block in flight. */
  let held: LogMessage[] = [];
  /** INSERTs of the block in flight that were sent, and those that were answered without error. */
  let sent = 0;
  let answered = 0;
  let insertStart = 0;
  /** The block at hand. */
  let cut: Cut | undefined;
  const pauses = new Set<() => void>();

  const pause = (ms: number): Promise<void> =>
    new Promise((resolve) => {
      if (stopping && Date.now() >= giveUpAt) return resolve();
      const done = (): void => {
        clearTimeout(timer);
        pauses.delete(done);
        resolve();
      };
      const timer = setTimeout(done, ms);
      pauses.add(done);
    });

  /** The back-off is for ClickHouse that is away: what is in trouble now is tried at once when it is back. */
  const offRecovered = store.onRecovered(() => {
    for (const done of pauses) done();
  });

  const tellCommitted = (): void => {
    if (committed === undefined || lookedAfter !== reader.breaks) return;
    options.onCommitted?.(shard, committed.generation, committed.deferred);
  };
  const hinting = setInterval(() => {
    tellCommitted();
    lookWhetherItMoves();
  }, hintMs);

  /** Messages that are not loaded, when the stream was looked at last. */
  let depth = 0;
  let waiting: Wait | undefined;
  function lookWhetherItMoves(): void {
    const before = waiting;
    waiting = still.look(depth > 0 || inFlight !== undefined);
    metrics.standing(shard, waiting !== undefined);
    if (waiting !== undefined && waiting.reason !== before?.reason) {
      logger.error({ ...waiting, messages: depth }, `shard ${shard} stands still: ${waiting.reason}`);
    } else if (waiting === undefined && before !== undefined) logger.info('the shard moves again');
  }

  async function recover(): Promise<ShardState> {
    const { breaks } = reader;
    let info = await ask(() => streamInfo(jsm, stream));
    const generation = generationOf(info);
    // Blocks that matter begin at the stream's first message or, for the last one that was loaded, just before it:
    // one day of margin covers that and clocks that differ among the log's servers.
    const firstMs = Date.parse(info.state.first_ts);
    const fromDay = info.state.messages > 0 && firstMs > dayMs ? utcDay(firstMs - dayMs) : undefined;
    const last = await store.lastBlock(shard, generation, fromDay);
    // Another worker may have loaded what came since: only a look after ClickHouse's word tells that a stream went backwards.
    if (last.hi > info.state.last_seq) {
      info = await ask(() => streamInfo(jsm, stream));
      if (generationOf(info) !== generation) throw new Error('the stream was made again during the recovery');
    }
    // LOAD-5, DEDUP-2. The next message is not older than the stream's first one.
    const nextMs = info.state.messages > 0 ? firstMs : Date.now();
    const retried = await store.retriedSince(nextMs - suspectMs - clockMarginMs, mostRetried + 1);
    dedup.begin(retried.slice(0, mostRetried), retried.length <= mostRetried);
    const found = info;
    const replaced = await ask(() => isReplaced(jsm, found, last));
    const { max_bytes: maxBytes } = info.config;
    failpoint('loader.after-recover');
    lookedAfter = breaks;
    return {
      generation,
      firstSequence: info.state.first_seq,
      lastSequence: info.state.last_seq,
      ...last,
      replaced,
      accepted: last.others.length > 0 && (await options.accepted(shard, generation)),
      deferBytes: Math.min(mostDeferredBytes, maxBytes > 0 ? maxBytes * deferShare : mostDeferredBytes),
    };
  }

  async function gather(generation: string, hi: number): Promise<Block | 'again' | undefined> {
    releaseInFlight();
    // Under load there is always another message: a shard that was given to another worker would be loaded by both for the whole grace.
    if (stopping) return undefined;
    // LOAD-8. The log may have become another one during the recovery; `seek` would forget that it is in doubt.
    if (lookedAfter !== reader.breaks) return 'again';
    reader.seek(generation, hi);
    const cutter = startBlock(sizer.limits());
    const gathered: LogMessage[] = [];
    const cut = (reason: FlushReason): Block => {
      failpoint('loader.after-gather');
      inFlight = cutter.cut(reason);
      held = gathered;
      return inFlight;
    };
    while (true) {
      if (reader.lost) break;
      let message = reader.peek();
      while (message !== undefined && cutter.full() === undefined && cutter.add(message, Date.now())) {
        gathered.push(message);
        reader.take();
        message = reader.peek();
      }
      const full = cutter.full();
      if (full !== undefined) return cut(full);
      if (stopping) {
        return cutter.size > 0 ? cut('drain') : undefined;
      }
      const left = cutter.dueMs - Date.now();
      if (left <= 0) return cut('delay');
      await reader.wait(left);
    }
    reader.release(gathered, true);
    return 'again';
  }

  /** A request that ended without an answer may still be writing: then its messages' bytes are not to be overwritten. */
  function releaseInFlight(): void {
    reader.release(held, answered === sent);
    inFlight = undefined;
    held = [];
    sent = 0;
    answered = 0;
  }

  async function trial(messages: readonly Uint8Array[], suspect: number | undefined): Promise<string | undefined> {
    if (io.givingUp()) throw new Error('stopping');
    sent++;
    const reason = await store.trial(messages, suspect);
    answered++;
    return reason;
  }

  /** LOAD-5, LOAD-6: what of the block at hand is to be stored. */
  async function planCut(place: Place, of: Cut): Promise<Block> {
    of.applied = of.refused.size;
    const framed = partUnframed(withoutPlaces(of.block, of.refused));
    const rescanned = partRescanned(await dedup.plan(framed.block), currentContract);
    await deadLetter(place, of, [...framed.dead, ...rescanned.dead]);
    failpoint('loader.after-plan');
    of.planned = rescanned.block;
    return of.planned;
  }

  /** LOAD-6. Resolves when the dead letters have them; until then no block without them may be stored. */
  async function deadLetter(place: Place, of: Cut, all: readonly Dead[]): Promise<void> {
    const dead = all.filter((one) => !of.deadLettered.has(placeOf(one)));
    if (dead.length === 0) return;
    failpoint('loader.before-dead-letter');
    try {
      await options.deadLetters.put(dead.map((one) => ({ ...one, shard, stream, generation: place.generation })));
    } catch (error) {
      metrics.lettersBlocked(shard, true);
      logger.error(
        { error: String(error), letters: dead.length },
        'the dead letters cannot be written: the shard waits',
      );
      throw error;
    }
    metrics.lettersBlocked(shard, false);
    for (const one of dead) of.deadLettered.add(placeOf(one));
    failpoint('loader.after-dead-letter');
    for (const { kind, events } of dead) metrics.dead(shard, kind, events);
    for (const { kind, reason, sequence, index, tenant, batchId, events } of dead.slice(0, mostTold)) {
      logger.error(
        { kind, sequence, index, tenant, batchId, events, reason },
        'a batch cannot be stored: it is in the dead letters',
      );
    }
    if (dead.length > mostTold) logger.error({ more: dead.length - mostTold }, 'and more of them');
  }

  /**
   * LOAD-6. What a worker that died in the search has found already: refused is what the dead letters have. So a search gets on however
   * often workers die in it.
   */
  async function recall(place: Place, of: Cut): Promise<void> {
    if (of.recalled) return;
    const { lo, hi } = of.block;
    await scanDead({
      nc,
      jsm,
      shard,
      newest: mostRecalled,
      most: mostRecalled,
      onLetter({ data, ...letter }) {
        const { kind, generation, sequence } = letter;
        if (kind !== 'refused' || generation !== place.generation || sequence < lo || sequence > hi) return;
        of.refused.set(placeOf(letter), { ...letter, bytes: data });
        of.deadLettered.add(placeOf(letter));
      },
    });
    of.recalled = true;
    if (of.refused.size > 0)
      logger.info({ batches: of.refused.size }, 'the dead letters have batches of this block already');
  }

  /** The block as it is to be sent now, without what was found since it was planned. */
  async function replanned(place: Place, block: Block, of: Cut): Promise<Block> {
    const { planned: before } = of;
    const { messages, sequences, batchIndexes, ...after } = await planCut(place, of);
    const duplicate = block.duplicate - before.duplicate + after.duplicate;
    const dead = block.dead - before.dead + after.dead;
    return { ...block, messages, sequences, batchIndexes, rows: after.rows, duplicate, dead };
  }

  const io: ShardIo = {
    recover,
    gather,
    plan(place, block) {
      cut = { block, planned: block, refused: new Map(), deadLettered: new Set(), applied: 0, recalled: false };
      return planCut(place, cut);
    },
    async isolate(place, block, error) {
      if (cut === undefined) return block;
      const of = cut;
      const doubtful = error instanceof StatementError && error.kind === 'unclear';
      const suspect = doubtful ? error.clickhouseCode : undefined;
      await recall(place, of);
      if (of.refused.size === of.applied) {
        metrics.insertFailed(shard, doubtful ? 'unclear' : 'content');
        logger.warn(
          { block: place.block, batches: block.batches, error: String(error) },
          'ClickHouse refuses a block: looking for batches that are the cause',
        );
        await partRefused(block, (messages) => trial(messages, suspect), controlBatch, {
          doubtful,
          async found(one) {
            await deadLetter(place, of, [one]);
            of.refused.set(placeOf(one), one);
          },
        });
      }
      return of.refused.size === of.applied ? block : replanned(place, block, of);
    },
    smaller(block) {
      const possible = sizer.smaller(block);
      const { rows, bytes } = sizer.limits();
      if (possible) logger.warn({ rows, bytes }, 'ClickHouse cannot take a block of this size: blocks are cut smaller');
      return possible;
    },
    deferred(place, block) {
      still.moved();
      committed = { generation: place.generation, hi: block.lo - 1, deferred: block.hi };
      tellCommitted();
      failpoint('loader.after-carry');
    },
    async insert(place, block) {
      failpoint('loader.before-insert');
      insertStart = performance.now();
      sent++;
      await store.insert(shard, place, block).catch((error: unknown) => {
        if (wasUnsent(error)) sent--;
        throw error;
      });
      answered++;
      failpoint('loader.after-insert');
      metrics.inserted(shard, (performance.now() - insertStart) / 1000);
    },
    classify: (error) => store.classify(error),
    async readBack(place, block) {
      const found = await store.readBack(shard, place, block.day);
      failpoint('loader.after-read-back');
      return found;
    },
    settled(place, block, mine) {
      still.moved();
      if (mine) sizer.stored();
      metrics.settled(shard, block, mine, place, insertStart);
      if (mine) {
        committed = { generation: place.generation, hi: block.hi, deferred: block.hi };
        ledger.loaded({ hi: block.hi, bytes: block.bytes, timeMs: block.lastTimeMs });
        tellCommitted();
      } else {
        logger.info({ block: place.block, lo: block.lo, hi: block.hi }, 'another worker stored this block');
      }
      // A deferred block that is written for itself has no messages here; those at hand are of the next one (loader.ts).
      if (!mine || block.hi === inFlight?.hi) releaseInFlight();
      failpoint('loader.after-settled');
    },
    tell: (event) => tell(event),
    pause: (ms) => pause(ms * (0.5 + Math.random() / 2)),
    stopping: () => stopping,
    givingUp: () => stopping && Date.now() >= giveUpAt,
  };

  /** Something beside the table failed: ClickHouse stores a block first, and then hands it to the materialized views. */
  function tellStoredAnyway(place: Place, error: unknown): void {
    if (!(error instanceof StatementError) || error.clickhouseCode === undefined || error.kind === 'busy') return;
    metrics.storedAnyway(shard, error.clickhouseCode);
    const cause = `${error.clickhouseCode} ${viewIn(error.message) ?? ''}`;
    if (causes.has(cause) || causes.size >= mostCauses) return;
    causes.add(cause);
    logger.warn(
      { block: place.block, view: viewIn(error.message), error: error.message },
      'an INSERT fails although its block is stored: a materialized view on the events table, or another that depends on it, lacks these ' +
        'rows; mend or drop the view, and fill it from the table (told once per cause, counted in sluice_worker_insert_failures_stored)',
    );
  }

  /** The circuit breaker itself reports once what it held back. */
  const tried = (error: unknown, about: object, what: string): void =>
    logger[wasUnsent(error) ? 'debug' : 'warn']({ ...about, error: String(error) }, what);

  /** Rows are never removed by the loader, so this was done by hand: TRUNCATE, a dropped day, a backup that was put back. */
  function tellRemovedRows({ generation, hi, firstSequence }: ShardState): void {
    if (committed === undefined || committed.generation !== generation || hi >= committed.hi) return;
    logger.warn(
      { had: committed.hi, has: hi, logFrom: firstSequence },
      'ClickHouse has fewer messages of this shard than it had: rows were removed. What the log still holds of them is loaded again',
    );
  }

  function tell(event: LoaderEvent): void {
    switch (event.kind) {
      case 'recovered': {
        const { state } = event;
        metrics.recovered(shard);
        tellRemovedRows(state);
        committed = { generation: state.generation, hi: state.hi, deferred: state.hi };
        ledger.begin(state.hi, Date.now());
        tellCommitted();
        logger.info({ block: state.block, hi: state.hi, last: state.lastSequence }, 'recovered from ClickHouse');
        return;
      }
      case 'recover-failed':
        still.failed('cannot find out where the shard stands', event.error);
        tried(event.error, { waitMs: event.waitMs }, 'cannot recover yet');
        return;
      case 'gap':
        tellGap(event.from, event.to);
        return;
      case 'plan-failed':
        still.failed('cannot find out what of a block is to be stored', event.error);
        logger.warn(
          { error: String(event.error), waitMs: event.waitMs },
          'cannot find out yet what of a block is stored',
        );
        return;
      case 'insert-failed': {
        still.failed('storing a block fails', event.error);
        metrics.insertFailed(shard, event.failure);
        const about = {
          block: event.place.block,
          lo: event.block.lo,
          hi: event.block.hi,
          waitMs: event.waitMs,
          error: String(event.error),
        };
        if (event.failure === 'content') {
          metrics.stuck(shard, true);
          logger.error(about, `ClickHouse refuses the content of messages ${about.lo} to ${about.hi} of ${stream}`);
        } else if (event.failure === 'fatal') {
          metrics.stuck(shard, true);
          logger.error(about, 'ClickHouse refuses blocks');
        } else if (event.failure === 'unclear') {
          metrics.stuck(shard, true);
          logger.error(about, 'storing a block fails with an error that is not known here');
        } else
          tried(event.error, about, event.failure === 'busy' ? 'the block is being stored' : 'storing a block failed');
        return;
      }
      case 'stored-anyway':
        tellStoredAnyway(event.place, event.error);
        return;
      case 'read-back-failed':
        still.failed('cannot read back whether a block is stored', event.error);
        tried(event.error, { block: event.place.block, waitMs: event.waitMs }, 'reading back failed');
        return;
      case 'absent':
        logger.info({ block: event.place.block }, 'the block is not there yet');
        return;
      default: {
        const never: never = event;
        throw new Error(`unknown event ${String(never)}`);
      }
    }
  }

  const running = (async () => {
    while (!stopping) {
      const ending = await loadShard(io);
      releaseInFlight();
      if (ending.kind === 'left') break;
      still.stopped(`it is not loaded: ${ending.reason}`);
      metrics.stopped(shard, true);
      committed = undefined;
      logger.error(
        {
          look: 'sluice shards',
          accept: `sluice shards accept ${shard} (a stream made again, when its messages are new)`,
        },
        `shard ${shard} is not loaded: ${ending.reason}`,
      );
      await pause(stoppedMs);
    }
  })();

  /** Looks at the stream: measures how far behind the shard is, and trims (LOAD-8). */
  async function round(): Promise<void> {
    const known = committed;
    const info = await ask(() => streamInfo(jsm, stream));
    const state = info.state;
    const oldest = inFlight?.firstTimeMs ?? reader.peek()?.timeMs;
    depth =
      known === undefined
        ? state.messages
        : Math.max(0, state.last_seq - Math.max(known.deferred, state.first_seq - 1));
    const since = depth === 0 ? undefined : (oldest ?? Date.parse(known?.hi === 0 ? state.first_ts : state.last_ts));
    metrics.measured(shard, { depth, lagMs: since === undefined ? 0 : Math.max(0, Date.now() - since) });
    // Only the stream that ClickHouse was asked about, and only with its end in place. After a break it may have lost its end and
    // given what is loaded as a sequence to other messages, so the next recovery comes first.
    if (known === undefined || lookedAfter !== reader.breaks) return;
    if (generationOf(info) !== known.generation || state.last_seq < known.hi) return;
    const point = ledger.point({
      nowMs: Date.now(),
      streamBytes: state.bytes,
      maxBytes: info.config.max_bytes,
      replayMs: options.replayMs,
    });
    if (point === undefined || point > known.hi) return;
    if (point >= state.first_seq) {
      failpoint('loader.before-purge');
      await jsm.streams.purge(stream, { seq: point + 1 });
      failpoint('loader.after-purge');
      metrics.trimmed(shard);
    }
    ledger.trimmed(point);
  }

  let roundTimer: NodeJS.Timeout | undefined;
  let rounding: Promise<void> = Promise.resolve();
  const schedule = (): void => {
    roundTimer = setTimeout(() => {
      rounding = round()
        .catch((error: unknown) => logger.debug({ error: String(error) }, 'cannot look at the stream'))
        .finally(() => {
          if (!stopping) schedule();
        });
    }, roundMs);
  };
  schedule();

  return {
    wait: () => waiting,
    async stop(graceMs) {
      if (stopping) return running;
      stopping = true;
      giveUpAt = Date.now() + graceMs;
      clearTimeout(roundTimer);
      clearInterval(hinting);
      reader.wake();
      for (const done of pauses) done();
      const late = setTimeout(() => {
        for (const done of pauses) done();
      }, graceMs);
      await running;
      clearTimeout(late);
      offRecovered();
      await rounding;
      await reader.close();
      metrics.left(shard);
    },
  };
}

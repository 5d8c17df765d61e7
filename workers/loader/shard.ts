/**
 * Loading: from messages of a shard's stream to blocks in ClickHouse, each event exactly once. This file starts one shard's loader:
 * the protocol (loader.ts), bound to the stream, ClickHouse, the clock, logs, metrics and spans.
 *
 * Which shards
 *   assignment.ts        which worker loads which shard
 *   live-workers.ts      which workers live, by their heartbeats; LIVE-1 and LIVE-2
 *   pool.ts              the loaders of this worker's shards
 *   shard-waits.ts       answers why shards wait, and asks it of other workers
 *
 * One shard
 *   shard-options.ts     what its loader is given, and what its parts share
 *   loader.ts            the protocol, pure; LOAD-1 to LOAD-8 stand there
 *   shard-life.ts        running, stopping, giving up; pauses
 *   recovery.ts          where the shard stands, read from log and ClickHouse
 *   position.ts          what is known to be committed, and whether that is in doubt
 *   gatherer.ts          the next block, and the memory of the one in flight
 *   block-plan.ts        what of a block is to be stored
 *   shard-round.ts       the look at the stream every few seconds: measure and trim
 *   shard-report.ts      log lines and metrics of what happens
 *   loader-metrics.ts    what the metrics are given
 *   standstill.ts        whether the shard moves
 *
 * Blocks
 *   block.ts             which messages make up a block
 *   block-size.ts        how large blocks are
 *   sort-by-tenant.ts    the order in which a block's messages are sent
 *   block-store.ts       what the protocol asks of ClickHouse
 *   trim.ts              what may leave a stream
 *
 * Batches
 *   frames.ts            the batches inside a message
 *   dedup.ts             which batches were sent again, and which of their events are stored already (LOAD-5)
 *   remembered-retries.ts  the batches of the last hour that were sent again
 *   suspects.ts          the copies in a block that may be stored already
 *   copy-verdicts.ts     which of them are, whole or in part
 *   leave-out.ts         the block without those
 *   fingerprint.ts       whether two copies of a batch hold the same events
 *   stored-events.ts     single events in ClickHouse
 *   stored-frames.ts     the batches of a message, with what names them
 *   dead-letters.ts      what of a block cannot be stored (LOAD-6)
 *   rescan.ts            the contract's part of that
 *
 * What others read here
 *   log-scan.ts          reads a stream from one sequence to another
 *   dead-scan.ts         reads the dead letters
 */
import { jittered } from '../../lib/back-off.js';
import { failpoint } from '../../lib/failpoint.js';
import { shardStream } from '../../lib/subjects.js';
import { MiB } from '../../lib/units.js';
import { logLink } from '../reader/link.js';
import { createPullReader } from '../reader/pull-reader.js';
import { createPlanner } from './block-plan.js';
import { type BlockSizer, createBlockSizer } from './block-size.js';
import { createDeduplicator } from './dedup.js';
import { createGatherer, type Gatherer } from './gatherer.js';
import { type Ending, loadShard, type ShardIo, type ShardState } from './loader.js';
import { createPosition, type Position } from './position.js';
import { recoverShard } from './recovery.js';
import { createShardLife } from './shard-life.js';
import type { ShardContext, ShardLoader, ShardLoaderOptions } from './shard-options.js';
import { createReport, reportGap, reportRemovedRows } from './shard-report.js';
import { startRounds } from './shard-round.js';
import { createStandstill, standsStillMs } from './standstill.js';
import { createTrimLedger, type TrimLedger } from './trim.js';

export type { ShardLoader, ShardLoaderOptions } from './shard-options.js';

/** Read ahead while a block is in flight: 40 % of one of the usual size (200k rows of 150 bytes); more brought 2 % and cost memory. */
const maxAhead = 12 * MiB;

/** `accept.<shard>` in the settings bucket. */
export const acceptKey = (shard: number): string => `accept.${shard}`;

/** Starts loading a shard; it goes on until it is stopped. */
export function startShardLoader(options: ShardLoaderOptions): ShardLoader {
  const context = contextOf(options);
  const { shard, metrics, reader, life, still, stoppedMs = 15_000, hintMs = 1_000 } = context;
  const ledger = createTrimLedger();
  const sizer = createBlockSizer(options.limits);
  const position = createPosition(context);
  const gatherer = createGatherer(context, position, () => sizer.limits());
  const rounds = startRounds(context, position, gatherer, ledger);
  const io = createShardIo(context, { position, gatherer, sizer, ledger });

  /** The back-off is for a ClickHouse that is away: what is in trouble now is tried at once when it is back. */
  const offRecovered = options.store.onRecovered(() => life.endPauses());
  const hinting = setInterval(() => {
    position.publish();
    rounds.look();
  }, hintMs);

  const running = (async () => {
    while (!life.stopping) {
      const ending = await loadShard(io);
      gatherer.release();
      if (ending.kind === 'left') break;
      still.stopped(`it is not loaded: ${ending.reason}`);
      metrics.stopped(shard, true);
      position.forget();
      reportStopped(context, ending);
      await life.pause(stoppedMs);
    }
  })();

  return {
    wait: () => rounds.wait,
    async stop(graceMs) {
      if (life.stopping) return running;
      const cancelLate = life.stop(graceMs);
      const rounded = rounds.end();
      clearInterval(hinting);
      reader.wake();
      await running;
      cancelLate();
      offRecovered();
      await rounded;
      await reader.close();
      metrics.left(shard);
    },
  };
}

function contextOf(options: ShardLoaderOptions): ShardContext {
  const { nc, jsm, shard, limits, budget, buffers, metrics } = options;
  const stream = shardStream(shard);
  const logger = options.logger.child({ shard, stream });
  const reader = createPullReader({
    ...{ nc, jsm, stream, budget, buffers, logger },
    aheadBytes: Math.min(limits.bytes, maxAhead),
    onGap: (from, to) => reportGap({ shard, metrics, logger }, from, to),
  });
  const still = createStandstill({ afterMs: options.standstillMs ?? standsStillMs + limits.delayMs });
  return { ...options, stream, logger, ask: logLink(nc), reader, life: createShardLife(), still };
}

function reportStopped({ shard, logger }: ShardContext, { reason }: Extract<Ending, { kind: 'stopped' }>): void {
  logger.error(
    {
      look: 'sluice shards',
      accept: `sluice shards accept ${shard} (a stream made again, when its messages are new)`,
    },
    `shard ${shard} is not loaded: ${reason}`,
  );
}

interface ShardParts {
  readonly position: Position;
  readonly gatherer: Gatherer;
  readonly sizer: BlockSizer;
  readonly ledger: TrimLedger;
}

/** What the protocol does, done to the real stream and the real ClickHouse. */
function createShardIo(context: ShardContext, { position, gatherer, sizer, ledger }: ShardParts): ShardIo {
  const { shard, store, metrics, logger, life, still } = context;
  const dedup = createDeduplicator(store);
  const onRecovered = (state: ShardState): void => {
    const { generation, hi } = state;
    metrics.recovered(shard);
    reportRemovedRows(logger, position.committed, state);
    ledger.begin(hi, Date.now());
    position.set({ generation, hi, deferred: hi });
    logger.info({ block: state.block, hi, last: state.lastSequence }, 'recovered from ClickHouse');
  };
  /** When the last INSERT began, performance.now. */
  let insertStart = 0;
  return {
    recover: () => recoverShard(context, dedup, position),
    gather: gatherer.gather,
    ...createPlanner(context, dedup, gatherer),
    smaller(block) {
      const possible = sizer.smaller(block);
      const { rows, bytes } = sizer.limits();
      if (possible) logger.warn({ rows, bytes }, 'ClickHouse cannot take a block of this size: blocks are cut smaller');
      return possible;
    },
    deferred({ generation }, block) {
      still.moved();
      position.set({ generation, hi: block.lo - 1, deferred: block.hi });
      failpoint('loader.after-carry');
    },
    async insert(place, block) {
      failpoint('loader.before-insert');
      insertStart = performance.now();
      await gatherer.send(() => store.insert(shard, place, block));
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
        ledger.loaded({ hi: block.hi, bytes: block.bytes, timeMs: block.lastTimeMs });
        position.set({ generation: place.generation, hi: block.hi, deferred: block.hi });
      } else {
        logger.info({ block: place.block, lo: block.lo, hi: block.hi }, 'another worker stored this block');
      }
      // A deferred block that is written for itself has no messages here; those at hand are of the next one (loader.ts).
      if (!mine || block.hi === gatherer.inFlight?.hi) gatherer.release();
      failpoint('loader.after-settled');
    },
    tell: createReport(context, onRecovered),
    pause: (ms) => life.pause(jittered(ms)),
    stopping: () => life.stopping,
    givingUp: () => life.givingUp,
  };
}

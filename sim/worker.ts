/**
 * A worker: the real protocol of the loader (workers/loader/loader.ts, block.ts, dedup.ts, trim.ts) for every shard, on a simulated
 * process, log and sink. What workers/loader/shard.ts binds to NATS and ClickHouse is bound to the simulated ones here.
 */

import { jittered } from '../lib/back-off.js';
import { utcDay } from '../lib/timestamp.js';
import { dayMs, hourMs } from '../lib/units.js';
import { type BlockLimits, createCutter } from '../workers/loader/block.js';
import { type BlockSizer, createBlockSizer } from '../workers/loader/block-size.js';
import type { StoredCopies } from '../workers/loader/copy-verdicts.js';
import { createDeduplicator, type Deduplicator, suspectMs } from '../workers/loader/dedup.js';
import { type Ending, loadShard, type ShardIo, type ShardState } from '../workers/loader/loader.js';
import { createTrimLedger, type TrimLedger } from '../workers/loader/trim.js';
import type { LogMessage } from '../workers/reader/log-message.js';
import { createPlanner } from './block-plan.js';
import type { DeadLetters } from './dead-letters.js';
import type { SimulatedLog } from './log.js';
import { createProcess, type Process } from './process.js';
import { createReader, type Reader } from './reader.js';
import type { SimulatedSink } from './sink.js';
import { SinkFailure } from './sink-request.js';
import type { Weakness } from './weakness.js';
import type { World } from './world.js';

export interface WorkerOptions {
  readonly name: string;
  readonly limits: BlockLimits;
  readonly replayMs: number;
  readonly roundMs: number;
  readonly maxBytes: number;
  /** An operator has accepted a stream that was made again. */
  readonly accepted: (shard: number, generation: string) => boolean;
  readonly letters: DeadLetters;
  /** The hint for gateways. */
  readonly onCommitted: (shard: number, generation: string, sequence: number) => void;
  /** An alarm: the shard is not loaded (LOAD-8). */
  readonly onStopped: (shard: number, reason: string) => void;
  readonly weakness: Weakness;
}

/** How far a shard is. */
interface Committed {
  readonly generation: string;
  /** The last message that is stored, or whose events are. */
  readonly deferred: number;
}

export interface WorkerNode {
  readonly process: Process;
  /** By shard, as this worker knows it; undefined while it knows nothing. */
  readonly committed: readonly (Committed | undefined)[];
}

/** As in workers/loader/recovery.ts. */
const clockMarginMs = hourMs;
const stoppedMs = 15_000;

export function startWorker(world: World, log: SimulatedLog, sink: SimulatedSink, options: WorkerOptions): WorkerNode {
  const process = createProcess(world, options.name);
  const committed: (Committed | undefined)[] = [];
  for (let shard = 0; shard < log.shards; shard++) {
    loadOne(createShardScope({ world, process, log, sink, options, shard, committed }));
  }
  return { process, committed };
}

/** A worker, and one of its shards. */
interface ShardPlace {
  readonly world: World;
  readonly process: Process;
  readonly log: SimulatedLog;
  readonly sink: SimulatedSink;
  readonly options: WorkerOptions;
  readonly shard: number;
  /** Of all shards. */
  readonly committed: (Committed | undefined)[];
}

/** What the parts of a shard's loader share. */
interface ShardScope extends ShardPlace {
  readonly reader: Reader;
  readonly ledger: TrimLedger;
  readonly dedup: Deduplicator;
  /** What ClickHouse is known to have. */
  known: { readonly generation: string; readonly hi: number } | undefined;
  /** The last block was another worker's. */
  others: boolean;
  /** The reader's breaks when the log was looked at last. */
  lookedAfter: number;
}

function createShardScope(place: ShardPlace): ShardScope {
  const { world, process, log, sink, options, shard } = place;
  const stored: StoredCopies = {
    fingerprints: (batches) => sink.fingerprints(process, batches),
    eventCounts: (questions) => sink.eventCounts(process, questions),
  };
  return {
    ...place,
    reader: createReader(world, process, log, shard),
    ledger: createTrimLedger(),
    dedup: createDeduplicator(options.weakness.stored?.(stored) ?? stored),
    known: undefined,
    others: false,
    lookedAfter: 0,
  };
}

/** Asks the log, over the network. */
function ask<T>({ world, process, reader }: ShardScope, question: () => T): Promise<T> {
  return new Promise((resolve, reject) => {
    if (!reader.connected) {
      process.deliver(world.random() * 5_000, () => reject(new Error('no connection to the log')));
      return;
    }
    world.time.after(world.delay(), () => {
      let answer: () => void;
      try {
        const value = question();
        answer = () => resolve(value);
      } catch (error) {
        answer = () => reject(error);
      }
      process.deliver(world.delay(), answer);
    });
  });
}

const pauseOf = (process: Process, ms: number): Promise<void> =>
  new Promise((resolve) => void process.after(ms, resolve));

/** As workers/loader/recovery.ts does it. */
async function recover(scope: ShardScope): Promise<ShardState> {
  const { process, log, sink, options, shard, dedup, reader } = scope;
  const { retriedSet } = options.weakness;
  const look = () =>
    ask(scope, () => {
      const { generation, first, last, messages } = log.stream(shard);
      return { generation, first, last, firstMs: messages[0]?.timeMs };
    });
  const { breaks } = reader;
  let info = await look();
  const { firstMs, generation } = info;
  const fromDay = firstMs === undefined ? undefined : utcDay(firstMs - dayMs);
  const found = await sink.lastBlock(process, shard, generation, fromDay);
  if (found.hi > info.last) {
    info = await look();
    if (info.generation !== generation) throw new Error('the stream was made again during the recovery');
  }
  const nextMs = firstMs ?? process.wall();
  if (retriedSet !== 'never' && !(retriedSet === 'not after another' && scope.others)) {
    dedup.begin(await sink.retriedSince(process, nextMs - suspectMs - clockMarginMs, 1_000), true);
  }
  scope.others = false;
  const isThere = found.hiAtMs > 0 && found.hi <= info.last && found.hi >= info.first;
  const replaced = isThere && (await isReplaced(scope, found));
  scope.lookedAfter = breaks;
  return {
    generation,
    replaced,
    firstSequence: info.first,
    lastSequence: info.last,
    ...found,
    accepted: found.others.length > 0 && options.accepted(shard, generation),
    deferBytes: options.maxBytes / 8,
  };
}

/** The log has another message of this sequence than the one that was loaded (LOAD-8). */
async function isReplaced(
  scope: ShardScope,
  { hi, hiAtMs }: { readonly hi: number; readonly hiAtMs: number },
): Promise<boolean> {
  const { log, shard } = scope;
  const ms = await ask(scope, () => log.stream(shard).messages.find(({ sequence }) => sequence === hi)?.timeMs);
  return ms !== undefined && ms !== hiAtMs;
}

/** As workers/loader/gatherer.ts does it. */
async function gather(
  { process, options, reader, lookedAfter }: ShardScope,
  sizer: BlockSizer,
  generation: string,
  hi: number,
): ReturnType<ShardIo['gather']> {
  // A break during the recovery: what it found out is in doubt already.
  if (lookedAfter !== reader.breaks && options.weakness.forgetsDoubt !== true) return 'again';
  reader.seek(generation, hi);
  const cutter = createCutter(sizer.limits());
  for (;;) {
    if (reader.lost) return 'again';
    let message: LogMessage | undefined = reader.peek();
    while (message !== undefined && cutter.full() === undefined && cutter.add(message, process.now())) {
      reader.take();
      message = reader.peek();
    }
    const full = cutter.full();
    if (full !== undefined) return cutter.cut(full);
    const left = cutter.dueMs - process.now();
    if (left <= 0) return cutter.cut('delay');
    await reader.wait(left);
  }
}

/** Not after a break until the next recovery: what comes back may have lost its end. */
function tellCommitted({ options, shard, committed, reader, lookedAfter }: ShardScope): void {
  const now = committed[shard];
  if (now === undefined || lookedAfter !== reader.breaks || !reader.connected) return;
  options.onCommitted(shard, now.generation, now.deferred);
}

function commit(scope: ShardScope, generation: string, sequence: number): void {
  scope.committed[scope.shard] = { generation, deferred: sequence };
  tellCommitted(scope);
}

/** The loader's surroundings: what workers/loader/shard.ts binds to NATS and ClickHouse. */
function createShardIo(scope: ShardScope): ShardIo {
  const { world, process, sink, options, shard, ledger, dedup } = scope;
  const { weakness, name } = options;
  const sizer = createBlockSizer(options.limits);
  const letters = weakness.dropsLetters === true ? undefined : options.letters;
  return {
    recover: () => recover(scope),
    gather: (generation, hi) => gather(scope, sizer, generation, hi),
    ...createPlanner({ process, sink, dedup, letters }),
    insert: (place, block) => sink.insert(process, shard, place, block),
    smaller: (block) => sizer.smaller(block),
    classify: (error) => (error instanceof SinkFailure ? error.failure : 'transient'),
    readBack: (place, block) => sink.readBack(process, shard, place, block.day),

    deferred({ generation }, block) {
      world.trace?.(name, `carries ${generation} ${block.lo} to ${block.hi}`);
      scope.known = { generation, hi: block.lo - 1 };
      commit(scope, generation, block.hi);
    },
    settled({ generation }, block, mine) {
      scope.others = !mine;
      if (!mine) return;
      scope.known = { generation, hi: block.hi };
      ledger.loaded({ hi: block.hi, bytes: block.bytes, timeMs: block.lastTimeMs });
      commit(scope, generation, block.hi);
    },
    tell(event) {
      if (event.kind === 'recovered') {
        const { generation, hi } = event.state;
        world.trace?.(name, `recovers shard ${shard}: block ${event.state.block}, hi ${hi}`);
        scope.known = { generation, hi };
        ledger.begin(hi, process.wall());
        commit(scope, generation, hi);
      } else if (event.kind === 'gap') {
        world.trace?.(name, `meets a gap from ${event.from} to ${event.to}`);
      }
    },
    pause: (ms) => pauseOf(process, jittered(ms, world.random)),
    stopping: () => false,
    givingUp: () => false,
  };
}

/** Repeats the hint, and trims. */
async function round(scope: ShardScope): Promise<void> {
  const { process, log, options, shard, ledger, reader, known: before } = scope;
  tellCommitted(scope);
  try {
    const stream = await ask(scope, () => {
      const { generation, first, last, bytes } = log.stream(shard);
      return { generation, first, last, bytes };
    });
    if (before === undefined || before !== scope.known || scope.lookedAfter !== reader.breaks) return;
    if (stream.generation !== before.generation || stream.last < before.hi) return;
    const point = ledger.point({
      nowMs: process.wall(),
      streamBytes: stream.bytes,
      maxBytes: options.maxBytes,
      replayMs: options.replayMs,
    });
    if (point === undefined || point > before.hi) return;
    if (point >= stream.first) await ask(scope, () => log.purge(shard, point));
    ledger.trimmed(point);
  } catch {
    // Another time.
  }
}

function loadOne(scope: ShardScope): void {
  const { world, process, options, shard, committed } = scope;
  const io = createShardIo(scope);
  const surroundings = options.weakness.worker?.(io, world, shard) ?? io;

  const run = async (): Promise<void> => {
    for (;;) {
      const ending: Ending = await loadShard(surroundings);
      if (ending.kind === 'left') return;
      world.trace?.(options.name, `does not load shard ${shard}: ${ending.reason}`);
      scope.known = undefined;
      committed[shard] = undefined;
      options.onStopped(shard, ending.reason);
      await pauseOf(process, stoppedMs);
    }
  };
  const rounds = (): void => {
    process.after(options.roundMs, () => {
      void round(scope).finally(rounds);
    });
  };
  rounds();
  process.deliver(world.random() * 100, () => void run());
}

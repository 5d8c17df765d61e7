/**
 * A worker: the real protocol of the loader (workers/loader/loader.ts, block.ts, dedup.ts, trim.ts) for every shard, on a simulated
 * process, log and sink. What workers/loader/shard.ts binds to NATS and ClickHouse is bound to the simulated ones here.
 */

import { jittered } from '../lib/back-off.js';
import { utcDay } from '../lib/timestamp.js';
import { dayMs, hourMs } from '../lib/units.js';
import { type Block, type BlockLimits, createCutter } from '../workers/loader/block.js';
import { createBlockSizer } from '../workers/loader/block-size.js';
import type { StoredCopies } from '../workers/loader/copy-verdicts.js';
import { type Dead, partRefused, partUnframed, placeOf, withoutPlaces } from '../workers/loader/dead-letters.js';
import { createDeduplicator, suspectMs } from '../workers/loader/dedup.js';
import { type Ending, loadShard, type ShardIo } from '../workers/loader/loader.js';
import { controlBatch } from '../workers/loader/rescan.js';
import { createTrimLedger } from '../workers/loader/trim.js';
import type { LogMessage } from '../workers/reader/log-message.js';
import type { DeadLetters } from './dead-letters.js';
import type { SimulatedLog } from './log.js';
import { createProcess, type Process } from './process.js';
import { createReader } from './reader.js';
import { type SimulatedSink, SinkFailure } from './sink.js';
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

export interface WorkerNode {
  readonly process: Process;
  /** How far each shard is, as this worker knows it; undefined while it knows nothing. */
  readonly committed: readonly ({ generation: string; deferred: number } | undefined)[];
}

/** As in loader-shard.ts. */
const clockMarginMs = hourMs;
const stoppedMs = 15_000;

export function startWorker(world: World, log: SimulatedLog, sink: SimulatedSink, options: WorkerOptions): WorkerNode {
  const process = createProcess(world, options.name);
  const committed: ({ generation: string; deferred: number } | undefined)[] = [];
  for (let shard = 0; shard < log.shards; shard++) loadOne(world, process, log, sink, options, shard, committed);
  return { process, committed };
}

function loadOne(
  world: World,
  process: Process,
  log: SimulatedLog,
  sink: SimulatedSink,
  options: WorkerOptions,
  shard: number,
  committed: ({ generation: string; deferred: number } | undefined)[],
): void {
  const reader = createReader(world, process, log, shard);
  const ledger = createTrimLedger();
  const { weakness } = options;
  const stored: StoredCopies = {
    fingerprints: (batches) => sink.fingerprints(process, batches),
    eventCounts: (questions) => sink.eventCounts(process, questions),
  };
  const dedup = createDeduplicator(weakness.stored?.(stored) ?? stored);
  /** What ClickHouse is known to have. */
  let known: { generation: string; hi: number } | undefined;
  /** The last block was another worker's. */
  let others = false;
  /** The reader's breaks when the log was looked at last. */
  let lookedAfter = 0;

  /** Asks the log, over the network. */
  const ask = <T>(question: () => T): Promise<T> =>
    new Promise((resolve, reject) => {
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
  const pause = (ms: number): Promise<void> => new Promise((resolve) => void process.schedule(resolve, ms));

  /** The block at hand, and what LOAD-6 knows of it. */
  interface Cut {
    readonly block: Block;
    planned: Block;
    readonly refused: Map<string, Dead>;
    readonly deadLettered: Set<string>;
  }
  let cut: Cut | undefined;
  const deadLetter = async (of: Cut, all: readonly Dead[]): Promise<void> => {
    const dead = all.filter((one) => !of.deadLettered.has(placeOf(one)));
    if (dead.length === 0) return;
    if (weakness.dropsLetters !== true) await options.letters.put(process, dead);
    for (const one of dead) of.deadLettered.add(placeOf(one));
  };
  const planCut = async (of: Cut): Promise<Block> => {
    const framed = partUnframed(withoutPlaces(of.block, of.refused));
    of.planned = await dedup.plan(framed.block);
    await deadLetter(of, framed.dead);
    return of.planned;
  };
  const trial = async (messages: readonly Uint8Array[]): Promise<string | undefined> => {
    try {
      await sink.dryRun(process, messages);
      return undefined;
    } catch (error) {
      if (error instanceof SinkFailure && error.failure === 'content') return error.message;
      throw error;
    }
  };

  const sizer = createBlockSizer(options.limits);
  const io: ShardIo = {
    async recover() {
      const look = () =>
        ask(() => {
          const { generation, first, last, messages } = log.stream(shard);
          return { generation, first, last, firstMs: messages[0]?.timeMs };
        });
      const { breaks } = reader;
      let info = await look();
      const { firstMs, generation } = info;
      const found = await sink.lastBlock(
        process,
        shard,
        generation,
        firstMs === undefined ? undefined : utcDay(firstMs - dayMs),
      );
      if (found.hi > info.last) {
        info = await look();
        if (info.generation !== generation) throw new Error('the stream was made again during the recovery');
      }
      const nextMs = firstMs ?? process.wall();
      if (weakness.retriedSet !== 'never' && !(weakness.retriedSet === 'not after another' && others)) {
        const retried = await sink.retriedSince(process, nextMs - suspectMs - clockMarginMs, 1_000);
        dedup.begin(retried, true);
      }
      others = false;
      const { hi, hiAtMs } = found;
      const replaced =
        hiAtMs > 0 &&
        hi <= info.last &&
        hi >= info.first &&
        (await ask(() => log.stream(shard).messages.find(({ sequence }) => sequence === hi)?.timeMs).then(
          (ms) => ms !== undefined && ms !== hiAtMs,
        ));
      lookedAfter = breaks;
      return {
        generation,
        replaced,
        firstSequence: info.first,
        lastSequence: info.last,
        ...found,
        accepted: found.others.length > 0 && options.accepted(shard, generation),
        deferBytes: options.maxBytes / 8,
      };
    },

    async gather(generation, hi) {
      // A break during the recovery: what it found out is in doubt already.
      if (lookedAfter !== reader.breaks && weakness.forgetsDoubt !== true) return 'again';
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
    },

    plan(_, block) {
      cut = { block, planned: block, refused: new Map(), deadLettered: new Set() };
      return planCut(cut);
    },
    insert: (place, block) => sink.insert(process, shard, place, block),
    async isolate(_, block) {
      const parted = await partRefused(block, trial, controlBatch);
      if (cut === undefined || parted.dead.length === 0) return block;
      await deadLetter(cut, parted.dead);
      for (const one of parted.dead) cut.refused.set(placeOf(one), one);
      const { planned: before } = cut;
      const { messages, sequences, batchIndexes, ...after } = await planCut(cut);
      const duplicate = block.duplicate - before.duplicate + after.duplicate;
      const dead = block.dead - before.dead + after.dead;
      return { ...block, messages, sequences, batchIndexes, rows: after.rows, duplicate, dead };
    },
    smaller: (block) => sizer.smaller(block),
    classify: (error) => (error instanceof SinkFailure ? error.failure : 'transient'),
    readBack: (place, block) => sink.readBack(process, shard, place, block.day),

    deferred({ generation }, block) {
      world.trace?.(options.name, `carries ${generation} ${block.lo} to ${block.hi}`);
      known = { generation, hi: block.lo - 1 };
      commit(generation, block.hi);
    },
    settled({ generation }, block, mine) {
      others = !mine;
      if (!mine) return;
      known = { generation, hi: block.hi };
      ledger.loaded({ hi: block.hi, bytes: block.bytes, timeMs: block.lastTimeMs });
      commit(generation, block.hi);
    },
    tell(event) {
      if (event.kind === 'recovered') {
        const { generation, hi } = event.state;
        world.trace?.(options.name, `recovers shard ${shard}: block ${event.state.block}, hi ${hi}`);
        known = { generation, hi };
        ledger.begin(hi, process.wall());
        commit(generation, hi);
      } else if (event.kind === 'gap') {
        world.trace?.(options.name, `meets a gap from ${event.from} to ${event.to}`);
      }
    },
    pause: (ms) => pause(jittered(ms, world.random)),
    stopping: () => false,
    givingUp: () => false,
  };

  /** Not after a break until the next recovery: what comes back may have lost its end. */
  function tellCommitted(): void {
    const now = committed[shard];
    if (now === undefined || lookedAfter !== reader.breaks || !reader.connected) return;
    options.onCommitted(shard, now.generation, now.deferred);
  }

  function commit(generation: string, sequence: number): void {
    committed[shard] = { generation, deferred: sequence };
    tellCommitted();
  }

  const surroundings = weakness.worker?.(io, world, shard) ?? io;
  const run = async (): Promise<void> => {
    for (;;) {
      const ending: Ending = await loadShard(surroundings);
      if (ending.kind === 'left') return;
      world.trace?.(options.name, `does not load shard ${shard}: ${ending.reason}`);
      known = undefined;
      committed[shard] = undefined;
      options.onStopped(shard, ending.reason);
      await pause(stoppedMs);
    }
  };

  /** Repeats the hint, and trims. */
  const round = async (): Promise<void> => {
    const before = known;
    tellCommitted();
    try {
      const stream = await ask(() => {
        const { generation, first, last, bytes } = log.stream(shard);
        return { generation, first, last, bytes };
      });
      if (before === undefined || before !== known || lookedAfter !== reader.breaks) return;
      if (stream.generation !== before.generation || stream.last < before.hi) return;
      const point = ledger.point({
        nowMs: process.wall(),
        streamBytes: stream.bytes,
        maxBytes: options.maxBytes,
        replayMs: options.replayMs,
      });
      if (point === undefined || point > before.hi) return;
      if (point >= stream.first) await ask(() => log.purge(shard, point));
      ledger.trimmed(point);
    } catch {
      // Another time.
    }
  };
  const rounds = (): void => {
    process.schedule(() => {
      void round().finally(rounds);
    }, options.roundMs);
  };
  rounds();
  process.deliver(world.random() * 100, () => void run());
}

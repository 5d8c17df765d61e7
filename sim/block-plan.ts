/** What of a block is to be stored, as workers/loader/block-plan.ts decides it (LOAD-5, LOAD-6). */
import type { Block } from '../workers/loader/block.js';
import { type Dead, partRefused, partUnframed, placeOf, withoutPlaces } from '../workers/loader/dead-letters.js';
import type { Deduplicator } from '../workers/loader/dedup.js';
import type { ShardIo } from '../workers/loader/loader.js';
import { controlBatch } from '../workers/loader/rescan.js';
import type { DeadLetters } from './dead-letters.js';
import type { Process } from './process.js';
import type { SimulatedSink } from './sink.js';
import { SinkFailure } from './sink-request.js';

/** The block at hand, and what LOAD-6 knows of it. */
interface Plan {
  readonly block: Block;
  planned: Block;
  readonly refused: Map<string, Dead>;
  readonly deadLettered: Set<string>;
}

export interface PlannerOptions {
  readonly process: Process;
  readonly sink: SimulatedSink;
  readonly dedup: Deduplicator;
  /** Undefined: the mutation that drops them. */
  readonly letters: DeadLetters | undefined;
}

export function createPlanner({ process, sink, dedup, letters }: PlannerOptions): Pick<ShardIo, 'plan' | 'isolate'> {
  let current: Plan | undefined;

  async function deadLetter(of: Plan, all: readonly Dead[]): Promise<void> {
    const dead = all.filter((one) => !of.deadLettered.has(placeOf(one)));
    if (dead.length === 0) return;
    await letters?.put(process, dead);
    for (const one of dead) of.deadLettered.add(placeOf(one));
  }

  async function planned(of: Plan): Promise<Block> {
    const framed = partUnframed(withoutPlaces(of.block, of.refused));
    of.planned = await dedup.plan(framed.block);
    await deadLetter(of, framed.dead);
    return of.planned;
  }

  async function trial(messages: readonly Uint8Array[]): Promise<string | undefined> {
    try {
      await sink.dryRun(process, messages);
      return undefined;
    } catch (error) {
      if (error instanceof SinkFailure && error.failure === 'content') return error.message;
      throw error;
    }
  }

  return {
    plan(_, block) {
      current = { block, planned: block, refused: new Map(), deadLettered: new Set() };
      return planned(current);
    },
    async isolate(_, block) {
      const parted = await partRefused(block, trial, controlBatch);
      if (current === undefined || parted.dead.length === 0) return block;
      await deadLetter(current, parted.dead);
      for (const one of parted.dead) current.refused.set(placeOf(one), one);
      const { planned: before } = current;
      const { messages, sequences, batchIndexes, ...after } = await planned(current);
      const duplicate = block.duplicate - before.duplicate + after.duplicate;
      const dead = block.dead - before.dead + after.dead;
      return { ...block, messages, sequences, batchIndexes, rows: after.rows, duplicate, dead };
    },
  };
}

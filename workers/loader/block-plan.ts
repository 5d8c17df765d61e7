/**
 * What of a block is to be stored (LOAD-5, LOAD-6): without copies that ClickHouse has, and without batches that cannot be stored, which are in
 * the dead letters before the block is stored without them.
 */
import { failpoint, isLeftOut } from '../../lib/failpoint.js';
import { StatementError } from '../clickhouse/errors.js';
import type { Block } from './block.js';
import { type Dead, partRefused, partRescanned, partUnframed, placeOf, withoutPlaces } from './dead-letters.js';
import { scanDead } from './dead-scan.js';
import type { Deduplicator } from './dedup.js';
import type { Gatherer } from './gatherer.js';
import type { Place, ShardIo } from './loader.js';
import { controlBatch, currentContract } from './rescan.js';
import type { ShardContext } from './shard-options.js';

/** The newest dead letters of a shard that are read for a block that is refused: what a worker before this one has found. */
const maxRecalled = 5_000;
/** Dead letters of a block that are logged one by one. */
const maxTold = 5;

/** A block as it was gathered, and what became of it. */
interface Plan {
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

export function createPlanner(
  context: ShardContext,
  dedup: Deduplicator,
  gatherer: Pick<Gatherer, 'send'>,
): Pick<ShardIo, 'plan' | 'isolate'> {
  const { shard, store, life, metrics, logger } = context;
  /** Of the block at hand. */
  let current: Plan | undefined;

  async function trial(messages: readonly Uint8Array[], suspect: number | undefined): Promise<string | undefined> {
    if (life.givingUp) throw new Error('stopping');
    return gatherer.send(() => store.trial(messages, suspect));
  }

  async function planned(place: Place, of: Plan): Promise<Block> {
    of.applied = of.refused.size;
    const framed = partUnframed(withoutPlaces(of.block, of.refused));
    const rescanned = partRescanned(
      isLeftOut('retry-check') ? framed.block : await dedup.plan(framed.block),
      currentContract,
    );
    await deadLetter(context, place, of, [...framed.dead, ...rescanned.dead]);
    failpoint('loader.after-plan');
    of.planned = rescanned.block;
    return of.planned;
  }

  /** The block as it is to be sent now, without what was found since it was planned. */
  async function replanned(place: Place, block: Block, of: Plan): Promise<Block> {
    const { planned: before } = of;
    const { messages, sequences, batchIndexes, ...after } = await planned(place, of);
    const duplicate = block.duplicate - before.duplicate + after.duplicate;
    const dead = block.dead - before.dead + after.dead;
    return { ...block, messages, sequences, batchIndexes, rows: after.rows, duplicate, dead };
  }

  return {
    plan(place, block) {
      current = { block, planned: block, refused: new Map(), deadLettered: new Set(), applied: 0, recalled: false };
      return planned(place, current);
    },
    async isolate(place, block, error) {
      if (current === undefined) return block;
      const of = current;
      const doubtful = error instanceof StatementError && error.kind === 'unclear';
      const suspect = doubtful ? error.clickhouseCode : undefined;
      await recall(context, place, of);
      if (of.refused.size === of.applied) {
        metrics.insertFailed(shard, doubtful ? 'unclear' : 'content');
        logger.warn(
          { block: place.block, batches: block.batches, error: String(error) },
          'ClickHouse refuses a block: looking for batches that are the cause',
        );
        await partRefused(block, (messages) => trial(messages, suspect), controlBatch, {
          doubtful,
          async found(one) {
            await deadLetter(context, place, of, [one]);
            of.refused.set(placeOf(one), one);
          },
        });
      }
      return of.refused.size === of.applied ? block : replanned(place, block, of);
    },
  };
}

/** LOAD-6. Resolves when the dead letters have them; until then no block without them may be stored. */
async function deadLetter(context: ShardContext, place: Place, of: Plan, all: readonly Dead[]): Promise<void> {
  const { shard, stream, metrics, logger } = context;
  const dead = all.filter((one) => !of.deadLettered.has(placeOf(one)));
  if (dead.length === 0) return;
  failpoint('loader.before-dead-letter');
  try {
    await context.deadLetters.put(dead.map((one) => ({ ...one, shard, stream, generation: place.generation })));
  } catch (error) {
    metrics.lettersBlocked(shard, true);
    logger.error({ error: String(error), letters: dead.length }, 'the dead letters cannot be written: the shard waits');
    throw error;
  }
  metrics.lettersBlocked(shard, false);
  for (const one of dead) of.deadLettered.add(placeOf(one));
  failpoint('loader.after-dead-letter');
  for (const { kind, events } of dead) metrics.dead(shard, kind, events);
  for (const { kind, reason, sequence, index, tenant, batchId, events } of dead.slice(0, maxTold)) {
    logger.error(
      { kind, sequence, index, tenant, batchId, events, reason },
      'a batch cannot be stored: it is in the dead letters',
    );
  }
  if (dead.length > maxTold) logger.error({ more: dead.length - maxTold }, 'and more of them');
}

/**
 * LOAD-6. What a worker that died in the search has found already: refused is what the dead letters have. So a search gets on however
 * often workers die in it.
 */
async function recall({ nc, jsm, shard, logger }: ShardContext, place: Place, of: Plan): Promise<void> {
  if (of.recalled) return;
  const { lo, hi } = of.block;
  await scanDead({
    nc,
    jsm,
    shard,
    newest: maxRecalled,
    max: maxRecalled,
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

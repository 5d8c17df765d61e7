/** The checks of one block (AUDIT-3, AUDIT-4, AUDIT-6, AUDIT-7), and of its place after the one before (AUDIT-2). */
import type { ShardScope } from './audit-options.js';
import { type LeftOut, someOf } from './compared-copies.js';
import type { ShardFault } from './faults.js';
import type { LedgerStore, StoredBlock } from './ledger-store.js';
import type { StreamFront } from './stream-front.js';

const count = (n: number): string => n.toLocaleString('en');

/** What the log has of one block. */
export interface BlockMessages {
  /** Events in its messages. */
  events: number;
  /** Messages that were seen, and those of its sequences that are other messages (AUDIT-8). */
  seen: number;
  others: number;
}

/** A block, the log's part of it, and what can be said of it. */
interface FoundBlock {
  readonly block: StoredBlock;
  readonly messages: BlockMessages;
  /** All of its messages were in the log, and its rows were there after that. */
  readonly whole: boolean;
  readonly rows: number;
}

/** What a block says that its messages hold. */
const declared = ({ accepted, duplicate, dead }: StoredBlock): number => accepted + duplicate + dead;

/** What is accounted for of its messages' events. */
const accounted = ({ block, rows }: FoundBlock): number => rows + block.duplicate + block.dead;

const placeOf = ({ block, lo, hi }: StoredBlock) => ({ block, lo, hi });

/**
 * AUDIT-2 and AUDIT-5. What is wrong with the first block that is there; undefined: nothing.
 * @param start below this sequence messages are gone from the log
 */
export function firstBlockFault({ block, lo }: StoredBlock, start: number, retention: boolean): ShardFault | undefined {
  if (block === 1 && lo === 1) return undefined;
  if (block > 1 && retention && start >= lo) return undefined;
  const gone = { lo: 1, hi: lo - 1 };
  if (block === 1 && start >= lo) {
    return { ...gone, block, message: `messages 1 to ${lo - 1} left the log before a block had them` };
  }
  const hint = retention ? '' : '; if the workers drop old days, give this command their --retention-days';
  return { ...gone, message: `blocks 1 to ${block - 1} are missing${hint}` };
}

/** AUDIT-2 and AUDIT-5. What is wrong between two blocks; undefined: nothing. */
export function gapFault(previous: StoredBlock, { block, lo, hi, day, rows }: StoredBlock): ShardFault | undefined {
  if (block === previous.block) {
    const message = `the block is there twice: on ${previous.day} and on ${day}`;
    return { block, lo, hi, difference: -rows, message };
  }
  const next = previous.hi + 1;
  if (block !== previous.block + 1) {
    return { lo: next, hi: lo - 1, message: `blocks ${previous.block + 1} to ${block - 1} are missing` };
  }
  if (lo === next) return undefined;
  const message =
    lo > next
      ? `messages ${next} to ${lo - 1} left the log before a block had them`
      : `it begins at message ${lo}, which block ${previous.block} has too`;
  return { block, lo: Math.min(lo, next), hi: Math.max(lo - 1, previous.hi), message };
}

/** AUDIT-5. Messages of a block that are gone, though later ones are in the log. */
async function checkRemoved({ front, report, faults, shard }: ShardScope, found: FoundBlock): Promise<void> {
  const { block, messages, whole } = found;
  if (whole || front.start > block.hi) return;
  const from = Math.max(block.lo, await front.ask());
  const missing = Math.min(block.hi, front.last) - from + 1 - messages.seen - messages.others;
  if (missing <= 0) return;
  const message = `${count(missing)} of its messages were removed from the middle of the log`;
  // When those that are left account for all of it, the others never came into the block.
  if (messages.events >= declared(block))
    report({ ...placeOf(block), message: `${message}, and it was stored without them` });
  else faults.note(`shard ${shard}, block ${block.block}: ${message} after it was stored`);
}

/**
 * A block whose rows are too few, looked at again. Perhaps it was erased while this was reading: erasure empties the log first, then the
 * rows go.
 */
async function seenAgain(front: StreamFront, store: LedgerStore, found: FoundBlock): Promise<FoundBlock> {
  const { block, messages, whole, rows } = found;
  const agrees = (!whole || messages.events === accounted(found)) && rows >= block.accepted;
  if (agrees || (await front.ask()) <= block.hi) return found;
  return { ...found, whole: false, rows: (await store.block(block))?.rows ?? 0 };
}

/** AUDIT-3 and AUDIT-4. */
function checkCounts({ front, report, sums }: ShardScope, found: FoundBlock): void {
  const { block, messages, whole, rows } = found;
  const { accepted, duplicate, dead } = block;
  const place = placeOf(block);
  if (block.torn) report({ ...place, message: 'the rows of the block do not agree on its range or its counts' });
  if (whole && messages.events !== declared(block)) {
    report({
      ...place,
      difference: messages.events - accounted(found),
      message:
        `its messages hold ${count(messages.events)} events, but the block says ${count(accepted)} stored, ` +
        `${count(duplicate)} duplicate, ${count(dead)} dead-lettered; it has ${count(rows)} rows`,
    });
  } else if (rows < accepted && front.start > block.hi) {
    sums.erased += accepted - rows; // AUDIT-4
  } else if (rows !== accepted) {
    const fault = rows > accepted ? 'doubled' : 'gone';
    const message = `it has ${count(rows)} rows, but ${count(accepted)} were stored: rows are ${fault}`;
    report({ ...place, difference: accepted - rows, message });
  }
}

/** AUDIT-7. What AUDIT-3 tells is not told twice, nor what AUDIT-6 does. @param letters that the dead-letter stream has of the block */
async function checkLeftOut(
  { front, report }: ShardScope,
  found: FoundBlock,
  lost: LeftOut,
  letters: number | undefined,
): Promise<void> {
  const { block, messages, whole, rows } = found;
  const told =
    Math.max(0, whole ? messages.events - accounted(found) : block.accepted - rows) +
    Math.max(0, block.dead - (letters ?? 0));
  if (lost.events <= told || (await front.ask()) > lost.lo) return;
  report({
    block: block.block,
    lo: lost.lo,
    hi: lost.hi,
    difference: lost.events - told,
    message:
      `${count(lost.events)} events were left out as duplicates and are not stored, e.g. ${someOf(lost.eventIds)} of batch ` +
      `${lost.batchId}: other events are stored under this id`,
  });
}

/** AUDIT-6; older ones an operator may have dealt with and removed. */
function checkLetters({ report, faults, shard }: ShardScope, { block, whole }: FoundBlock, letters: number): void {
  if (letters >= block.dead) return;
  const message = `it left out ${count(block.dead)} events as dead letters, of which the dead-letter stream has ${count(letters)}`;
  if (whole) report({ ...placeOf(block), difference: block.dead - letters, message });
  else faults.note(`shard ${shard}, block ${block.block}: ${message}`);
}

/** Checks a block when all of its messages that the log has were seen, and adds it to the sums. */
export async function checkBlock(
  scope: ShardScope,
  block: StoredBlock,
  messages: BlockMessages,
  leftOut: () => Promise<LeftOut>,
): Promise<void> {
  const { options, shard, generation, sums, front } = scope;
  const whole = messages.seen === block.hi - block.lo + 1;
  const first: FoundBlock = { block, messages, whole, rows: block.rows };
  await checkRemoved(scope, first);
  const found = await seenAgain(front, options.store, first);
  sums.blocks++;
  sums.accepted += found.whole ? messages.events : declared(block);
  sums.stored += found.rows;
  sums.duplicate += block.duplicate;
  sums.dead += block.dead;
  checkCounts(scope, found);
  const letters = options.dead.between(shard, generation, block.lo, block.hi);
  await checkLeftOut(scope, found, await leftOut(), letters);
  if (letters !== undefined) checkLetters(scope, found, letters);
}

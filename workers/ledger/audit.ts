/**
 * The ledger: what became of events, from what the log and ClickHouse hold.
 *
 *   audit-main.ts       `sluice audit`: this file the ledger by block; audit-tenant.ts by batch of one tenant
 *   compared-copies.ts  compares copies of batches with rows, event by event
 *   where-main.ts       `sluice where`: where.ts finds an event or a batch; copy-fates.ts: what became of each copy's events
 *   ledger-store.ts     what both ask of ClickHouse
 *   erase-main.ts       `sluice erase`: erase.ts removes a user's rows
 *   shards-main.ts      `sluice shards`: shards.ts changes their number; shard-states.ts shows them; shard-mend.ts saves what a stream
 *                       holds that may not be loaded; shards-rebuild.ts writes a lost number again
 *   batch-status.ts     answers gateways that ask what became of a batch
 *   end-command.ts      how the commands end
 *
 * The ledger: accepted = stored + duplicate + dead-lettered + in flight, block by block, from what the log and ClickHouse
 * hold and not from counters. Reads only.
 *
 *   AUDIT-1  The audit reads the end of each stream first, and asks ClickHouse afterwards. Both sides or neither then see what is
 *       loaded meanwhile, so the equation holds on a running installation.
 *   AUDIT-2  Blocks of a shard and stream generation are numbered without a gap from the first that is there, each begins with the
 *      message after the last one's end, and each is there once.
 *   AUDIT-3  A block whose messages are all in the log holds what they hold: the sum of their events is `_accepted` + `_duplicate`
 *      + `_dead`, and its rows are `_accepted`.
 *   AUDIT-4  For a block whose messages have left the log, all or some, only its rows are checked: rows = `_accepted`. Fewer rows are
 *       an erasure (erase.ts empties the log first, so only there); more are a fault.
 *   AUDIT-5  Messages above the last block are in flight. Messages that are in no block, or that left the log before a block had
 *      them, are a fault.
 *   AUDIT-6  `_dead` events are in the dead-letter stream, as long as their messages are in the log.
 *   AUDIT-7  What a block left out as duplicates is stored: where `_duplicate` is above 0, each event of the messages that are in the log has
 *      a row under its batch id, or is a dead letter. Counts cannot tell: a batch id that was used for other events has as many.
 *   AUDIT-8  The loader's own checks hold for each stream (LOAD-8): what it would not load is a fault, whatever the counts say. A message in
 *      the range of a block that the log took after the block's last one (`_hi_at`) is another message: its events are in no block.
 */
import type { JetStreamManager } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/nats-core';
import { isStreamMissing } from '../../lib/jetstream-errors.js';
import { generationOf } from '../../lib/log-streams.js';
import type { Logger } from '../../lib/logger.js';
import { streamInfo } from '../../lib/stream-info.js';
import { shardStream } from '../../lib/subjects.js';
import { contentOf } from '../loader/block.js';
import type { DeadLedger } from '../loader/dead-scan.js';
import { scanLog } from '../loader/log-scan.js';
import { isAnother } from '../reader/end.js';
import { createLeftOutCheck, someOf } from './compared-copies.js';
import type { BlockGroup, LedgerStore, StoredBlock } from './ledger-store.js';

/** Something that does not add up. */
export interface Fault {
  /** Undefined for a fault of the installation as a whole. */
  readonly shard: number | undefined;
  readonly generation: string;
  /** Undefined where there is no block. */
  readonly block: number | undefined;
  /** Log sequences at fault, first and last. */
  readonly lo: number;
  readonly hi: number;
  /** Events: above 0 too few are stored, below 0 too many; undefined when their number is no longer known. */
  readonly difference: number | undefined;
  readonly message: string;
}

/** Sums of events. */
export interface Ledger {
  accepted: number;
  stored: number;
  duplicate: number;
  dead: number;
  inFlight: number;
  /** Rows that `sluice erase` removed: accepted once, and gone. */
  erased: number;
}

export interface ShardAudit extends Ledger {
  readonly shard: number;
  readonly generation: string;
  /** The stream is there now and its shard is in use; otherwise ClickHouse alone is looked at. */
  readonly live: boolean;
  blocks: number;
  /** Messages of the log that were read, and the range that was in it. */
  messages: number;
  first: number;
  last: number;
  /** Blocks before the first that is there: dropped with their days by retention. */
  dropped: number;
}

export interface Audit {
  readonly shards: readonly ShardAudit[];
  readonly total: Ledger;
  /** Sum of the faults' differences without their signs, so that a loss and a double do not hide each other. */
  readonly difference: number;
  /** How many there are; the first {@link maxFaults} are named. */
  readonly faultCount: number;
  readonly faults: readonly Fault[];
  readonly notes: readonly string[];
}

export interface AuditOptions {
  readonly nc: NatsConnection;
  readonly jsm: JetStreamManager;
  readonly store: LedgerStore;
  /** The streams to look at: those of the installation, and any other EV_ stream that holds messages. */
  readonly shards: readonly number[];
  /** AUDIT-8. Why workers do not load this shard; undefined when they may. */
  readonly stopped: (shard: number) => Promise<string | undefined>;
  /** What is wrong with the installation as a whole: each is a fault. @default none */
  readonly problems?: readonly string[];
  readonly dead: DeadLedger;
  /** Workers drop old days (`--retention-days` is not 0): the first blocks may be gone. */
  readonly retention: boolean;
  readonly progress: (text: string) => void;
  readonly logger: Logger;
}

export const maxFaults = 100;

/** A stream as it was when the audit began (AUDIT-1). */
interface StreamEnd {
  readonly generation: string;
  readonly first: number;
  readonly last: number;
  readonly messages: number;
}

export const emptyLedger = (): Ledger => ({
  accepted: 0,
  stored: 0,
  duplicate: 0,
  dead: 0,
  inFlight: 0,
  erased: 0,
});

const count = (n: number): string => n.toLocaleString('en');

/** Audits every shard. Rejects when log or ClickHouse cannot be read. */
export async function audit(options: AuditOptions): Promise<Audit> {
  const { jsm, store } = options;
  const faults: Fault[] = [];
  let faultCount = 0;
  let difference = 0;
  const notes: string[] = [];
  const fault = (found: Fault): void => {
    faultCount++;
    difference += Math.abs(found.difference ?? 0);
    if (faults.length < maxFaults) faults.push(found);
  };

  for (const message of options.problems ?? []) {
    fault({ shard: undefined, generation: '', block: undefined, lo: 0, hi: 0, difference: undefined, message });
  }
  // AUDIT-1
  const ends = new Map<number, StreamEnd>();
  for (const shard of options.shards) {
    try {
      const info = await streamInfo(jsm, shardStream(shard));
      const { first_seq: first, last_seq: last, messages } = info.state;
      ends.set(shard, { generation: generationOf(info), first, last, messages });
    } catch (error) {
      if (!isStreamMissing(error)) throw error;
      fault({
        shard,
        generation: '',
        block: undefined,
        lo: 0,
        hi: 0,
        difference: undefined,
        message: `the stream ${shardStream(shard)} is missing: what it held and was not loaded is lost`,
      });
    }
  }
  const groups = await store.groups();
  const shards: ShardAudit[] = [];
  for (const [shard, end] of ends) {
    const group = groups.find((found) => found.shard === shard && found.generation === end.generation);
    shards.push(await auditShard(options, shard, end, group, fault, notes));
    const message = await options.stopped(shard); // AUDIT-8
    if (message === undefined) continue;
    const lo = Math.min((group?.hi ?? 0) + 1, end.last);
    fault({
      ...{ shard, generation: end.generation, block: undefined, difference: undefined },
      lo,
      hi: end.last,
      message,
    });
  }
  for (const group of groups) {
    if (ends.get(group.shard)?.generation === group.generation) continue;
    shards.push(await auditShard(options, group.shard, undefined, group, fault, notes));
  }
  const total = emptyLedger();
  for (const one of shards) for (const key of Object.keys(total) as (keyof Ledger)[]) total[key] += one[key];
  return { shards, total, difference, faultCount, faults, notes };
}

async function auditShard(
  options: AuditOptions,
  shard: number,
  end: StreamEnd | undefined,
  group: BlockGroup | undefined,
  fault: (fault: Fault) => void,
  notes: string[],
): Promise<ShardAudit> {
  const { nc, jsm, store, dead, logger } = options;
  const generation = end?.generation ?? group?.generation ?? '';
  const stream = shardStream(shard);
  const hi = group?.hi ?? 0;
  /** What is loaded meanwhile was in the log before: up to there both sides can be compared. */
  const bound = end === undefined ? 0 : Math.max(end.last, hi);
  const sums: ShardAudit = {
    ...emptyLedger(),
    shard,
    generation,
    live: end !== undefined,
    blocks: 0,
    messages: 0,
    first: end?.first ?? 0,
    last: end?.last ?? 0,
    dropped: 0,
  };
  const at = { shard, generation };
  /** Below this sequence messages are gone, as the stream said when it was last asked. */
  let start = end?.first ?? Number.POSITIVE_INFINITY;
  /** The last message that the stream had then: below the last block's when it went backwards. */
  let last = end?.last ?? 0;
  const ask = async (): Promise<number> => {
    if (end === undefined) return start;
    const { state } = await streamInfo(jsm, stream);
    start = Math.max(start, state.first_seq);
    last = state.last_seq;
    return start;
  };

  const blocks = group === undefined ? undefined : store.blocks(group);
  let current: StoredBlock | undefined;
  let previous: StoredBlock | undefined;
  /** Of the current block: events in its messages, how many messages were seen, and how many that are others (AUDIT-8). */
  let events = 0;
  let seen = 0;
  /** AUDIT-7: copies of the current block that are to be compared, and events of it that were left out and are nowhere. */
  const left = createLeftOutCheck(options, { ...at, stream });
  let others = 0;

  const finish = async (block: StoredBlock): Promise<void> => {
    sums.blocks++;
    const place = { ...at, block: block.block, lo: block.lo, hi: block.hi };
    let { rows } = block;
    let accepted = block.accepted + block.duplicate + block.dead;
    let whole = seen === block.hi - block.lo + 1;
    if (!whole && end !== undefined && start <= block.hi) {
      const from = Math.max(block.lo, await ask());
      const missing = Math.min(block.hi, last) - from + 1 - seen - others;
      if (missing > 0) {
        const message = `${count(missing)} of its messages were removed from the middle of the log`;
        // When those that are left account for all of it, the others never came into the block (AUDIT-5).
        if (events >= accepted)
          fault({ ...place, difference: undefined, message: `${message}, and it was stored without them` });
        else if (notes.length < maxFaults)
          notes.push(`shard ${shard}, block ${block.block}: ${message} after it was stored`);
      }
    }
    const stored = (): number => rows + block.duplicate + block.dead;
    if ((whole && events !== stored()) || rows < block.accepted) {
      // Perhaps it was erased while this was reading: erasure empties the log first, then the rows go.
      if ((await ask()) > block.hi) {
        rows = (await store.block(block))?.rows ?? 0;
        whole = false;
      }
    }
    if (whole) accepted = events;
    sums.accepted += accepted;
    sums.stored += rows;
    sums.duplicate += block.duplicate;
    sums.dead += block.dead;
    if (block.torn) {
      fault({
        ...place,
        difference: undefined,
        message: 'the rows of the block do not agree on its range or its counts',
      });
    }
    if (whole && events !== block.accepted + block.duplicate + block.dead) {
      fault({
        ...place,
        difference: events - stored(),
        message:
          `its messages hold ${count(events)} events, but the block says ${count(block.accepted)} stored, ` +
          `${count(block.duplicate)} duplicate, ${count(block.dead)} dead-lettered; it has ${count(rows)} rows`,
      });
    } else if (rows > block.accepted) {
      fault({
        ...place,
        difference: block.accepted - rows,
        message: `it has ${count(rows)} rows, but ${count(block.accepted)} were stored: rows are doubled`,
      });
    } else if (rows < block.accepted && start > block.hi) {
      sums.erased += block.accepted - rows; // AUDIT-4
    } else if (rows < block.accepted) {
      fault({
        ...place,
        difference: block.accepted - rows,
        message: `it has ${count(rows)} rows, but ${count(block.accepted)} were stored: rows are gone`,
      });
    }
    const letters = dead.between(shard, generation, block.lo, block.hi);
    // AUDIT-7. What AUDIT-3 tells is not told twice, nor what AUDIT-6 does.
    const told =
      (whole ? Math.max(0, events - stored()) : Math.max(0, block.accepted - rows)) +
      Math.max(0, block.dead - (letters ?? 0));
    const lost = await left.finish();
    if (lost.events > told && (await ask()) <= lost.lo) {
      fault({
        ...place,
        lo: lost.lo,
        hi: lost.hi,
        difference: lost.events - told,
        message:
          `${count(lost.events)} events were left out as duplicates and are not stored, e.g. ${someOf(lost.eventIds)} of batch ` +
          `${lost.batchId}: other events are stored under this id`,
      });
    }
    if (letters !== undefined && letters < block.dead) {
      const message = `it left out ${count(block.dead)} events as dead letters, of which the dead-letter stream has ${count(letters)}`;
      // AUDIT-6; older ones an operator may have dealt with and removed.
      if (whole) fault({ ...place, difference: block.dead - letters, message });
      else if (notes.length < maxFaults) notes.push(`shard ${shard}, block ${block.block}: ${message}`);
    }
  };

  /** Goes on to the next block, and checks what lies between. */
  const advance = async (): Promise<void> => {
    if (current !== undefined) {
      await finish(current);
      previous = current;
    }
    const next = await blocks?.next();
    current = next === undefined || next.done === true ? undefined : next.value;
    events = 0;
    seen = 0;
    others = 0;
    if (current === undefined) return;
    options.progress(`${stream}: block ${count(current.block)} of ${count(group?.lastBlock ?? 0)}`);
    const { block, lo, hi: blockHi } = current;
    if (previous === undefined) {
      if (block === 1 && lo === 1) return;
      sums.dropped = block - 1;
      if (block > 1 && options.retention && start >= lo) return;
      if (block === 1 && start >= lo) {
        fault({
          ...at,
          block,
          lo: 1,
          hi: lo - 1,
          difference: undefined,
          message: `messages 1 to ${lo - 1} left the log before a block had them`,
        });
        return;
      }
      fault({
        ...at,
        block: undefined,
        lo: 1,
        hi: lo - 1,
        difference: undefined,
        message:
          `blocks 1 to ${block - 1} are missing` +
          (options.retention ? '' : '; if the workers drop old days, give this command their --retention-days'),
      });
      return;
    }
    if (block === previous.block) {
      fault({
        ...at,
        block,
        lo,
        hi: blockHi,
        difference: -current.rows,
        message: `the block is there twice: on ${previous.day} and on ${current.day}`,
      });
    } else if (block !== previous.block + 1) {
      fault({
        ...at,
        block: undefined,
        lo: previous.hi + 1,
        hi: lo - 1,
        difference: undefined,
        message: `blocks ${previous.block + 1} to ${block - 1} are missing`,
      });
    } else if (lo !== previous.hi + 1) {
      fault({
        ...at,
        block,
        lo: Math.min(lo, previous.hi + 1),
        hi: Math.max(lo - 1, previous.hi),
        difference: undefined,
        message:
          lo > previous.hi + 1
            ? `messages ${previous.hi + 1} to ${lo - 1} left the log before a block had them`
            : `it begins at message ${lo}, which block ${previous.block} has too`,
      });
    }
  };

  await advance();
  if (end !== undefined && end.messages > 0) {
    /** Messages that no block has, or that are others than a block has: told once for each run of them. */
    let stray: { lo: number; hi: number; events: number; other: boolean } | undefined;
    const tellStray = (): void => {
      if (stray === undefined) return;
      const { lo, hi: to, events: held, other } = stray;
      stray = undefined;
      sums.accepted += held;
      const message = other
        ? `messages ${lo} to ${to} are not the ones that were loaded: the log lost its end and gave their sequences to these, whose ${count(held)} events are not loaded`
        : `messages ${lo} to ${to} are below the last block, and in none: ${count(held)} events`;
      fault({ ...at, block: undefined, lo, hi: to, difference: held, message });
    };
    const strays = (sequence: number, held: number, other: boolean): void => {
      if (stray?.other !== other) tellStray();
      stray ??= { lo: sequence, hi: sequence, events: 0, other };
      stray.hi = sequence;
      stray.events += held;
    };
    let next = 0;
    await scanLog({
      nc,
      jsm,
      stream,
      generation,
      from: end.first,
      to: bound,
      logger,
      async onMessage({ sequence, timeMs, data }) {
        if (sums.messages++ % 256 === 0) {
          options.progress(`${stream}: message ${count(sequence)}, up to ${count(bound)}`);
        }
        if (next === 0) start = Math.max(start, sequence);
        next = sequence + 1;
        const held = contentOf(data).rows;
        while (current !== undefined && current.hi < sequence) await advance();
        if (current === undefined || sequence < current.lo) {
          if (sequence > hi) {
            tellStray();
            sums.accepted += held;
            sums.inFlight += held;
          } else strays(sequence, held, false);
          return;
        }
        if (isAnother(timeMs, current)) {
          strays(sequence, held, true);
          others++;
          return;
        }
        tellStray();
        events += held;
        seen++;
        if (current.duplicate > 0) await left.add(sequence, data);
      },
    });
    tellStray();
  }
  while (current !== undefined) await advance();
  // AUDIT-5. As both were when the audit began: what is trimmed since then was loaded before.
  if (end !== undefined && end.first > hi + 1) {
    fault({
      ...at,
      block: undefined,
      lo: hi + 1,
      hi: end.first - 1,
      difference: undefined,
      message: `messages ${hi + 1} to ${end.first - 1} left the log before a block had them`,
    });
  }
  return sums;
}

/** The audit of one shard: the messages of the log beside the blocks of ClickHouse, both in order. */
import { shardStream } from '../../lib/subjects.js';
import { contentOf } from '../loader/block.js';
import { scanLog } from '../loader/log-scan.js';
import { isAnother } from '../reader/end.js';
import { type BlockMessages, checkBlock, firstBlockFault, gapFault } from './audit-block.js';
import { type AuditOptions, emptyLedger, type ShardAudit, type ShardScope, type StreamEnd } from './audit-options.js';
import { createLeftOutCheck } from './compared-copies.js';
import type { FaultList } from './faults.js';
import type { BlockGroup, StoredBlock } from './ledger-store.js';
import { createStreamFront } from './stream-front.js';

const count = (n: number): string => n.toLocaleString('en');

/** A shard and stream generation, in the log and in ClickHouse. */
export interface ShardSides {
  readonly shard: number;
  readonly generation: string;
  /** Undefined: the stream is gone. */
  readonly end: StreamEnd | undefined;
  /** Undefined: ClickHouse has nothing of it. */
  readonly group: BlockGroup | undefined;
}

/** The block at which the audit is. */
interface BlockWalk {
  /** Undefined behind the last one. */
  readonly current: StoredBlock | undefined;
  /** Checks all blocks that end before this message. */
  passTo(sequence: number): Promise<void>;
  /** A message of the current block. */
  add(sequence: number, data: Uint8Array, events: number): Promise<void>;
  /** A message of one of its sequences that is another (AUDIT-8). */
  addOther(): void;
  /** Checks the blocks that are left. */
  finish(): Promise<void>;
}

async function createBlockWalk(scope: ShardScope, group: BlockGroup | undefined): Promise<BlockWalk> {
  const { options, shard, generation, stream, sums, report, front } = scope;
  const blocks = group === undefined ? undefined : options.store.blocks(group);
  /** AUDIT-7: copies of the current block that are to be compared. */
  const leftOut = createLeftOutCheck(options, { shard, generation, stream });
  let current: StoredBlock | undefined;
  let messages: BlockMessages = { events: 0, seen: 0, others: 0 };

  async function advance(): Promise<void> {
    const previous = current;
    if (previous !== undefined) await checkBlock(scope, previous, messages, leftOut.finish);
    const next = await blocks?.next();
    current = next === undefined || next.done === true ? undefined : next.value;
    messages = { events: 0, seen: 0, others: 0 };
    if (current === undefined) return;
    options.progress(`${stream}: block ${count(current.block)} of ${count(group?.lastBlock ?? 0)}`);
    if (previous === undefined) sums.dropped = current.block - 1;
    const fault =
      previous === undefined ? firstBlockFault(current, front.start, options.retention) : gapFault(previous, current);
    if (fault !== undefined) report(fault);
  }

  await advance();
  return {
    get current() {
      return current;
    },
    async passTo(sequence) {
      while (current !== undefined && current.hi < sequence) await advance();
    },
    async add(sequence, data, events) {
      messages.events += events;
      messages.seen++;
      if (current !== undefined && current.duplicate > 0) await leftOut.add(sequence, data);
    },
    addOther() {
      messages.others++;
    },
    async finish() {
      while (current !== undefined) await advance();
    },
  };
}

/** Why a message is in no block, though the last block is behind it. */
type StrayKind = 'in none' | 'another';

/** Messages that no block has, or that are others than a block has: told once for each run of them. */
interface StrayMessages {
  add(kind: StrayKind, sequence: number, events: number): void;
  /** The run is over. */
  end(): void;
}

function createStrayMessages({ sums, report }: ShardScope): StrayMessages {
  let run: { readonly kind: StrayKind; readonly lo: number; hi: number; events: number } | undefined;

  function end(): void {
    if (run === undefined) return;
    const { kind, lo, hi, events } = run;
    run = undefined;
    sums.accepted += events;
    const message =
      kind === 'another'
        ? `messages ${lo} to ${hi} are not the ones that were loaded: the log lost its end and gave their sequences to these, whose ${count(events)} events are not loaded`
        : `messages ${lo} to ${hi} are below the last block, and in none: ${count(events)} events`;
    report({ lo, hi, difference: events, message });
  }

  return {
    add(kind, sequence, events) {
      if (run?.kind !== kind) end();
      run ??= { kind, lo: sequence, hi: sequence, events: 0 };
      run.hi = sequence;
      run.events += events;
    },
    end,
  };
}

/** Where a message of the log belongs. @param hi the last message of the last block */
function belongsTo(
  { sequence, timeMs }: { readonly sequence: number; readonly timeMs: number },
  current: StoredBlock | undefined,
  hi: number,
): 'block' | 'in flight' | StrayKind {
  if (current === undefined || sequence < current.lo) return sequence > hi ? 'in flight' : 'in none';
  return isAnother(timeMs, current) ? 'another' : 'block';
}

/** Reads the messages, up to where both sides can be compared, and gives each to its block (AUDIT-5). */
async function readMessages(scope: ShardScope, end: StreamEnd, hi: number, walk: BlockWalk): Promise<void> {
  const { options, generation, stream, sums, front } = scope;
  const { nc, jsm, logger } = options;
  // What is loaded meanwhile was in the log before.
  const to = Math.max(end.last, hi);
  const strays = createStrayMessages(scope);
  await scanLog({
    nc,
    jsm,
    stream,
    generation,
    from: end.first,
    to,
    logger,
    async onMessage(message) {
      const { sequence, data } = message;
      if (sums.messages === 0) front.beginsAt(sequence);
      if (sums.messages++ % 256 === 0) options.progress(`${stream}: message ${count(sequence)}, up to ${count(to)}`);
      const events = contentOf(data).rows;
      await walk.passTo(sequence);
      const place = belongsTo(message, walk.current, hi);
      if (place === 'in none' || place === 'another') {
        strays.add(place, sequence, events);
        if (place === 'another') walk.addOther();
        return;
      }
      strays.end();
      if (place === 'block') {
        await walk.add(sequence, data, events);
        return;
      }
      sums.accepted += events;
      sums.inFlight += events;
    },
  });
  strays.end();
}

/** Audits one shard and stream generation. Rejects when log or ClickHouse cannot be read. */
export async function auditShard(
  options: AuditOptions,
  { shard, generation, end, group }: ShardSides,
  faults: FaultList,
): Promise<ShardAudit> {
  const stream = shardStream(shard);
  const hi = group?.hi ?? 0;
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
  const front = createStreamFront(options.jsm, stream, end);
  const report = faults.of(shard, generation);
  const scope: ShardScope = { options, shard, generation, stream, sums, report, faults, front };
  const walk = await createBlockWalk(scope, group);
  if (end !== undefined && end.messages > 0) await readMessages(scope, end, hi, walk);
  await walk.finish();
  // AUDIT-5. As both were when the audit began: what is trimmed since then was loaded before.
  if (end !== undefined && end.first > hi + 1) {
    const message = `messages ${hi + 1} to ${end.first - 1} left the log before a block had them`;
    report({ lo: hi + 1, hi: end.first - 1, message });
  }
  return sums;
}

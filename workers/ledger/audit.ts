/**
 * The ledger: what became of events, from what the log and ClickHouse hold.
 *
 *   audit-main.ts       `sluice audit`: this file the ledger by block; audit-tenant.ts by batch of one tenant
 *   audit-options.ts    what an audit is given, its sums, and what its parts share
 *   audit-shard.ts      one shard: the messages of the log beside the blocks of ClickHouse
 *   audit-block.ts      the checks of one block, and of its place after the one before
 *   stream-front.ts     where a stream begins and ends meanwhile
 *   faults.ts           what does not add up
 *   unclaimed-rows.ts   rows that no copy has accounted for, for audit-tenant.ts
 *   compared-copies.ts  compares copies of batches with rows, event by event
 *   where-main.ts       `sluice where`: where.ts finds an event or a batch; id-in-log.ts: its copies in the log; copy-fates.ts: what
 *                       became of each copy's events
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
import { isStreamMissing } from '../../lib/jetstream-errors.js';
import { generationOf } from '../../lib/log-streams.js';
import { streamInfo } from '../../lib/stream-info.js';
import { shardStream } from '../../lib/subjects.js';
import { type AuditOptions, emptyLedger, type Ledger, type ShardAudit, type StreamEnd } from './audit-options.js';
import { auditShard } from './audit-shard.js';
import { createFaultList, type FaultList, type FaultSums } from './faults.js';

export interface Audit extends FaultSums {
  readonly shards: readonly ShardAudit[];
  readonly total: Ledger;
  readonly notes: readonly string[];
}

/** AUDIT-1. The ends of the streams that are there, by shard; one that is missing is a fault. */
async function endsOf({ jsm, shards }: AuditOptions, faults: FaultList): Promise<Map<number, StreamEnd>> {
  const ends = new Map<number, StreamEnd>();
  for (const shard of shards) {
    try {
      const info = await streamInfo(jsm, shardStream(shard));
      const { first_seq: first, last_seq: last, messages } = info.state;
      ends.set(shard, { generation: generationOf(info), first, last, messages });
    } catch (error) {
      if (!isStreamMissing(error)) throw error;
      const message = `the stream ${shardStream(shard)} is missing: what it held and was not loaded is lost`;
      faults.of(shard, '')({ lo: 0, hi: 0, message });
    }
  }
  return ends;
}

/** Audits every shard. Rejects when log or ClickHouse cannot be read. */
export async function audit(options: AuditOptions): Promise<Audit> {
  const faults = createFaultList();
  for (const problem of options.problems ?? []) faults.add(problem);
  const ends = await endsOf(options, faults);
  const groups = await options.store.groups();
  const shards: ShardAudit[] = [];
  for (const [shard, end] of ends) {
    const { generation } = end;
    const group = groups.find((found) => found.shard === shard && found.generation === generation);
    shards.push(await auditShard(options, { shard, generation, end, group }, faults));
    const message = await options.stopped(shard); // AUDIT-8
    if (message === undefined) continue;
    faults.of(shard, generation)({ lo: Math.min((group?.hi ?? 0) + 1, end.last), hi: end.last, message });
  }
  for (const group of groups) {
    const { shard, generation } = group;
    if (ends.get(shard)?.generation === generation) continue;
    shards.push(await auditShard(options, { shard, generation, end: undefined, group }, faults));
  }
  const total = emptyLedger();
  for (const one of shards) for (const key of Object.keys(total) as (keyof Ledger)[]) total[key] += one[key];
  return { shards, total, ...faults.result(), notes: faults.notes };
}

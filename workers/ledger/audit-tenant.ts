/**
 * The ledger of one tenant: every copy of a batch that the log still has, against the rows of that batch. Reads only.
 *
 *   TENANT-1  As in audit.ts, the audit reads the ends of the streams before it asks ClickHouse.
 *   TENANT-2  A copy's events have rows in the block that its message belongs to, or are dead letters, or are duplicates.
 *   TENANT-3  Duplicates are only what is stored by another copy: each event of a copy has a row under its batch id, in whatever shard, or is
 *      a dead letter. By event_id: a batch id that was used for other events has as many rows.
 *   TENANT-4  No event of a batch has two rows, unless the client itself put one event_id twice into a copy.
 */

import { isStreamMissing } from '../../lib/jetstream-errors.js';
import { generationOf } from '../../lib/log-streams.js';
import { streamInfo } from '../../lib/stream-info.js';
import { shardStream } from '../../lib/subjects.js';
import { keyOf } from '../loader/frames.js';
import { scanLog } from '../loader/log-scan.js';
import { type AuditOptions, emptyLedger, type Ledger, type StreamEnd } from './audit-options.js';
import {
  type Comparison,
  compareCopies,
  copiesIn,
  excused,
  type LoadedCopy,
  maxEvents,
  someOf,
} from './compared-copies.js';
import { createFaultList, type FaultList, type FaultSums, type ReportFault } from './faults.js';
import { type BlockGroup, type LedgerStore, maxNames, type StoredRows } from './ledger-store.js';
import { createUnclaimedRows, type UnclaimedRows } from './unclaimed-rows.js';

export interface TenantAudit extends FaultSums {
  readonly tenant: string;
  /** Of the copies that the log has. */
  readonly total: Ledger;
  readonly copies: number;
}

/** What the audit of one stream shares. */
interface StreamScope {
  readonly options: AuditOptions;
  readonly tenant: string;
  readonly shard: number;
  readonly end: Omit<StreamEnd, 'messages'>;
  /** The last message that is loaded. */
  readonly hi: number;
  /** Sums of all streams so far. */
  readonly total: Ledger;
  readonly report: ReportFault;
  readonly unclaimed: UnclaimedRows;
  /** Batches that TENANT-4 has reported. */
  readonly doubled: Set<string>;
}

/** TENANT-1. Those that are there, by shard. */
async function endsOf({ jsm, shards }: AuditOptions): Promise<Map<number, StreamScope['end']>> {
  const ends = new Map<number, StreamScope['end']>();
  for (const shard of shards) {
    try {
      const info = await streamInfo(jsm, shardStream(shard));
      ends.set(shard, { generation: generationOf(info), first: info.state.first_seq, last: info.state.last_seq });
    } catch (error) {
      if (!isStreamMissing(error)) throw error;
    }
  }
  return ends;
}

/** Rows of these copies' batches, by batch id. */
async function rowsByBatch(
  store: LedgerStore,
  tenant: string,
  copies: readonly LoadedCopy[],
): Promise<ReadonlyMap<string, readonly StoredRows[]>> {
  const names = [...new Set(copies.map(({ batchId }) => batchId))].map((batchId) => ({ tenant, batchId }));
  const found = new Map<string, StoredRows[]>();
  for (let i = 0; i < names.length; i += maxNames) {
    for (const row of await store.rowsOf(names.slice(i, i + maxNames))) {
      found.set(row.batchId, [...(found.get(row.batchId) ?? []), row]);
    }
  }
  return found;
}

/** Ends the blocks before this message: rows that no copy has claimed are a fault. */
function closeBlocks({ end, total, report, unclaimed, doubled }: StreamScope, below: number): void {
  for (const { row, rows } of unclaimed.close(below)) {
    // Part of such a block's messages is gone from the log: the rows may be theirs.
    if (row.lo < end.first) continue;
    total.stored += rows;
    if (doubled.delete(row.batchId)) continue;
    report({
      block: row.block,
      lo: row.lo,
      hi: row.hi,
      difference: -rows,
      message: `batch ${row.batchId} has ${rows} rows more in the block than its messages hold events`,
    });
  }
}

/** TENANT-2 and TENANT-3. */
function settleCopy(scope: StreamScope, copy: LoadedCopy, rows: readonly StoredRows[], compared: Comparison): void {
  const { tenant, shard, end, total, report, unclaimed } = scope;
  const { generation } = end;
  const { dead } = scope.options;
  const letter = dead.of(shard, generation, copy.sequence, copy.index);
  const aside = Math.min(letter?.events ?? 0, copy.events);
  const here = rows.filter((row) => row.generation === generation && row.shard === shard);
  const stored = unclaimed.claim(copy, here, copy.events - aside);
  const rest = copy.events - aside - stored;
  const missing = compared.missing(copy);
  const unread = copy.print === undefined ? copy.events : 0;
  const lost = Math.max(0, missing.length + unread - excused(dead, { shard, generation }, copy)); // TENANT-3
  total.stored += stored;
  total.dead += aside;
  total.duplicate += rest - Math.min(rest, lost);
  if (lost === 0) return;
  report({
    lo: copy.sequence,
    hi: copy.sequence,
    difference: lost,
    message:
      `batch ${copy.batchId} (attempt ${copy.attempt}) has ${copy.events} events, of which ${lost} are lost: ${someOf(missing)}` +
      (compared.totals.has(keyOf(tenant, copy.batchId)) ? '; the id has other rows' : ''),
  });
}

/** TENANT-4. */
function reportDoubled(
  { tenant, report, doubled }: StreamScope,
  copies: readonly LoadedCopy[],
  rows: ReadonlyMap<string, readonly StoredRows[]>,
  compared: Comparison,
): void {
  const firstCopies = new Map<string, LoadedCopy>();
  for (const copy of copies) if (!firstCopies.has(copy.batchId)) firstCopies.set(copy.batchId, copy);
  for (const [batchId, { sequence }] of firstCopies) {
    const all = compared.totals.get(keyOf(tenant, batchId));
    if (all === undefined || all.rows === all.distinct) continue;
    const twice = compared.doubled({ tenant, batchId });
    if (twice <= 0) continue;
    doubled.add(batchId);
    report({
      block: rows.get(batchId)?.at(-1)?.block,
      lo: sequence,
      hi: sequence,
      difference: -twice,
      message: `batch ${batchId} has ${all.rows} rows of ${all.distinct} events: ${twice} are stored twice`,
    });
  }
}

/** Compares these copies, which follow each other in the log, with what is stored. */
async function settle(scope: StreamScope, copies: readonly LoadedCopy[]): Promise<void> {
  const { options, tenant, shard, hi, total } = scope;
  const { jsm, store } = options;
  const loaded = copies.filter(({ sequence }) => sequence <= hi);
  const rows = await rowsByBatch(store, tenant, loaded);
  const compared = await compareCopies({ jsm, store, stream: shardStream(shard) }, loaded);
  for (const copy of copies) {
    total.accepted += copy.events;
    if (copy.sequence > hi) total.inFlight += copy.events;
    else settleCopy(scope, copy, rows.get(copy.batchId) ?? [], compared);
  }
  reportDoubled(scope, loaded, rows, compared);
  const last = copies.at(-1);
  if (last !== undefined) closeBlocks(scope, last.sequence);
}

/** Reads one stream. @returns how many copies of the tenant's batches it has */
async function auditStream(scope: StreamScope): Promise<number> {
  const { options, tenant, shard, end, hi } = scope;
  const { nc, jsm, logger } = options;
  const stream = shardStream(shard);
  let copies = 0;
  let pending: LoadedCopy[] = [];
  let events = 0;
  await scanLog({
    nc,
    jsm,
    stream,
    generation: end.generation,
    from: end.first,
    to: Math.max(end.last, hi),
    logger,
    async onMessage({ sequence, data }) {
      options.progress(`${stream}: message ${sequence.toLocaleString('en')} of ${end.last.toLocaleString('en')}`);
      for (const copy of copiesIn(sequence, data, tenant)) {
        copies++;
        events += copy.events;
        pending.push(copy);
      }
      if (pending.length < maxNames && events < maxEvents) return;
      await settle(scope, pending);
      pending = [];
      events = 0;
    },
  });
  await settle(scope, pending);
  closeBlocks(scope, Number.POSITIVE_INFINITY);
  return copies;
}

const loadedUpTo = (groups: readonly BlockGroup[], shard: number, generation: string): number =>
  groups.find((group) => group.shard === shard && group.generation === generation)?.hi ?? 0;

/** Audits one tenant. Rejects when log or ClickHouse cannot be read. */
export async function auditTenant(options: AuditOptions, tenant: string): Promise<TenantAudit> {
  const total = emptyLedger();
  const faults: FaultList = createFaultList();
  for (const problem of options.problems ?? []) faults.add(problem);
  const ends = await endsOf(options);
  const groups = await options.store.groups();
  let copies = 0;
  for (const [shard, end] of ends) {
    const report = faults.of(shard, end.generation);
    const stopped = await options.stopped(shard);
    if (stopped !== undefined) report({ lo: end.first, hi: end.last, message: stopped });
    copies += await auditStream({
      options,
      tenant,
      shard,
      end,
      hi: loadedUpTo(groups, shard, end.generation),
      total,
      report,
      unclaimed: createUnclaimedRows(),
      doubled: new Set(),
    });
  }
  return { tenant, total, copies, ...faults.result() };
}

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
import { type AuditOptions, emptyLedger, type Fault, type Ledger, maxFaults } from './audit.js';
import { compareCopies, copiesIn, excused, type LoadedCopy, maxEvents, someOf } from './compared-copies.js';
import { maxNames, type StoredRows } from './ledger-store.js';

export interface TenantAudit {
  readonly tenant: string;
  /** Of the copies that the log has. */
  readonly total: Ledger;
  readonly copies: number;
  readonly difference: number;
  readonly faultCount: number;
  readonly faults: readonly Fault[];
}

/** Audits one tenant. Rejects when log or ClickHouse cannot be read. */
export async function auditTenant(options: AuditOptions, tenant: string): Promise<TenantAudit> {
  const { nc, jsm, store, dead, logger } = options;
  const total = emptyLedger();
  const faults: Fault[] = [];
  let [copies, difference, faultCount] = [0, 0, 0];
  const fault = (found: Fault): void => {
    faultCount++;
    difference += Math.abs(found.difference ?? 0);
    if (faults.length < maxFaults) faults.push(found);
  };

  const ends: { shard: number; generation: string; first: number; last: number }[] = [];
  for (const message of options.problems ?? []) {
    fault({ shard: undefined, generation: '', block: undefined, lo: 0, hi: 0, difference: undefined, message });
  }
  for (const shard of options.shards) {
    try {
      const info = await streamInfo(jsm, shardStream(shard));
      ends.push({ shard, generation: generationOf(info), first: info.state.first_seq, last: info.state.last_seq });
    } catch (error) {
      if (!isStreamMissing(error)) throw error;
    }
  }
  const groups = await store.groups();
  for (const { shard, generation, first, last } of ends) {
    const stream = shardStream(shard);
    const stopped = await options.stopped(shard);
    if (stopped !== undefined) {
      fault({ shard, generation, block: undefined, lo: first, hi: last, difference: undefined, message: stopped });
    }
    const hi = groups.find((group) => group.shard === shard && group.generation === generation)?.hi ?? 0;
    /** Rows of a batch in a block that no copy has accounted for yet. */
    const left = new Map<string, { rows: number; row: StoredRows }>();
    /** Batches that TENANT-4 has reported. */
    const doubledBatches = new Set<string>();

    const close = (below: number): void => {
      for (const [key, { rows, row }] of left) {
        if (row.hi >= below) continue;
        left.delete(key);
        // Part of such a block's messages is gone from the log: the rows may be theirs.
        if (rows <= 0 || row.lo < first) continue;
        total.stored += rows;
        if (doubledBatches.delete(row.batchId)) continue;
        fault({
          shard,
          generation,
          block: row.block,
          lo: row.lo,
          hi: row.hi,
          difference: -rows,
          message: `batch ${row.batchId} has ${rows} rows more in the block than its messages hold events`,
        });
      }
    };

    const settle = async (batch: readonly LoadedCopy[]): Promise<void> => {
      const loaded = batch.filter(({ sequence }) => sequence <= hi);
      const ids = [...new Set(loaded.map(({ batchId }) => batchId))].map((batchId) => ({ tenant, batchId }));
      const byId = new Map<string, StoredRows[]>();
      for (let i = 0; i < ids.length; i += maxNames) {
        for (const row of await store.rowsOf(ids.slice(i, i + maxNames))) {
          byId.set(row.batchId, [...(byId.get(row.batchId) ?? []), row]);
        }
      }
      const compared = await compareCopies({ jsm, store, stream }, loaded);
      for (const copy of batch) {
        total.accepted += copy.events;
        if (copy.sequence > hi) {
          total.inFlight += copy.events;
          continue;
        }
        const letter = dead.of(shard, generation, copy.sequence, copy.index);
        const aside = Math.min(letter?.events ?? 0, copy.events);
        // TENANT-2. A block's rows of one batch may differ in their attempt: one entry each.
        let stored = 0;
        for (const row of byId.get(copy.batchId) ?? []) {
          if (row.generation !== generation || row.shard !== shard) continue;
          if (copy.sequence < row.lo || copy.sequence > row.hi || row.attempt !== copy.attempt) continue;
          const key = `${row.block} ${row.attempt} ${copy.batchId}`;
          const entry = left.get(key) ?? { rows: row.rows, row };
          left.set(key, entry);
          const taken = Math.min(entry.rows, copy.events - aside - stored);
          entry.rows -= taken;
          stored += taken;
        }
        const rest = copy.events - aside - stored;
        const missing = compared.missing(copy);
        const unread = copy.print === undefined ? copy.events : 0;
        const lost = Math.max(0, missing.length + unread - excused(dead, { shard, generation }, copy)); // TENANT-3
        total.stored += stored;
        total.dead += aside;
        total.duplicate += rest - Math.min(rest, lost);
        if (lost > 0) {
          fault({
            shard,
            generation,
            block: undefined,
            lo: copy.sequence,
            hi: copy.sequence,
            difference: lost,
            message:
              `batch ${copy.batchId} (attempt ${copy.attempt}) has ${copy.events} events, of which ${lost} are lost: ${someOf(missing)}` +
              (compared.totals.has(keyOf(tenant, copy.batchId)) ? '; the id has other rows' : ''),
          });
        }
      }
      // TENANT-4
      const told = new Set<string>();
      for (const copy of loaded) {
        const all = compared.totals.get(keyOf(tenant, copy.batchId));
        if (all === undefined || all.rows === all.distinct || told.has(copy.batchId)) continue;
        told.add(copy.batchId);
        const doubled = compared.doubled({ tenant, batchId: copy.batchId });
        if (doubled <= 0) continue;
        doubledBatches.add(copy.batchId);
        const rows = byId.get(copy.batchId) ?? [];
        fault({
          shard,
          generation,
          block: rows.at(-1)?.block,
          lo: copy.sequence,
          hi: copy.sequence,
          difference: -doubled,
          message: `batch ${copy.batchId} has ${all.rows} rows of ${all.distinct} events: ${doubled} are stored twice`,
        });
      }
      const next = batch.at(-1);
      if (next !== undefined) close(next.sequence);
    };

    let held: LoadedCopy[] = [];
    let events = 0;
    await scanLog({
      nc,
      jsm,
      stream,
      generation,
      from: first,
      to: Math.max(last, hi),
      logger,
      async onMessage({ sequence, data }) {
        options.progress(`${stream}: message ${sequence.toLocaleString('en')} of ${last.toLocaleString('en')}`);
        for (const copy of copiesIn(sequence, data, tenant)) {
          copies++;
          events += copy.events;
          held.push(copy);
        }
        if (held.length < maxNames && events < maxEvents) return;
        await settle(held);
        held = [];
        events = 0;
      },
    });
    await settle(held);
    close(Number.POSITIVE_INFINITY);
  }
  return { tenant, total, copies, difference, faultCount, faults };
}

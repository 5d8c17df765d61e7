/**
 * Copies of batches that the log has and the loader has loaded, against the events that ClickHouse has under their batch ids:
 * for audit.ts and audit-tenant.ts. Event by event only where the fingerprints differ (fingerprint.ts): where a batch id was used
 * for other events, or something is missing.
 */
import type { JetStreamManager } from '@nats-io/jetstream';
import { contentOf } from '../loader/block.js';
import type { DeadLedger } from '../loader/dead-scan.js';
import { type Fingerprint, fingerprintOf, isSameFingerprint } from '../loader/fingerprint.js';
import { eventIdsIn, keyOf } from '../loader/frames.js';
import { framesOf, type StoredFrame } from '../loader/stored-frames.js';
import { type BatchName, type BatchTotal, type LedgerStore, maxNames } from './ledger-store.js';

/** A copy of a batch in the log. */
export interface LoadedCopy extends StoredFrame {
  readonly sequence: number;
  /** Undefined when its fields cannot be told apart: then it is a dead letter, or not loaded. */
  readonly print: Fingerprint | undefined;
}

/** Events of the copies that are compared together: their ids are held. */
export const maxEvents = 200_000;

/** The copies in a message. @param tenant only of this one */
export function copiesIn(sequence: number, data: Uint8Array, tenant?: string): LoadedCopy[] {
  return framesOf(data)
    .filter((frame) => tenant === undefined || frame.tenant === tenant)
    .map((frame) => ({ ...frame, sequence, print: fingerprintOf(data, { body: frame.from, to: frame.to }) }));
}

/** The event ids of copies: those of one fingerprint have the same. */
interface Content {
  readonly print: Fingerprint;
  readonly eventIds: readonly string[];
}

/** A batch whose copies and rows are not plainly the same events. */
interface OpenBatch {
  readonly contents: readonly Content[];
  /** How often each of these ids is stored under the batch id. */
  readonly stored: ReadonlyMap<string, number>;
}

export interface Comparison {
  /** What is stored, by {@link keyOf}; batches without a row are left out. */
  readonly totals: ReadonlyMap<string, BatchTotal>;
  /** Events of the copy that are not stored under its batch id, each as often as it is missing. */
  missing(copy: LoadedCopy): readonly string[];
  /** Rows of the batch beyond what any one copy of it holds, of events that a copy here has. */
  doubled(name: BatchName): number;
}

const nameKey = ({ tenant, batchId }: BatchName): string => keyOf(tenant, batchId);

const countsOf = (ids: readonly string[]): Map<string, number> => {
  const counts = new Map<string, number>();
  for (const id of ids) counts.set(id, (counts.get(id) ?? 0) + 1);
  return counts;
};

/** What the copies of one stream are compared with, and where they are read again. */
interface Sources {
  readonly jsm: JetStreamManager;
  readonly store: LedgerStore;
  readonly stream: string;
}

/** Compares copies of one stream. At most about {@link maxEvents} events at a time. */
export async function compareCopies(sources: Sources, copies: readonly LoadedCopy[]): Promise<Comparison> {
  const totals = await totalsOf(sources.store, copies);
  const batches = await openBatches(sources, openCopies(copies, totals), totals);
  return {
    totals,
    missing: (copy) => missingOf(copy, batches.get(nameKey(copy))),
    doubled: (name) => doubledIn(batches.get(nameKey(name))),
  };
}

async function totalsOf(store: LedgerStore, copies: readonly LoadedCopy[]): Promise<Map<string, BatchTotal>> {
  const names = new Map<string, BatchName>();
  for (const { tenant, batchId } of copies) names.set(keyOf(tenant, batchId), { tenant, batchId });
  const all = [...names.values()];
  const totals = new Map<string, BatchTotal>();
  for (let i = 0; i < all.length; i += maxNames) {
    for (const total of await store.totalsOf(all.slice(i, i + maxNames))) totals.set(nameKey(total), total);
  }
  return totals;
}

/** Of batches whose copies and rows are not plainly the same events, one copy of each content. */
function openCopies(copies: readonly LoadedCopy[], totals: ReadonlyMap<string, BatchTotal>): LoadedCopy[] {
  const open = new Map<string, LoadedCopy>();
  for (const copy of copies) {
    const { print } = copy;
    if (print === undefined) continue;
    const key = nameKey(copy);
    const total = totals.get(key);
    if (total !== undefined && total.rows === total.distinct && isSameFingerprint(total.print, print)) continue;
    const content = `${key}\0${print.events} ${print.sum3} ${print.sum2}`;
    if (!open.has(content)) open.set(content, copy);
  }
  return [...open.values()];
}

async function openBatches(
  { jsm, store, stream }: Sources,
  copies: readonly LoadedCopy[],
  totals: ReadonlyMap<string, BatchTotal>,
): Promise<Map<string, OpenBatch>> {
  const contents = new Map<string, BatchName & { readonly contents: Content[] }>();
  for (const copy of copies) {
    const { tenant, batchId, print } = copy;
    const eventIds = await idsOf(jsm, stream, copy);
    // Undefined: it has left the log meanwhile.
    if (eventIds === undefined || print === undefined) continue;
    const batch = contents.get(nameKey(copy)) ?? { tenant, batchId, contents: [] };
    batch.contents.push({ print, eventIds });
    contents.set(nameKey(copy), batch);
  }
  const batches = [...contents.values()];
  const stored = await store.eventCounts(
    batches.map(({ tenant, batchId, contents: of }) => ({
      tenant,
      batchId,
      eventIds: [...new Set(of.flatMap(({ eventIds }) => eventIds))],
      rows: totals.get(keyOf(tenant, batchId))?.rows ?? 0,
    })),
  );
  return new Map(
    batches.map((batch, i) => [nameKey(batch), { contents: batch.contents, stored: stored[i] ?? new Map() }]),
  );
}

function missingOf({ print }: LoadedCopy, batch: OpenBatch | undefined): readonly string[] {
  if (batch === undefined || print === undefined) return [];
  const content = batch.contents.find((one) => isSameFingerprint(one.print, print));
  const left = new Map(batch.stored);
  return (content?.eventIds ?? []).filter((id) => {
    const times = left.get(id) ?? 0;
    left.set(id, times - 1);
    return times <= 0;
  });
}

function doubledIn(batch: OpenBatch | undefined): number {
  if (batch === undefined) return 0;
  const most = new Map<string, number>();
  for (const { eventIds } of batch.contents) {
    for (const [id, n] of countsOf(eventIds)) most.set(id, Math.max(n, most.get(id) ?? 0));
  }
  let doubled = 0;
  for (const [id, n] of most) doubled += Math.max(0, (batch.stored.get(id) ?? 0) - n);
  return doubled;
}

/** The event ids of a copy, read again. Undefined when it is not there any more. */
async function idsOf(jsm: JetStreamManager, stream: string, copy: LoadedCopy): Promise<string[] | undefined> {
  const message = await jsm.direct.getMessage(stream, { seq: copy.sequence });
  if (message === null || message.data.length < copy.to) return undefined;
  return eventIdsIn(message.data, { body: copy.from, to: copy.to });
}

/**
 * Missing events of a copy that the dead letters account for: its own, or those of another copy of the batch, of which this one was
 * left out as a duplicate.
 */
export function excused(
  dead: DeadLedger,
  place: { readonly shard: number; readonly generation: string },
  copy: LoadedCopy,
): number {
  const own = dead.of(place.shard, place.generation, copy.sequence, copy.index)?.events ?? 0;
  return Math.max(own, dead.eventsOf(copy.tenant, copy.batchId));
}

/** Some event ids, for people. */
export const someOf = (ids: readonly string[]): string =>
  ids.length <= 3 ? ids.join(', ') : `${ids.slice(0, 3).join(', ')} and ${(ids.length - 3).toLocaleString('en')} more`;

/** Events of one block that were left out as duplicates, and are stored nowhere. */
export interface LeftOut {
  readonly events: number;
  /** Some of them, of one batch. */
  readonly eventIds: readonly string[];
  readonly batchId: string;
  /** Log sequences, first and last. */
  readonly lo: number;
  readonly hi: number;
}

/** Collects the copies of one block after the other, and compares them a page at a time. */
export function createLeftOutCheck(
  options: {
    readonly jsm: JetStreamManager;
    readonly store: LedgerStore;
    readonly dead: DeadLedger;
    /** Old days are dropped: with all rows of a batch, of which a late copy may still be in the log. */
    readonly retention: boolean;
  },
  place: { readonly shard: number; readonly generation: string; readonly stream: string },
): { add(sequence: number, data: Uint8Array): Promise<void>; finish(): Promise<LeftOut> } {
  const { jsm, store, dead, retention } = options;
  const nothing: LeftOut = { events: 0, eventIds: [], batchId: '', lo: 0, hi: 0 };
  let pending: LoadedCopy[] = [];
  let events = 0;
  let found = nothing;

  async function compare(): Promise<void> {
    if (pending.length === 0) return;
    const { missing, totals } = await compareCopies({ jsm, store, stream: place.stream }, pending);
    for (const copy of pending) {
      if (retention && !totals.has(nameKey(copy))) continue;
      const eventIds = missing(copy);
      const lost = eventIds.length - excused(dead, place, copy);
      if (lost <= 0) continue;
      const first = found.events === 0 ? { eventIds, batchId: copy.batchId, lo: copy.sequence } : found;
      found = { ...found, ...first, events: found.events + lost, hi: copy.sequence };
    }
    pending = [];
    events = 0;
  }

  return {
    async add(sequence, data) {
      // It is a dead letter as a whole (LOAD-6, DLQ-1).
      if (contentOf(data).unframed) return;
      for (const copy of copiesIn(sequence, data)) {
        // Without an id nothing is a duplicate.
        if (copy.batchId === '') continue;
        pending.push(copy);
        events += copy.events;
      }
      if (pending.length >= maxNames || events >= maxEvents) await compare();
    },
    async finish() {
      await compare();
      const result = found;
      found = nothing;
      return result;
    },
  };
}

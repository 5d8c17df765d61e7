/**
 * LOAD-5: decides which copies of retried batches must not be stored. Pure, except for the look-ups, which are injected.
 *
 * A client numbers the sends of a batch, and a gateway that publishes a batch twice marks the second copy. So an identity (tenant,
 * batch_id) is in the log with attempt 1 at most once, and every other copy is marked as a copy. The worker looks up suspects only, so
 * the cost grows with retries and not with traffic:
 *
 *   DEDUP-1  A copy of another attempt than 1 makes its identity a suspect. 0 means "unknown", and counts as a retry.
 *   DEDUP-2  The first copy may come late, from a gateway that held it: so an identity stays a suspect for an hour of the log's time
 *      after a retry of it was seen. A gateway never publishes what it has held for more than ten minutes. After a recovery
 *      the set is read from ClickHouse, whichever worker wrote it.
 *   DEDUP-3  All copies of a suspect in the block count, in the order of the log, on top of what ClickHouse has in any shard.
 *   DEDUP-4  A copy is a duplicate when its fingerprint (fingerprint.ts) is that of what is there: as many events, with the same ids.
 *      Otherwise event_ids decide: stored events are left out, and all others are stored. So a client that reuses a batch id for other
 *      events loses none of them. A copy of which a gateway of another contract had refused a part is completed. A batch may name an
 *      event twice: of each id only as many are left out as are there.
 *   DEDUP-5  The set is bounded. When an entry is dropped for that, every batch is a suspect until its hour is over: slower, never
 *       wrong.
 *   DEDUP-6  Event ids are compared in groups of {@link maxCompared}, and what is moved for it is bounded by the copies: it does not grow with
 *      what is stored under a batch id (stored-events.ts).
 */
import { isLeftOut } from '../../lib/failpoint.js';
import type { Block } from './block.js';
import { type Fingerprint, fingerprintOf, isSameFingerprint } from './fingerprint.js';
import {
  batchIdIn,
  type EventSpan,
  eachFrame,
  eventIdIn,
  eventIdsIn,
  eventsIn,
  type Frame,
  framed,
  keyOf,
  partsWithout,
  tenantIn,
} from './frames.js';
import type { EventsOfBatch, Identity } from './stored-events.js';

/** What ClickHouse is asked. All reject when it cannot be reached. */
export interface StoredCopies {
  /** What it has of each of these batches, in all shards; in their order. */
  fingerprints(batches: readonly Identity[]): Promise<readonly Fingerprint[]>;
  /** How often it has each of these events in its batch, in all shards; those that it has not are left out. In their order. */
  eventCounts(questions: readonly EventsOfBatch[]): Promise<readonly ReadonlyMap<string, number>[]>;
}

/** How long the identity of a retry stays a suspect, in ms of the log's time. */
export const suspectMs = 3_600_000;
/** Identities that are remembered: about 150 bytes each. */
const maxRemembered = 50_000;
/** DEDUP-6: events that are compared by their ids at a time, some 200 bytes each. One batch may have more. */
const maxCompared = 20_000;

export interface Deduplicator {
  /**
   * DEDUP-2, after a recovery: begins again with what ClickHouse has.
   * @param batches retried batches that were stored within {@link suspectMs} before the next message
   * @param complete there are no others
   */
  begin(batches: readonly Identity[], complete: boolean): void;
  /** The block without the copies that are stored. The same object when there is none. */
  plan(block: Block): Promise<Block>;
  /** Identities in the set. */
  readonly size: number;
}

/** FNV-1a of a batch id's bytes: tells most batches apart without a string. */
function hashOf(data: Uint8Array, from: number, to: number): number {
  let hash = 0x811c9dc5;
  for (let i = from; i < to; i++) hash = Math.imul(hash ^ (data[i] as number), 0x01000193);
  return hash >>> 0;
}

/** A copy of a suspect in the block. */
interface Copy {
  /** Which of the block's messages, and which batch in it. */
  readonly message: number;
  readonly index: number;
  readonly frame: Frame;
}

interface Suspect extends Identity {
  readonly copies: Copy[];
}

/** What becomes of a copy: it is stored whole, or these events are left out. */
type Verdict =
  | { readonly kind: 'whole' }
  | { readonly kind: 'none'; readonly events: number }
  | { readonly kind: 'some'; readonly events: readonly EventSpan[]; readonly keep: readonly boolean[] };

const whole: Verdict = { kind: 'whole' };

/**
 * DEDUP-4, without a look at single events. Undefined: that is not enough.
 * @param there what ClickHouse has of the batch
 */
function judgeByFingerprint(block: Block, copies: readonly Copy[], there: Fingerprint): Verdict[] | undefined {
  // What most suspects are when clients do not number their sends: the only copy.
  if (there.events === 0 && copies.length === 1) return [whole];
  const verdicts: Verdict[] = [];
  let known = there;
  for (const { message, frame } of copies) {
    const print = fingerprintOf(block.messages[message] as Uint8Array, frame);
    // Its fields cannot be told apart: LOAD-6 is for that.
    if (print === undefined || print.events === 0) verdicts.push(whole);
    else if (known.events === 0) {
      known = print;
      verdicts.push(whole);
    } else if (isSame(known, print)) verdicts.push({ kind: 'none', events: print.events });
    else return undefined;
  }
  return verdicts;
}

/** A control run compares how many events there are, and not their ids. */
const isSame = (known: Fingerprint, print: Fingerprint): boolean =>
  isLeftOut('event-ids') ? print.events <= known.events : isSameFingerprint(known, print);

/**
 * DEDUP-4, event by event.
 * @param stored how often ClickHouse has the events of these copies
 */
function judgeByIds(block: Block, copies: readonly Copy[], stored: ReadonlyMap<string, number>): Verdict[] {
  /** What is there, by event_id; grows with what is kept. */
  const there = new Map(stored);
  return copies.map(({ message, frame }): Verdict => {
    const data = block.messages[message] as Uint8Array;
    const events = eventsIn(data, frame);
    if (events === undefined || events.length === 0) return whole;
    const ids = events.map((event) => eventIdIn(data, event));
    const left = new Map<string, number>();
    const keep = ids.map((id) => {
      const times = left.get(id) ?? there.get(id) ?? 0;
      left.set(id, times - 1);
      return times <= 0;
    });
    ids.forEach((id, i) => {
      if (keep[i] === true) there.set(id, (there.get(id) ?? 0) + 1);
    });
    if (keep.every(Boolean)) return whole;
    return keep.some(Boolean) ? { kind: 'some', events, keep } : { kind: 'none', events: events.length };
  });
}

/** The ids of the events of these copies, each once. */
function idsOf(block: Block, copies: readonly Copy[]): string[] {
  const ids = new Set<string>();
  for (const { message, frame } of copies) {
    for (const id of eventIdsIn(block.messages[message] as Uint8Array, frame) ?? []) ids.add(id);
  }
  return [...ids];
}

export function createDeduplicator(stored: StoredCopies, max = maxRemembered): Deduplicator {
  /** Identity → the log's time until which it is a suspect, oldest first. */
  let until = new Map<string, number>();
  /** Hashes of their batch ids, with how many have each. */
  let hashes = new Map<number, number>();
  /** DEDUP-5: every batch is a suspect up to this time. */
  let allUntil = Number.NEGATIVE_INFINITY;
  /** What a recovery found. When they were written is not known, so their hour begins with the next message. */
  let found: { readonly batches: readonly Identity[]; readonly complete: boolean } | undefined;

  const hashOfKey = (key: string): number => {
    const bytes = Buffer.from(key.slice(key.indexOf('\0') + 1));
    return hashOf(bytes, 0, bytes.length);
  };

  function forget(key: string): void {
    until.delete(key);
    const hash = hashOfKey(key);
    const left = (hashes.get(hash) ?? 1) - 1;
    if (left === 0) hashes.delete(hash);
    else hashes.set(hash, left);
  }

  function remember(key: string, untilMs: number): void {
    if (until.has(key)) {
      const before = until.get(key) as number;
      until.delete(key);
      until.set(key, Math.max(before, untilMs));
      return;
    }
    const hash = hashOfKey(key);
    until.set(key, untilMs);
    hashes.set(hash, (hashes.get(hash) ?? 0) + 1);
    if (until.size <= max) return;
    const [oldest, oldestUntil] = until.entries().next().value as [string, number];
    forget(oldest);
    allUntil = Math.max(allUntil, oldestUntil);
  }

  function expire(nowMs: number): void {
    for (const [key, untilMs] of until) {
      if (untilMs >= nowMs) return;
      forget(key);
    }
  }

  /** DEDUP-1: identities of the block's retries, by hash of the batch id. */
  function retriesIn(block: Block): { keys: Set<string>; hashes: Set<number> } {
    const retries = { keys: new Set<string>(), hashes: new Set<number>() };
    if (!block.retried) return retries;
    for (const data of block.messages) {
      eachFrame(data, (frame) => {
        // Without an id there is no identity: a gateway always gives one.
        if (frame.attempt === 1 || frame.idFrom === frame.idTo) return;
        retries.keys.add(keyOf(tenantIn(data, frame), batchIdIn(data, frame)));
        retries.hashes.add(hashOf(data, frame.idFrom, frame.idTo));
      });
    }
    return retries;
  }

  function suspectsIn(block: Block, all: boolean, retries: ReturnType<typeof retriesIn>): Map<string, Suspect> {
    const suspects = new Map<string, Suspect>();
    block.messages.forEach((data, message) => {
      eachFrame(data, (frame, index) => {
        if (frame.idFrom === frame.idTo) return;
        if (!all) {
          const hash = hashOf(data, frame.idFrom, frame.idTo);
          if (!retries.hashes.has(hash) && !hashes.has(hash)) return;
        }
        const tenant = tenantIn(data, frame);
        const batchId = batchIdIn(data, frame);
        const key = keyOf(tenant, batchId);
        if (!all && !retries.keys.has(key) && !until.has(key)) return;
        let suspect = suspects.get(key);
        if (suspect === undefined) {
          suspect = { tenant, batchId, copies: [] };
          suspects.set(key, suspect);
        }
        suspect.copies.push({ message, index, frame: { ...frame } });
      });
    });
    return suspects;
  }

  /** DEDUP-3. */
  async function verdicts(block: Block, suspects: readonly Suspect[]): Promise<[Copy, Verdict][]> {
    const prints = await stored.fingerprints(suspects);
    const judged: [Copy, Verdict][] = [];
    const settle = ({ copies }: Suspect, of: readonly Verdict[]): void => {
      copies.forEach((copy, i) => void judged.push([copy, of[i] as Verdict]));
    };
    /** DEDUP-6: those that must be compared event by event. */
    let group: Suspect[] = [];
    let questions: EventsOfBatch[] = [];
    let events = 0;
    const compare = async (): Promise<void> => {
      const counts = await stored.eventCounts(questions);
      group.forEach((suspect, i) => {
        settle(suspect, judgeByIds(block, suspect.copies, counts[i] ?? new Map()));
      });
      group = [];
      questions = [];
      events = 0;
    };
    for (const [i, suspect] of suspects.entries()) {
      const { tenant, batchId, copies } = suspect;
      const there = prints[i] as Fingerprint;
      const sure = judgeByFingerprint(block, copies, there);
      if (sure !== undefined) settle(suspect, sure);
      // Nothing of it is there: its copies in the block are all that there is to compare.
      else if (there.events === 0) settle(suspect, judgeByIds(block, copies, new Map()));
      else {
        const eventIds = idsOf(block, copies);
        group.push(suspect);
        questions.push({ tenant, batchId, eventIds, rows: there.events });
        events += eventIds.length;
        if (events >= maxCompared) await compare();
      }
    }
    if (group.length > 0) await compare();
    return judged;
  }

  return {
    begin(batches, complete) {
      until = new Map();
      hashes = new Map();
      allUntil = Number.NEGATIVE_INFINITY;
      found = { batches, complete };
    },
    async plan(block) {
      if (found !== undefined) {
        const untilMs = block.firstTimeMs + suspectMs;
        if (!found.complete) allUntil = untilMs;
        for (const { tenant, batchId } of found.batches) remember(keyOf(tenant, batchId), untilMs);
        found = undefined;
      }
      expire(block.firstTimeMs);
      const all = block.firstTimeMs <= allUntil;
      if (!block.retried && until.size === 0 && !all) return block;
      const retries = retriesIn(block);
      const suspects = [...suspectsIn(block, all, retries).values()];
      const judged = suspects.length === 0 ? [] : await verdicts(block, suspects);
      for (const key of retries.keys) remember(key, block.lastTimeMs + suspectMs);
      return without(
        block,
        judged.filter(([, verdict]) => verdict.kind !== 'whole'),
      );
    },
    get size() {
      return until.size;
    },
  };
}

/** The block without those copies: windows on its messages, and new buffers for the batches that lose a part. */
function without(block: Block, left: readonly (readonly [Copy, Verdict])[]): Block {
  if (left.length === 0) return block;
  const byMessage = new Map<number, Map<number, readonly [Copy, Verdict]>>();
  for (const one of left) {
    const { message, index } = one[0];
    const inMessage = byMessage.get(message) ?? new Map<number, readonly [Copy, Verdict]>();
    byMessage.set(message, inMessage.set(index, one));
  }
  const messages: Uint8Array[] = [];
  const sequences: number[] = [];
  const batchIndexes: number[] = [];
  let { rows, duplicate } = block;
  block.messages.forEach((data, message) => {
    const add = (bytes: Uint8Array, index: number): void => {
      if (bytes.length === 0) return;
      messages.push(bytes);
      sequences.push(block.sequences[message] as number);
      batchIndexes.push((block.batchIndexes[message] as number) + index);
    };
    const cut = byMessage.get(message);
    if (cut === undefined) {
      add(data, 0);
      return;
    }
    let from = 0;
    let first = 0;
    for (const [index, [{ frame }, verdict]] of [...cut].sort(([a], [b]) => a - b)) {
      if (verdict.kind === 'whole') continue;
      add(data.subarray(from, frame.from), first);
      let stays = 0;
      if (verdict.kind === 'some') {
        const { events, keep } = verdict;
        stays = keep.filter(Boolean).length;
        add(framed(partsWithout(data, frame, events, (i) => keep[i] !== true)), index);
        duplicate += events.length - stays;
      } else duplicate += verdict.events;
      rows -= frame.events - stays;
      from = frame.to;
      first = index + 1;
    }
    add(data.subarray(from), first);
  });
  return { ...block, messages, sequences, batchIndexes, rows, duplicate };
}

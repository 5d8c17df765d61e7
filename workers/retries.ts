/**
 * L5: which copies of batches that were sent again are not to be stored. Pure but for the look-ups, which are injected.
 *
 * A client numbers the sends of a batch, and a gateway that publishes a batch twice marks the second copy. So an identity
 * (tenant, batch_id) is in the log with attempt 1 at most once, and every other copy says of itself that it is one. Only
 * suspects are looked up, so the cost grows with retries and not with traffic:
 *
 *   R1 A copy of another attempt than 1 makes its identity a suspect. 0 means that nobody knows, and counts as a retry.
 *   R2 The first copy may come late, from a gateway that held it: so an identity stays a suspect for an hour of the log's time
 *      after a retry of it was seen. A gateway never publishes what it has held for more than ten minutes. After a recovery
 *      the set is read from the warehouse, whoever wrote what is in there.
 *   R3 All copies of a suspect in the block count, in the order of the log, on top of what the warehouse has in any shard.
 *   R4 When as many events are there as the copy has, it is a duplicate. When fewer are (another gateway, of another contract,
 *      had refused some), its events are told apart by event_id, and the missing ones are stored.
 *   R5 The set is bounded. What is dropped for that makes every batch a suspect until its hour is over: slower, never wrong.
 */
import type { Block } from './block.js';
import {
  batchIdIn,
  type EventSpan,
  eachFrame,
  eventIdIn,
  eventsIn,
  type Frame,
  framed,
  keyOf,
  partsWithout,
  tenantIn,
} from './frames.js';

export interface Identity {
  readonly tenant: string;
  readonly batchId: string;
}

/** What the warehouse is asked. All reject when it cannot be reached. */
export interface StoredCopies {
  /** How many events it has of each of these batches, in all shards; in their order. */
  counts(batches: readonly Identity[]): Promise<readonly number[]>;
  /** Their event_ids, each as often as it is there. */
  eventIds(batches: readonly Identity[]): Promise<readonly (readonly string[])[]>;
}

/** How long the identity of a retry stays a suspect, in ms of the log's time. */
export const suspectMs = 3_600_000;
/** Identities that are remembered: about 150 bytes each. */
const mostRemembered = 50_000;

export interface RetryGuard {
  /**
   * R2, after a recovery: begins anew with what the warehouse tells.
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
  /** Undefined when its fields cannot be told apart: L6 is for that. */
  readonly events: EventSpan[] | undefined;
}

interface Suspect extends Identity {
  readonly copies: Copy[];
}

/** What becomes of a copy: events that are left out, all of them, or none. */
type Verdict =
  | { readonly kind: 'whole' }
  | { readonly kind: 'none' }
  | { readonly kind: 'some'; readonly keep: boolean[] };

export function retryGuard(stored: StoredCopies, most = mostRemembered): RetryGuard {
  /** Identity → the log's time until which it is a suspect, oldest first. */
  let until = new Map<string, number>();
  /** Hashes of their batch ids, with how many have each. */
  let hashes = new Map<number, number>();
  /** R5: every batch is a suspect up to this time. */
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
    if (until.size <= most) return;
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

  /** R1: identities of the block's retries, by hash of the batch id. */
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
        suspect.copies.push({ message, index, frame: { ...frame }, events: eventsIn(data, frame) });
      });
    });
    return suspects;
  }

  /** R3, R4. */
  function judge(block: Block, suspect: Suspect, count: number, ids: readonly string[] | undefined): Verdict[] {
    let there = count;
    /** What is there, by event_id, once it has to be known. */
    let byId: Map<string, number> | undefined;
    const kept: [Uint8Array, EventSpan][] = [];
    const countIds = (): Map<string, number> => {
      const map = new Map<string, number>();
      for (const id of ids ?? []) map.set(id, (map.get(id) ?? 0) + 1);
      for (const [data, event] of kept) {
        const id = eventIdIn(data, event);
        map.set(id, (map.get(id) ?? 0) + 1);
      }
      return map;
    };
    return suspect.copies.map(({ message, events }): Verdict => {
      const data = block.messages[message] as Uint8Array;
      if (events === undefined) return { kind: 'whole' };
      if (events.length <= there) return events.length === 0 ? { kind: 'whole' } : { kind: 'none' };
      if (there === 0) {
        there = events.length;
        for (const event of events) kept.push([data, event]);
        return { kind: 'whole' };
      }
      byId ??= countIds();
      // A batch may name an event twice: of each id only as many are left out as are there.
      const missing = new Map(byId);
      const keep = events.map((event) => {
        const id = eventIdIn(data, event);
        const times = missing.get(id) ?? 0;
        missing.set(id, times - 1);
        return times <= 0;
      });
      events.forEach((event, i) => {
        if (!keep[i]) return;
        const id = eventIdIn(data, event);
        byId?.set(id, (byId.get(id) ?? 0) + 1);
        there++;
      });
      if (keep.every((kept) => !kept)) return { kind: 'none' };
      return keep.every(Boolean) ? { kind: 'whole' } : { kind: 'some', keep };
    });
  }

  async function verdicts(block: Block, suspects: readonly Suspect[]): Promise<[Copy, Verdict][]> {
    const counts = await stored.counts(suspects);
    const partly = suspects.filter((suspect, i) => {
      const count = counts[i] ?? 0;
      return count > 0 && suspect.copies.some(({ events }) => events !== undefined && events.length > count);
    });
    const ids = new Map<Suspect, readonly string[]>();
    if (partly.length > 0) {
      const named = await stored.eventIds(partly);
      partly.forEach((suspect, i) => void ids.set(suspect, named[i] ?? []));
    }
    return suspects.flatMap((suspect, i) => {
      // What is told by id is told at one moment: so is the number.
      const known = ids.get(suspect);
      const judged = judge(block, suspect, known?.length ?? counts[i] ?? 0, known);
      return suspect.copies.map((copy, k): [Copy, Verdict] => [copy, judged[k] as Verdict]);
    });
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
    for (const [index, [{ frame, events }, verdict]] of [...cut].sort(([a], [b]) => a - b)) {
      add(data.subarray(from, frame.from), first);
      const all = events?.length ?? 0;
      let stays = 0;
      if (verdict.kind === 'some' && events !== undefined) {
        stays = verdict.keep.filter(Boolean).length;
        add(framed(partsWithout(data, frame, events, (i) => verdict.keep[i] !== true)), index);
      }
      rows -= frame.events - stays;
      duplicate += all - stays;
      from = frame.to;
      first = index + 1;
    }
    add(data.subarray(from), first);
  });
  return { ...block, messages, sequences, batchIndexes, rows, duplicate };
}

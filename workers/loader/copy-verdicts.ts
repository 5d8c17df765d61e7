/** Judges each copy of a suspect: is it stored already, whole or in part (DEDUP-3, DEDUP-4, DEDUP-6)? */
import { isLeftOut } from '../../lib/failpoint.js';
import type { Block } from './block.js';
import { type Fingerprint, fingerprintOf, isSameFingerprint } from './fingerprint.js';
import { type EventSpan, eventIdIn, eventIdsIn, eventsIn } from './frames.js';
import type { EventsOfBatch, Identity } from './stored-events.js';
import type { Copy, Suspect } from './suspects.js';

/** What ClickHouse is asked. All reject when it cannot be reached. */
export interface StoredCopies {
  /** What it has of each of these batches, in all shards; in their order. */
  fingerprints(batches: readonly Identity[]): Promise<readonly Fingerprint[]>;
  /** How often it has each of these events in its batch, in all shards; those that it has not are left out. In their order. */
  eventCounts(questions: readonly EventsOfBatch[]): Promise<readonly ReadonlyMap<string, number>[]>;
}

/** DEDUP-6: events that are compared by their ids at a time, some 200 bytes each. One batch may have more. */
const maxCompared = 20_000;

/** What becomes of a copy: it is stored whole, or all or some of its events are left out. */
export type CopyVerdict =
  | { readonly kind: 'whole' }
  | { readonly kind: 'none'; readonly events: number }
  | { readonly kind: 'some'; readonly events: readonly EventSpan[]; readonly keep: readonly boolean[] };

export interface JudgedCopy {
  readonly copy: Copy;
  readonly verdict: CopyVerdict;
}

const whole: CopyVerdict = { kind: 'whole' };

/**
 * DEDUP-4, without a look at single events. Undefined: that is not enough.
 * @param there what ClickHouse has of the batch
 */
function judgeByFingerprint(block: Block, copies: readonly Copy[], there: Fingerprint): CopyVerdict[] | undefined {
  // What most suspects are when clients do not number their sends: the only copy.
  if (there.events === 0 && copies.length === 1) return [whole];
  const verdicts: CopyVerdict[] = [];
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
function judgeByIds(block: Block, copies: readonly Copy[], stored: ReadonlyMap<string, number>): CopyVerdict[] {
  /** What is there, by event_id; grows with what is kept. */
  const there = new Map(stored);
  return copies.map(({ message, frame }): CopyVerdict => {
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

/** A suspect that must be compared event by event, and what ClickHouse is asked about it. */
interface Comparison {
  readonly suspect: Suspect;
  readonly question: EventsOfBatch;
}

/** DEDUP-6: one group at a time, and the ids of no other. */
function* comparisonsOf(
  block: Block,
  suspects: readonly { readonly suspect: Suspect; readonly there: Fingerprint }[],
): Generator<Comparison[]> {
  let group: Comparison[] = [];
  let events = 0;
  for (const { suspect, there } of suspects) {
    const { tenant, batchId, copies } = suspect;
    const eventIds = idsOf(block, copies);
    group.push({ suspect, question: { tenant, batchId, eventIds, rows: there.events } });
    events += eventIds.length;
    if (events < maxCompared) continue;
    yield group;
    group = [];
    events = 0;
  }
  if (group.length > 0) yield group;
}

/** What becomes of each copy of these suspects. Rejects when ClickHouse cannot be reached. */
export async function judgeCopies(
  stored: StoredCopies,
  block: Block,
  suspects: readonly Suspect[],
): Promise<JudgedCopy[]> {
  const judged: JudgedCopy[] = [];
  const settle = ({ copies }: Suspect, verdicts: readonly CopyVerdict[]): void => {
    copies.forEach((copy, i) => void judged.push({ copy, verdict: verdicts[i] as CopyVerdict }));
  };
  const unsure: { suspect: Suspect; there: Fingerprint }[] = [];
  const prints = await stored.fingerprints(suspects);
  for (const [i, suspect] of suspects.entries()) {
    const there = prints[i] as Fingerprint;
    const sure = judgeByFingerprint(block, suspect.copies, there);
    if (sure !== undefined) settle(suspect, sure);
    // Nothing of it is there: its copies in the block are all that there is to compare.
    else if (there.events === 0) settle(suspect, judgeByIds(block, suspect.copies, new Map()));
    else unsure.push({ suspect, there });
  }
  for (const group of comparisonsOf(block, unsure)) {
    const counts = await stored.eventCounts(group.map(({ question }) => question));
    group.forEach(({ suspect }, i) => {
      settle(suspect, judgeByIds(block, suspect.copies, counts[i] ?? new Map()));
    });
  }
  return judged;
}

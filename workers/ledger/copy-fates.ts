/**
 * What became of the events of copies that the log has, for where.ts: stored by this very copy, stored by another one of its batch, or
 * not at all. By event_id, since a batch id may have been used for other events.
 */
import type { JetStreamManager } from '@nats-io/jetstream';
import type { Fingerprint } from '../loader/fingerprint.js';
import { eventIdsIn, keyOf } from '../loader/frames.js';
import type { EventPlace } from '../loader/stored-events.js';
import type { BatchName, LedgerStore, StoredRows } from './ledger-store.js';

/** One copy of a batch in the log. */
export interface LogCopy extends BatchName {
  readonly stream: string;
  readonly shard: number;
  readonly generation: string;
  readonly sequence: number;
  /** Place of the batch in its message, from 0. */
  readonly index: number;
  readonly attempt: number;
  readonly events: number;
  /** Place of the event in the batch, from 0; undefined when a batch was asked for. */
  readonly eventIndex: number | undefined;
  /** By the gateway's clock; ms since 1970. Undefined when the batch cannot be decoded. */
  readonly receivedAtMs: number | undefined;
  /** By JetStream's clock. */
  readonly loggedAtMs: number;
  /** Where its fields begin and end in the message. */
  readonly from: number;
  readonly to: number;
  /** Undefined when its fields cannot be told apart. */
  readonly print: Fingerprint | undefined;
}

export interface Fate {
  /** False: its events could not be read, and nothing below is known. */
  readonly known: boolean;
  /** Rows that this copy has, undefined when it has none. */
  readonly own: StoredRows | undefined;
  /** Events that another copy has stored; and where the first of them is. */
  readonly elsewhere: number;
  readonly storedBy: EventPlace | undefined;
  /** Events that are not stored. */
  readonly missing: readonly string[];
}

export interface Fates {
  of(copy: LogCopy): Fate;
  /** How many of these rows are those of copies. */
  taken(rows: StoredRows): number;
}

const nothing: Fate = { known: false, own: undefined, elsewhere: 0, storedBy: undefined, missing: [] };

/** Event ids that are held: the copies after them are judged by what is known of those before. */
const maxHeld = 500_000;

type Facts = Pick<EventPlace, 'generation' | 'shard' | 'day' | 'block' | 'attempt'>;
const rowsKey = (tenant: string, batchId: string, { generation, shard, day, block, attempt }: Facts): string =>
  `${keyOf(tenant, batchId)} ${generation} ${shard} ${day} ${block} ${attempt}`;
const copyKey = ({ shard, sequence, index }: LogCopy): string => `${shard} ${sequence} ${index}`;
const contentKey = ({ tenant, batchId, print }: LogCopy): string =>
  `${keyOf(tenant, batchId)} ${print?.events} ${print?.sum3} ${print?.sum2}`;

/**
 * @param copies in the order of the log
 * @param only this event is meant; undefined: all of each copy
 */
export async function fatesOf(
  { jsm, store }: { readonly jsm: JetStreamManager; readonly store: LedgerStore },
  copies: readonly LogCopy[],
  only: string | undefined,
): Promise<Fates> {
  const contents = await contentsOf(jsm, copies, only);
  const places = await placesOf(store, copies, contents);
  const taken = new Map<string, number>();
  const fates = new Map<string, Fate>();
  for (const copy of copies) {
    const { tenant, batchId } = copy;
    let own: StoredRows | undefined;
    let storedBy: EventPlace | undefined;
    let elsewhere = 0;
    const missing: string[] = [];
    for (const eventId of contents.get(contentKey(copy)) ?? []) {
      const rows = places.get(keyOf(tenant, batchId))?.get(eventId) ?? [];
      const mine = rows.find(({ place, left }) => left > 0 && isOf(place, copy));
      if (mine !== undefined) {
        mine.left--;
        const { place } = mine;
        const key = rowsKey(tenant, batchId, place);
        taken.set(key, (taken.get(key) ?? 0) + 1);
        const count = (own?.rows ?? 0) + 1;
        const { eventId: _, ...facts } = place;
        own = { ...facts, tenant, batchId, rows: count, distinct: count };
      } else if (rows.length > 0) {
        elsewhere++;
        storedBy ??= rows[0]?.place;
      } else missing.push(eventId);
    }
    fates.set(copyKey(copy), { known: contents.has(contentKey(copy)), own, elsewhere, storedBy, missing });
  }
  return {
    of: (copy) => fates.get(copyKey(copy)) ?? nothing,
    taken: (rows) => taken.get(rowsKey(rows.tenant, rows.batchId, rows)) ?? 0,
  };
}

/** The rows lie in the block that has the copy's message, and were sent as the same attempt. */
const isOf = (place: EventPlace, copy: LogCopy): boolean =>
  place.shard === copy.shard &&
  place.generation === copy.generation &&
  place.attempt === copy.attempt &&
  place.lo <= copy.sequence &&
  copy.sequence <= place.hi;

/** The event ids of each content: copies of one fingerprint have the same, and are read once. */
async function contentsOf(
  jsm: JetStreamManager,
  copies: readonly LogCopy[],
  only: string | undefined,
): Promise<Map<string, readonly string[]>> {
  const contents = new Map<string, readonly string[]>();
  let held = 0;
  for (const copy of copies) {
    const key = contentKey(copy);
    if (contents.has(key) || copy.print === undefined || held > maxHeld) continue;
    if (only !== undefined) {
      contents.set(key, [only]);
      continue;
    }
    const message = await jsm.direct.getMessage(copy.stream, { seq: copy.sequence });
    const ids = message === null ? undefined : eventIdsIn(message.data, { body: copy.from, to: copy.to });
    if (ids === undefined) continue;
    contents.set(key, ids);
    held += ids.length;
  }
  return contents;
}

/** Where these events are, by batch and event; `left` is for counting rows down. */
async function placesOf(
  store: LedgerStore,
  copies: readonly LogCopy[],
  contents: ReadonlyMap<string, readonly string[]>,
): Promise<Map<string, Map<string, { place: EventPlace; left: number }[]>>> {
  const wanted = new Map<string, { tenant: string; batchId: string; eventIds: Set<string> }>();
  for (const copy of copies) {
    const { tenant, batchId } = copy;
    const key = keyOf(tenant, batchId);
    const one = wanted.get(key) ?? { tenant, batchId, eventIds: new Set<string>() };
    wanted.set(key, one);
    for (const id of contents.get(contentKey(copy)) ?? []) one.eventIds.add(id);
  }
  const places = new Map<string, Map<string, { place: EventPlace; left: number }[]>>();
  for (const [key, { tenant, batchId, eventIds }] of wanted) {
    const byEvent = new Map<string, { place: EventPlace; left: number }[]>();
    for (const place of await store.eventPlaces({ tenant, batchId, eventIds: [...eventIds] })) {
      byEvent.set(place.eventId, [...(byEvent.get(place.eventId) ?? []), { place, left: place.rows }]);
    }
    places.set(key, byEvent);
  }
  return places;
}

/**
 * Finds which events of a batch ClickHouse has: for the loader, which leaves those out (LOAD-5), and for the commands that check the
 * loader (audit, where).
 *
 * The smaller set moves: all ids that are stored under a batch id, or the ids in question. So neither an answer nor its memory grows
 * with what is stored: a client may use one batch id forever.
 */

import { quote } from '../clickhouse/schema/columns.js';
import { keyOf } from './frames.js';

/** Names a batch. */
export interface Identity {
  readonly tenant: string;
  readonly batchId: string;
}

/** Events of one batch. */
export interface EventsOfBatch extends Identity {
  /** Each once. */
  readonly eventIds: readonly string[];
  /** Rows that the batch has, as far as is known. @default no idea: many */
  readonly rows?: number;
}

/** Rows of one event in one block, and copy of its batch. */
export interface EventPlace {
  readonly eventId: string;
  readonly generation: string;
  readonly shard: number;
  readonly day: string;
  readonly block: number;
  readonly lo: number;
  readonly hi: number;
  readonly attempt: number;
  readonly rows: number;
  /** By the gateway's clock, ms since 1970. */
  readonly receivedAtMs: number;
}

/** A SELECT with parameters. */
export type Ask = <T>(query: string, parameters: Record<string, unknown>) => Promise<T[]>;

/** Batches that one statement asks for. */
export const maxAsked = 100;
/** Bytes of names in one statement: ClickHouse takes 256 KiB of text. */
const maxBytes = 160_000;
/** Ids of one answer, and so many times as many may be stored as are asked for: an id in an answer costs a fraction of one in a question. */
const maxAnswered = 50_000;
const readable = 4;

export const namesOf = (batches: readonly Identity[]) => ({
  tenants: batches.map(({ tenant }) => tenant),
  ids: batches.map(({ batchId }) => batchId),
});

/** Rows of the batches that {@link namesOf} names: by the hash, so that the index serves, in any shard; the names make it exact. */
export const ofBatches =
  'tenant IN {tenants:Array(String)} AND batch_id IN {ids:Array(String)} AND _batch IN ' +
  '(SELECT reinterpretAsUInt128(sipHash128(one.1, one.2)) FROM ' +
  '(SELECT arrayJoin(arrayZip({tenants:Array(String)}, {ids:Array(String)})) AS one))';

/** A statement's share of the questions: pairs of batch id and event id as text, and whose they are. */
interface Share {
  readonly batches: Identity[];
  readonly pairs: string[];
}

function* sharesOf(questions: readonly EventsOfBatch[]): Generator<Share> {
  let share: Share = { batches: [], pairs: [] };
  let bytes = 0;
  for (const { tenant, batchId, eventIds } of questions) {
    let named = false;
    for (const eventId of eventIds) {
      const pair = `(${quote(batchId)},${quote(eventId)})`;
      if (bytes + pair.length > maxBytes || (!named && share.batches.length === maxAsked)) {
        yield share;
        share = { batches: [], pairs: [] };
        bytes = 0;
        named = false;
      }
      if (!named) share.batches.push({ tenant, batchId });
      named = true;
      share.pairs.push(pair);
      // In UTF-8 a character may take three bytes; ids are ASCII where a gateway let them in.
      bytes += Buffer.byteLength(pair) + 1;
    }
  }
  if (share.pairs.length > 0) yield share;
}

async function* rowsOf<T>(
  ask: Ask,
  table: string,
  questions: readonly EventsOfBatch[],
  facts: string,
  groups: string,
): AsyncGenerator<T & { readonly tenant: string; readonly batch_id: string; readonly event_id: string }> {
  for (const { batches, pairs } of sharesOf(questions)) {
    yield* await ask<T & { tenant: string; batch_id: string; event_id: string }>(
      `SELECT toString(tenant) AS tenant, batch_id, event_id, ${facts} FROM ${table} ` +
        `WHERE ${ofBatches} AND (batch_id, event_id) IN (${pairs.join(',')}) GROUP BY tenant, batch_id, event_id${groups}`,
      namesOf(batches),
    );
  }
}

/** Batches of which all ids are read together. */
function* chunksOf(questions: readonly EventsOfBatch[]): Generator<EventsOfBatch[]> {
  let chunk: EventsOfBatch[] = [];
  let rows = 0;
  for (const question of questions) {
    if (chunk.length === maxAsked || (chunk.length > 0 && rows + (question.rows ?? 0) > maxAnswered)) {
      yield chunk;
      chunk = [];
      rows = 0;
    }
    chunk.push(question);
    rows += question.rows ?? 0;
  }
  if (chunk.length > 0) yield chunk;
}

/** How often each of these events is stored in its batch, in all shards; those that are not, are left out. In the order of the questions. */
export async function eventCounts(
  ask: Ask,
  table: string,
  questions: readonly EventsOfBatch[],
): Promise<ReadonlyMap<string, number>[]> {
  const found = new Map<string, Map<string, number>>();
  const wanted = new Map<string, ReadonlySet<string>>();
  for (const { tenant, batchId, eventIds } of questions) {
    found.set(keyOf(tenant, batchId), new Map());
    wanted.set(keyOf(tenant, batchId), new Set(eventIds));
  }
  const isSmall = ({ rows = Number.POSITIVE_INFINITY, eventIds }: EventsOfBatch): boolean =>
    rows <= Math.min(maxAnswered, readable * eventIds.length);
  for (const chunk of chunksOf(questions.filter(isSmall))) {
    const rows = await ask<{ tenant: string; batch_id: string; ids: string[] }>(
      `SELECT toString(tenant) AS tenant, batch_id, groupArray(event_id) AS ids FROM ${table} ` +
        `WHERE ${ofBatches} GROUP BY tenant, batch_id`,
      namesOf(chunk),
    );
    for (const { tenant, batch_id: batchId, ids } of rows) {
      const key = keyOf(tenant, batchId);
      const counts = found.get(key);
      for (const id of ids) if (wanted.get(key)?.has(id)) counts?.set(id, (counts.get(id) ?? 0) + 1);
    }
  }
  const large = questions.filter((question) => !isSmall(question));
  for await (const row of rowsOf<{ n: string }>(ask, table, large, 'toString(count()) AS n', '')) {
    found.get(keyOf(row.tenant, row.batch_id))?.set(row.event_id, Number(row.n));
  }
  return questions.map(({ tenant, batchId }) => found.get(keyOf(tenant, batchId)) as Map<string, number>);
}

/** Where these events are stored, in all shards, in the order of the blocks. */
export async function eventPlaces(ask: Ask, table: string, question: EventsOfBatch): Promise<EventPlace[]> {
  const places: EventPlace[] = [];
  const facts =
    'toString(_stream) AS generation, toString(_shard) AS shard, toString(_day) AS day, toString(_block) AS block, ' +
    'toString(_lo) AS lo, toString(_hi) AS hi, toString(_attempt) AS attempt, toString(count()) AS rows, ' +
    'toString(toUnixTimestamp64Milli(min(received_at))) AS receivedAtMs';
  const groups = ', _stream, _shard, _day, _block, _lo, _hi, _attempt';
  type Row = { readonly [K in keyof EventPlace]: string };
  for await (const row of rowsOf<Row>(ask, table, [question], facts, groups)) {
    if (row.tenant !== question.tenant) continue;
    places.push({
      eventId: row.event_id,
      generation: row.generation,
      shard: Number(row.shard),
      day: row.day,
      block: Number(row.block),
      lo: Number(row.lo),
      hi: Number(row.hi),
      attempt: Number(row.attempt),
      rows: Number(row.rows),
      receivedAtMs: Number(row.receivedAtMs),
    });
  }
  return places.sort((a, b) => a.shard - b.shard || a.block - b.block || a.attempt - b.attempt);
}

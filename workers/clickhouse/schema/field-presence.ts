/**
 * Which columns a block has values for. ClickHouse fills every column that the statement names, in every row, whether the row
 * has the field or not: with 39 columns of the contract of which usual events use 19, reading cost a third more and the
 * whole INSERT a sixth more than with the 19 (bench insert, "all columns"). So a block's INSERT names only the columns
 * that some event of the block has a field for; the others get their default, which is what an absent field reads as.
 *
 * The walk decodes nothing and costs 0.16 CPU-s per million events. What it cannot walk counts as "all fields are there": a field may
 * be left out only when it is surely absent.
 */
import type { FieldNode, MessageNode } from '../../../lib/contract/rules.js';
import { isTimestamp } from './columns.js';

/** Tells which fields are there, by the numbers that {@link createWalker} gave them. */
export type FieldPresence = (id: number) => boolean;

export const everything: FieldPresence = () => true;

/** Of one message type, by field number. */
interface Table {
  /** Where in `seen` the field is noted, plus one; 0: the contract has no such field. */
  readonly ids: Uint16Array;
  /** Of fields whose own fields are columns. */
  readonly inner: readonly (Table | undefined)[];
}

export interface Walker {
  /** Number of an event's field by its path, `device.country`, or of a batch's own field, `.user_agent`. */
  readonly ids: ReadonlyMap<string, number>;
  /** What the events in these payloads (length-delimited StoredBatch) have. */
  presenceIn(payloads: readonly Uint8Array[]): { readonly key: string; readonly presence: FieldPresence };
}

/** A message whose fields are columns of their own. */
export const isFlattened = (field: FieldNode): boolean =>
  field.kind === 'message' && field.cardinality === 'singular' && !isTimestamp(field);

/** What `longVarint` has read. */
let long = 0;

/** Reads a varint of up to 32 bits into `long`. Returns the position after it; -1 when it is longer or cut short. */
function longVarint(data: Uint8Array, from: number, end: number): number {
  let value = 0;
  let p = from;
  for (let shift = 0; shift < 35 && p < end; shift += 7) {
    const byte = data[p++] as number;
    value |= (byte & 0x7f) << shift;
    if (byte < 0x80) {
      long = value >>> 0;
      return p;
    }
  }
  return -1;
}

/** The position after a value that is not length-delimited; -1 when there is none. */
function skip(data: Uint8Array, from: number, end: number, wire: number): number {
  let p = from;
  if (wire === 0) {
    while (p < end && (data[p] as number) >= 0x80) p++;
    p++;
  } else if (wire === 1) p += 8;
  else if (wire === 5) p += 4;
  else return -1;
  return p <= end ? p : -1;
}

/**
 * @param event the rules tree of an event
 * @param batchFields fields of the batch itself that may be left out, by name
 */
export function createWalker(event: MessageNode, batchFields: ReadonlyMap<string, number>): Walker {
  const ids = new Map<string, number>();
  const tableOf = (message: MessageNode, prefix: string): Table => {
    const max = Math.max(...message.fields.map(({ number }) => number));
    const table = { ids: new Uint16Array(max + 1), inner: [] as (Table | undefined)[] };
    for (const field of message.fields) {
      const id = ids.size;
      ids.set(`${prefix}${field.name}`, id);
      table.ids[field.number] = id + 1;
      if (isFlattened(field))
        table.inner[field.number] = tableOf(field.message as MessageNode, `${prefix}${field.name}.`);
    }
    return table;
  };
  const root = tableOf(event, '');
  const ofBatch = new Map<number, number>();
  for (const [name, number] of batchFields) {
    ofBatch.set(number, ids.size);
    ids.set(`.${name}`, ids.size);
  }
  const seen = new Uint8Array(ids.size);

  /** Notes the fields of the message in bytes p … end-1; false when they are no message. */
  // biome-ignore lint/complexity/noExcessiveCognitiveComplexity: one pass over the bytes of each event
  const walk = (data: Uint8Array, table: Table, from: number, end: number): boolean => {
    const { ids: own, inner } = table;
    let p = from;
    while (p < end) {
      let tag = data[p++] as number;
      if (tag >= 0x80) {
        p = longVarint(data, p - 1, end);
        if (p < 0) return false;
        tag = long;
      }
      const number = tag >>> 3;
      const id = number < own.length ? (own[number] as number) : 0;
      if (id !== 0) seen[id - 1] = 1;
      if ((tag & 7) !== 2) {
        p = skip(data, p, end, tag & 7);
        if (p < 0) return false;
        continue;
      }
      let length = p < end ? (data[p++] as number) : -1;
      if (length >= 0x80) {
        p = longVarint(data, p - 1, end);
        if (p < 0) return false;
        length = long;
      }
      const stop = p + length;
      if (length < 0 || stop > end) return false;
      const deeper = inner[number];
      if (deeper !== undefined && !walk(data, deeper, p, stop)) return false;
      p = stop;
    }
    return p === end;
  };

  // biome-ignore lint/complexity/noExcessiveCognitiveComplexity: one pass over the fields of each batch
  const walkBatch = (data: Uint8Array, from: number, end: number): boolean => {
    let p = from;
    while (p < end) {
      p = longVarint(data, p, end);
      if (p < 0) return false;
      const tag = long;
      const noted = ofBatch.get(tag >>> 3);
      if (noted !== undefined) seen[noted] = 1;
      if ((tag & 7) !== 2) {
        p = skip(data, p, end, tag & 7);
        if (p < 0) return false;
        continue;
      }
      p = longVarint(data, p, end);
      if (p < 0) return false;
      const stop = p + long;
      if (stop > end) return false;
      if (tag >>> 3 === 1 && !walk(data, root, p, stop)) return false;
      p = stop;
    }
    return p === end;
  };

  return {
    ids,
    presenceIn(payloads) {
      seen.fill(0);
      for (const payload of payloads) {
        for (let p = 0; p < payload.length; ) {
          p = longVarint(payload, p, payload.length);
          const stop = p + long;
          if (p < 0 || stop > payload.length || !walkBatch(payload, p, stop)) {
            return { key: 'everything', presence: everything };
          }
          p = stop;
        }
      }
      const found = seen.slice();
      return { key: found.join(''), presence: (id) => found[id] === 1 };
    },
  };
}

/**
 * Which columns a block has values for. ClickHouse fills every column that it is told to read, in every row, whether the row
 * has the field or not: with 47 columns of the contract of which usual events use 20, reading cost a third more and the
 * whole INSERT a quarter more than with the 20 (bench insert, "all columns"). So a block's INSERT names only the columns
 * that some event of the block has a field for; the others get their default, which is what an absent field reads as.
 *
 * The walk decodes nothing and costs about 0.04 CPU-s per million events. Whatever it cannot walk counts as "everything is
 * there": leaving a field out is only right when it is surely absent.
 */
import type { FieldNode, MessageNode } from '../../lib/contract/rules.js';
import { isTimestamp } from './columns.js';

/** Tells which fields are there, by the numbers that {@link walkerOf} gave them. */
export type Present = (id: number) => boolean;

export const everything: Present = () => true;

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
  presentIn(payloads: readonly Uint8Array[]): { readonly key: string; readonly present: Present };
}

/** A message whose fields are columns of their own. */
export const isFlattened = (field: FieldNode): boolean =>
  field.kind === 'message' && field.cardinality === 'singular' && !isTimestamp(field);

/**
 * @param event the rules tree of an event
 * @param batchFields fields of the batch itself that may be left out, by name
 */
export function walkerOf(event: MessageNode, batchFields: ReadonlyMap<string, number>): Walker {
  const ids = new Map<string, number>();
  const tableOf = (message: MessageNode, prefix: string): Table => {
    const most = Math.max(...message.fields.map(({ number }) => number));
    const table = { ids: new Uint16Array(most + 1), inner: [] as (Table | undefined)[] };
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

  let data: Uint8Array = new Uint8Array(0);
  let at = 0;
  /** Reads a varint of up to 32 bits; -1 when it is longer or cut short. */
  const varint = (end: number): number => {
    let value = 0;
    for (let shift = 0; shift < 35 && at < end; shift += 7) {
      const byte = data[at++] as number;
      value |= (byte & 0x7f) << shift;
      if (byte < 0x80) return value >>> 0;
    }
    return -1;
  };
  /** Moves behind a value that is not length-delimited; false when it cannot be. */
  const skip = (wire: number, end: number): boolean => {
    if (wire === 0) {
      while (at < end && (data[at] as number) >= 0x80) at++;
      at++;
    } else if (wire === 1) at += 8;
    else if (wire === 5) at += 4;
    else return false;
    return at <= end;
  };

  /** Notes the fields of the message in bytes at … end-1; false when they are no message. */
  const walk = (table: Table, end: number): boolean => {
    const { ids: own, inner } = table;
    while (at < end) {
      let tag = data[at++] as number;
      if (tag >= 0x80) {
        at--;
        tag = varint(end);
        if (tag < 0) return false;
      }
      const number = tag >>> 3;
      const id = number < own.length ? (own[number] as number) : 0;
      if (id !== 0) seen[id - 1] = 1;
      if ((tag & 7) !== 2) {
        if (!skip(tag & 7, end)) return false;
        continue;
      }
      let length = at < end ? (data[at++] as number) : -1;
      if (length >= 0x80) {
        at--;
        length = varint(end);
      }
      const stop = at + length;
      if (length < 0 || stop > end) return false;
      const deeper = inner[number];
      if (deeper !== undefined && !walk(deeper, stop)) return false;
      at = stop;
    }
    return at === end;
  };

  const walkBatch = (end: number): boolean => {
    while (at < end) {
      const tag = varint(end);
      if (tag < 0) return false;
      const noted = ofBatch.get(tag >>> 3);
      if (noted !== undefined) seen[noted] = 1;
      if ((tag & 7) !== 2) {
        if (!skip(tag & 7, end)) return false;
        continue;
      }
      const length = varint(end);
      const stop = at + length;
      if (length < 0 || stop > end) return false;
      if (tag >>> 3 === 1 && !walk(root, stop)) return false;
      at = stop;
    }
    return at === end;
  };

  return {
    ids,
    presentIn(payloads) {
      seen.fill(0);
      for (const payload of payloads) {
        data = payload;
        at = 0;
        while (at < payload.length) {
          const length = varint(payload.length);
          const stop = at + length;
          if (length < 0 || stop > payload.length || !walkBatch(stop))
            return { key: 'everything', present: everything };
        }
      }
      const found = seen.slice();
      return { key: found.join(''), present: (id) => found[id] === 1 };
    },
  };
}

/**
 * Reads the batches inside a message, at wire level, for the few that the loader must examine one by one: retried batches (LOAD-5), and
 * those that ClickHouse refuses (LOAD-6). block.ts counts all others at a lower cost.
 */

/** One length-delimited StoredBatch inside a message. Positions are offsets into the message. */
export interface Frame {
  /** Where its length begins, where its fields begin, and where it ends. */
  from: number;
  body: number;
  to: number;
  tenantFrom: number;
  tenantTo: number;
  idFrom: number;
  idTo: number;
  contractFrom: number;
  contractTo: number;
  attempt: number;
  /** Events, as the cutter counts them (block.ts). */
  events: number;
  unknownFields: boolean;
}

const latin1 = (data: Uint8Array, from: number, to: number): string =>
  from < to ? Buffer.from(data.buffer, data.byteOffset + from, to - from).toString('latin1') : '';
const utf8 = (data: Uint8Array, from: number, to: number): string =>
  from < to ? Buffer.from(data.buffer, data.byteOffset + from, to - from).toString('utf8') : '';

/** Identity of a batch as one string: (tenant, batch_id). Both are ASCII when a gateway wrote them. */
export const keyOf = (tenant: string, batchId: string): string => `${tenant}\0${batchId}`;

export const tenantIn = (data: Uint8Array, frame: Frame): string => utf8(data, frame.tenantFrom, frame.tenantTo);
export const batchIdIn = (data: Uint8Array, frame: Frame): string => utf8(data, frame.idFrom, frame.idTo);
export const contractIn = (data: Uint8Array, frame: Frame): string =>
  latin1(data, frame.contractFrom, frame.contractTo);

/** What `varint` has read. */
let value = 0;

/** Reads a varint into `value`. Returns the position after it; -1 when it is longer than ten bytes or cut short. */
function varint(data: Uint8Array, from: number, end: number): number {
  let at = from;
  let factor = 1;
  value = 0;
  for (let i = 0; i < 10 && at < end; i++) {
    const byte = data[at++] as number;
    value += (byte & 0x7f) * factor;
    if (byte < 0x80) return at;
    factor *= 128;
  }
  return -1;
}

/** The position after the value of a field whose tag was read; -1 when there is none. */
function skipped(data: Uint8Array, from: number, end: number, wire: number): number {
  let at = from;
  if (wire === 0) at = varint(data, at, end);
  else if (wire === 1) at += 8;
  else if (wire === 5) at += 4;
  else if (wire === 2) {
    at = varint(data, at, end);
    if (at >= 0) at += value;
  } else return -1;
  return at <= end ? at : -1;
}

/**
 * Walks over the batches of a message. The frame that `visit` is given is the same object each time. The gateway writes
 * events last, so a walk ends at the first event; only of a batch whose identity did not come before it is all looked at.
 * @returns false when the message is not a sequence of whole batches; what came before was visited
 */
// biome-ignore lint/complexity/noExcessiveCognitiveComplexity: one pass over the bytes of each message, with the same frame object for all batches
export function eachFrame(data: Uint8Array, visit: (frame: Frame, index: number) => void): boolean {
  const frame: Frame = {
    from: 0,
    body: 0,
    to: 0,
    tenantFrom: 0,
    tenantTo: 0,
    idFrom: 0,
    idTo: 0,
    contractFrom: 0,
    contractTo: 0,
    attempt: 0,
    events: 0,
    unknownFields: false,
  };
  let index = 0;
  for (let at = 0; at < data.length; ) {
    frame.from = at;
    at = varint(data, at, data.length);
    const to = at + value;
    if (at < 0 || to > data.length) return false;
    frame.body = at;
    frame.to = to;
    frame.tenantFrom = frame.tenantTo = frame.idFrom = frame.idTo = frame.contractFrom = frame.contractTo = 0;
    frame.attempt = frame.events = 0;
    frame.unknownFields = false;
    let count = 0;
    let told = false;
    while (at < to) {
      at = varint(data, at, to);
      if (at < 0) {
        if (told) break;
        return false;
      }
      const field = Math.floor(value / 8);
      const wire = value % 8;
      const from = at;
      if (field === 1) {
        if (wire !== 2) {
          if (told) break;
          return false;
        }
        if (!told && count > 0) {
          told = true;
          frame.events = count;
        }
        if (!told) frame.events++;
        else if (frame.idTo > 0 && frame.tenantTo > 0) break;
      }
      at = skipped(data, at, to, wire);
      if (at < 0) {
        // What comes after the first event is ClickHouse's to judge (LOAD-6).
        if (told) break;
        return false;
      }
      if (wire === 0) {
        if (field === 4) frame.attempt = value;
        else if (field === 7) count = value;
        else if (field === 9) frame.unknownFields = value !== 0;
      } else if (wire === 2 && from < at) {
        const begin = at - value;
        if (field === 2) {
          frame.tenantFrom = begin;
          frame.tenantTo = at;
        } else if (field === 3) {
          frame.idFrom = begin;
          frame.idTo = at;
        } else if (field === 10) {
          frame.contractFrom = begin;
          frame.contractTo = at;
        }
      }
    }
    visit(frame, index++);
    at = to;
  }
  return true;
}

/** An event of a batch: its field with tag and length, and its own bytes. */
export interface EventSpan {
  readonly from: number;
  readonly body: number;
  readonly to: number;
}

/** The events of a batch. Undefined when its fields cannot be told apart. */
export function eventsIn(data: Uint8Array, frame: Frame): EventSpan[] | undefined {
  const events: EventSpan[] = [];
  for (let at = frame.body; at < frame.to; ) {
    const from = at;
    at = varint(data, at, frame.to);
    if (at < 0) return undefined;
    const isEvent = value === 0x0a;
    at = skipped(data, at, frame.to, value % 8);
    if (at < 0) return undefined;
    if (isEvent) events.push({ from, body: at - value, to: at });
  }
  return events;
}

/** Where `findId` has found an event_id. */
let idFrom = 0;
let idTo = 0;

/** Finds the event_id of the event that lies there; empty when it has none. A gateway refuses an event with two. */
function findId(data: Uint8Array, from: number, to: number): void {
  idFrom = idTo = from;
  for (let at = from; at < to; ) {
    at = varint(data, at, to);
    if (at < 0) return;
    const isId = value === 0x0a;
    at = skipped(data, at, to, value % 8);
    if (at < 0) return;
    if (!isId) continue;
    idFrom = at - value;
    idTo = at;
    return;
  }
}

/** event_id of an event; '' when it has none. */
export function eventIdIn(data: Uint8Array, event: EventSpan): string {
  findId(data, event.body, event.to);
  return utf8(data, idFrom, idTo);
}

/**
 * Says where the event_id of each event of a batch lies, without an object for any of them.
 * @returns false when the fields of the batch cannot be told apart; what came before was visited
 */
export function eachEventId(
  data: Uint8Array,
  frame: Pick<Frame, 'body' | 'to'>,
  visit: (from: number, to: number) => void,
): boolean {
  for (let at = frame.body; at < frame.to; ) {
    at = varint(data, at, frame.to);
    if (at < 0) return false;
    const isEvent = value === 0x0a;
    at = skipped(data, at, frame.to, value % 8);
    if (at < 0) return false;
    if (!isEvent) continue;
    findId(data, at - value, at);
    visit(idFrom, idTo);
  }
  return true;
}

/** The event_ids of a batch, in its order. Undefined when its fields cannot be told apart. */
export function eventIdsIn(data: Uint8Array, frame: Pick<Frame, 'body' | 'to'>): string[] | undefined {
  const ids: string[] = [];
  return eachEventId(data, frame, (from, to) => void ids.push(utf8(data, from, to))) ? ids : undefined;
}

/** A length-delimited batch of these bytes, in a new buffer. */
export function framed(parts: readonly Uint8Array[]): Uint8Array {
  const size = parts.reduce((sum, part) => sum + part.length, 0);
  const head: number[] = [];
  for (let rest = size; ; rest = Math.floor(rest / 128)) {
    head.push(rest < 128 ? rest : (rest % 128) | 128);
    if (rest < 128) break;
  }
  const out = new Uint8Array(head.length + size);
  out.set(head);
  let at = head.length;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

/** What of a batch is left without some of its events, in order: all its other fields are as they were. */
export function partsWithout(
  data: Uint8Array,
  frame: Frame,
  events: readonly EventSpan[],
  leaveOut: (event: number) => boolean,
): Uint8Array[] {
  const parts: Uint8Array[] = [];
  let from = frame.body;
  events.forEach((event, i) => {
    if (!leaveOut(i)) return;
    if (event.from > from) parts.push(data.subarray(from, event.from));
    from = event.to;
  });
  if (frame.to > from) parts.push(data.subarray(from, frame.to));
  return parts;
}

/**
 * The batches inside a message, at wire level, for the few that the loader must look at one by one: batches that were sent
 * again (L5), and those that the warehouse refuses (L6). block.ts counts all the others, in less.
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
  /** As the gateway wrote it. */
  eventCount: number;
  unknownFields: boolean;
  /** It has a field of events. */
  hasEvents: boolean;
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

/** Events as the cutter counts them (block.ts). */
export const countedIn = (frame: Frame): number =>
  !frame.hasEvents ? 0 : frame.eventCount === 0 ? 1 : frame.eventCount;

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
    eventCount: 0,
    unknownFields: false,
    hasEvents: false,
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
    frame.attempt = frame.eventCount = 0;
    frame.unknownFields = frame.hasEvents = false;
    while (at < to) {
      at = varint(data, at, to);
      if (at < 0) return false;
      const field = Math.floor(value / 8);
      const wire = value % 8;
      const from = at;
      if (field === 1) {
        frame.hasEvents = true;
        if (wire !== 2) return false;
        if (frame.idTo > 0 && frame.tenantTo > 0) break;
      }
      at = skipped(data, at, to, wire);
      if (at < 0) return false;
      if (wire === 0) {
        if (field === 4) frame.attempt = value;
        else if (field === 7) frame.eventCount = value;
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

/** event_id of an event; '' when it has none. */
export function eventIdIn(data: Uint8Array, event: EventSpan): string {
  let id = '';
  for (let at = event.body; at < event.to; ) {
    at = varint(data, at, event.to);
    if (at < 0) return id;
    const isId = value === 0x0a;
    at = skipped(data, at, event.to, value % 8);
    if (at < 0) return id;
    if (isId) id = utf8(data, at - value, at);
  }
  return id;
}

/** The batch with only those events; all its other fields as they are. A new buffer, length first. */
export function withEvents(
  data: Uint8Array,
  frame: Frame,
  events: readonly EventSpan[],
  keep: (event: number) => boolean,
): Uint8Array {
  let size = frame.to - frame.body;
  for (let i = 0; i < events.length; i++) if (!keep(i)) size -= events[i]!.to - events[i]!.from;
  const head: number[] = [];
  for (let rest = size; ; rest = Math.floor(rest / 128)) {
    head.push(rest < 128 ? rest : (rest % 128) | 128);
    if (rest < 128) break;
  }
  const out = new Uint8Array(head.length + size);
  out.set(head);
  let to = head.length;
  let from = frame.body;
  const copy = (until: number): void => {
    out.set(data.subarray(from, until), to);
    to += until - from;
  };
  for (let i = 0; i < events.length; i++) {
    if (keep(i)) continue;
    const event = events[i]!;
    copy(event.from);
    from = event.to;
  }
  copy(frame.to);
  return out;
}

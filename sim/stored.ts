/** Reads batches and messages of the log without the judged code, so that the verdict does not depend on it. */

export interface StoredBatch {
  readonly tenant: string;
  readonly batchId: string;
  readonly attempt: number;
  readonly eventCount: number;
  /** By the gateway's clock, ms since 1970. */
  readonly receivedAtMs: number;
  readonly eventIds: readonly string[];
}

let at = 0;

function varint(bytes: Uint8Array): number {
  let value = 0;
  for (let factor = 1; ; factor *= 128) {
    const byte = bytes[at++];
    if (byte === undefined) throw new RangeError('the bytes end within a number');
    value += (byte & 0x7f) * factor;
    if (byte < 0x80) return value;
  }
}

function text(bytes: Uint8Array, size: number): string {
  let result = '';
  for (const end = at + size; at < end; at++) result += String.fromCharCode(bytes[at] as number);
  return result;
}

function skip(bytes: Uint8Array, wire: number): void {
  if (wire === 0) varint(bytes);
  else if (wire === 1) at += 8;
  else if (wire === 2) {
    const size = varint(bytes);
    at += size;
  } else if (wire === 5) at += 4;
  else throw new RangeError(`wire type ${wire}`);
}

/** Field 1 of the event that lies here. */
function eventId(bytes: Uint8Array, end: number): string {
  let id = '';
  while (at < end) {
    const tag = varint(bytes);
    if (tag === 0x0a) id = text(bytes, varint(bytes));
    else skip(bytes, tag & 7);
  }
  return id;
}

function timestamp(bytes: Uint8Array): number {
  const end = varint(bytes) + at;
  let ms = 0;
  while (at < end) {
    const tag = varint(bytes);
    const value = varint(bytes);
    ms += tag === 0x08 ? value * 1_000 : value / 1e6;
  }
  return ms;
}

/** The ids of the events of an encoded EventBatch, in their order. */
export function eventIds(batch: Uint8Array): string[] {
  const ids: string[] = [];
  at = 0;
  while (at < batch.length) {
    if (varint(batch) !== 0x0a) throw new RangeError('no event');
    const size = varint(batch);
    ids.push(eventId(batch, at + size));
  }
  return ids;
}

function readBatch(message: Uint8Array, end: number): StoredBatch {
  const ids: string[] = [];
  const batch = { tenant: '', batchId: '', attempt: 0, eventCount: 0, receivedAtMs: 0, eventIds: ids };
  while (at < end) {
    const tag = varint(message);
    if (tag === 0x0a) {
      const length = varint(message);
      ids.push(eventId(message, at + length));
    } else if (tag === 0x12) batch.tenant = text(message, varint(message));
    else if (tag === 0x1a) batch.batchId = text(message, varint(message));
    else if (tag === 0x20) batch.attempt = varint(message);
    else if (tag === 0x2a) batch.receivedAtMs = timestamp(message);
    else if (tag === 0x38) batch.eventCount = varint(message);
    else skip(message, tag & 7);
  }
  return batch;
}

/**
 * The batches of a message.
 * @throws RangeError when it is not a sequence of whole StoredBatches
 */
export function storedBatches(message: Uint8Array): StoredBatch[] {
  const batches: StoredBatch[] = [];
  at = 0;
  while (at < message.length) {
    const size = varint(message);
    const end = at + size;
    if (end > message.length) throw new RangeError('a batch is longer than its message');
    batches.push(readBatch(message, end));
    if (at !== end) throw new RangeError('a batch ends within a field');
  }
  return batches;
}

/**
 * Gathers events into a batch: each is encoded once, straight into the batch's bytes, which are then sent, and sent
 * again, as they are.
 *
 * A batch is an encoded EventBatch: per event the tag 0x0A, the length, the event.
 */
import { encodeEvent } from './event-encoder.js';
import type { EventInit } from './event-init.js';
import { WireWriter } from './wire-writer.js';

/** Encoded events, closed. */
export interface SealedBatch {
  readonly bytes: Uint8Array;
  readonly events: number;
}

export interface BatcherOptions {
  /** A batch is closed before it grows past this many bytes. A larger event makes a batch of its own. */
  readonly batchBytes: number;
  /** A batch is closed at this many events while the gateway keeps up; else it goes on growing, so that a backlog is few batches. */
  readonly batchEvents: number;
  /** A batch that is closed now goes out now. */
  readonly keepsUp: () => boolean;
  /** Most bytes that the gateway takes; told later, it may change. */
  readonly maxBatchBytes: () => number;
  readonly maxBatchEvents: () => number;
  readonly makeId: () => string;
  /** Takes what is closed. */
  readonly onSealed: (batch: SealedBatch) => void;
}

export interface Batcher {
  /**
   * Adds an event.
   * @throws TypeError when a value has the wrong type
   * @throws RangeError when the event alone is larger than the gateway takes
   */
  add(event: EventInit, nowMs: number): void;
  /** Closes what is gathered, if anything. */
  seal(): void;
  /** Gathered and not closed. */
  readonly bytes: number;
  readonly events: number;
}

const eventTag = 0x0a;
const minBuffer = 16 * 1024;

export function createBatcher(options: BatcherOptions): Batcher {
  let writer = new WireWriter(minBuffer);
  let events = 0;
  /** An event is being written: its bytes are not whole. */
  let writing = false;

  const seal = (): void => {
    if (events === 0 || writing) return;
    const { buf, pos } = writer;
    // A small batch must not hold on to a large buffer while it waits for its ack.
    const small = pos < buf.length / 2;
    const bytes = small ? ownCopy(buf, pos) : buf.subarray(0, pos);
    const sealed = { bytes, events };
    events = 0;
    if (small) writer.pos = 0;
    else writer = new WireWriter(buf.length);
    options.onSealed(sealed);
  };

  const write = (event: EventInit, nowMs: number): void => {
    // Its bytes would lie within those of the other event.
    if (writing) throw new TypeError('a getter of another event tracks it: track it when that one is tracked');
    const start = writer.pos;
    writing = true;
    try {
      // Plain store: the writer minds its room itself.
      writer.varint(eventTag);
      const body = writer.open();
      encodeEvent(writer, event, options.makeId, nowMs);
      writer.close(body);
    } catch (error) {
      writer.pos = start;
      throw error;
    } finally {
      writing = false;
    }
  };

  return {
    add(event, nowMs) {
      const max = options.maxBatchBytes();
      const target = Math.min(options.batchBytes, max);
      for (;;) {
        const start = writer.pos;
        write(event, nowMs);
        const end = writer.pos;
        if (end > target && start > 0) {
          // Full: closes without this event, which begins the next batch.
          writer.pos = start;
          seal();
          continue;
        }
        if (end > max) {
          writer.pos = start;
          throw new RangeError(`the event has ${end} bytes and the gateway takes ${max} in a batch`);
        }
        if (!writer.overflowed) break;
        writer.pos = start;
        writer.resize(Math.max(end, Math.min(target, writer.buf.length * 2)), start);
      }
      events++;
      const full = writer.pos >= target || events >= options.maxBatchEvents();
      if (full || (events >= options.batchEvents && options.keepsUp())) seal();
    },
    seal,
    get bytes() {
      return writer.pos;
    },
    get events() {
      return events;
    },
  };
}

/** Cuts a batch that was never sent into such as fit limits told later. Events larger than a batch make one each. */
export function splitBatch(batch: SealedBatch, maxBytes: number, maxEvents: number): SealedBatch[] {
  const parts: SealedBatch[] = [];
  let start = 0;
  let events = 0;
  let at = 0;
  while (at < batch.bytes.length) {
    const next = endOfEvent(batch.bytes, at);
    if (events > 0 && (next - start > maxBytes || events >= maxEvents)) {
      parts.push({ bytes: batch.bytes.subarray(start, at), events });
      start = at;
      events = 0;
    }
    events++;
    at = next;
  }
  if (events > 0) parts.push({ bytes: batch.bytes.subarray(start, at), events });
  return parts;
}

/** The encoded event at a place in a batch, counted from 0; undefined when there are fewer. */
export function eventAt(bytes: Uint8Array, index: number): Uint8Array | undefined {
  let at = 0;
  for (let i = 0; at < bytes.length; i++) {
    const end = endOfEvent(bytes, at);
    if (i === index) return bytes.subarray(startOfBody(bytes, at), end);
    at = end;
  }
  return undefined;
}

function startOfBody(bytes: Uint8Array, at: number): number {
  let i = at + 1;
  while ((bytes[i] as number) > 127) i++;
  return i + 1;
}

function endOfEvent(bytes: Uint8Array, at: number): number {
  let length = 0;
  let shift = 0;
  let i = at + 1;
  for (; (bytes[i] as number) > 127; i++, shift += 7) length |= ((bytes[i] as number) & 127) << shift;
  length |= (bytes[i] as number) << shift;
  return i + 1 + length;
}

/** The first `length` bytes, in memory of their own: a piece of Node's pool keeps up to 64 KiB alive. */
function ownCopy(bytes: Buffer, length: number): Buffer {
  const copy = Buffer.allocUnsafeSlow(length);
  bytes.copy(copy, 0, 0, length);
  return copy;
}

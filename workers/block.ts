/**
 * Cutting: which messages of a shard's stream make up the next block. Pure; the clock is the caller's.
 *
 * A message's payload is a sequence of length-delimited StoredBatch. Only their metadata is looked at: the gateway writes
 * it first and the events last, so the scan of a batch ends at the first event (~0.2 µs a batch, whatever its size).
 */

import type { Slab } from './slabs.js';

/** A message of a shard's stream. */
export interface LogMessage {
  /** Stream sequence. Stays far below 2^53. */
  readonly sequence: number;
  /** JetStream's timestamp, ms since the epoch. */
  readonly timeMs: number;
  readonly data: Uint8Array;
  /** The memory that the data are a window on, which is used again once the message is let go. */
  readonly slab?: Slab | undefined;
}

/** Why a block was cut where it ends. */
export type FlushReason = 'rows' | 'bytes' | 'delay' | 'drain';

/** Messages that are stored by one INSERT. */
export interface Block {
  /** Sequences of the first and the last message. */
  readonly lo: number;
  readonly hi: number;
  /** UTC day of the first message, `YYYY-MM-DD`: the partition. A block that spans midnight keeps its first day. */
  readonly day: string;
  readonly rows: number;
  readonly batches: number;
  readonly bytes: number;
  readonly messages: readonly Uint8Array[];
  readonly reason: FlushReason;
  /** JetStream's times of the first and the last message, ms. */
  readonly firstTimeMs: number;
  readonly lastTimeMs: number;
  /** Trace contexts (W3C traceparent) of the sampled batches inside; at most {@link maxLinks}. */
  readonly traces: readonly string[];
}

export interface BlockLimits {
  /** Most rows; one message that alone has more is a block of its own. */
  readonly rows: number;
  /** Most bytes of payload; the same holds. */
  readonly bytes: number;
  /** Age at which a block is cut, in ms since its first message was at hand. */
  readonly delayMs: number;
}

/** Links of a block's span. */
export const maxLinks = 64;

const isOddHex = (char: number): boolean => ((char > 0x39 ? char - 0x57 : char) & 1) === 1;

interface Content {
  rows: number;
  batches: number;
}

const newContent = (): Content => ({ rows: 0, batches: 0 });

/** `2026-11-21`. */
export const utcDay = (timeMs: number): string => new Date(timeMs).toISOString().slice(0, 10);

/**
 * Adds up what a payload holds. Bytes that are not StoredBatches count as one row: they must not pass for an empty
 * message, which nobody would ever look at again; the warehouse will say what is wrong with them.
 */
function countPayload(data: Uint8Array, into: Content, traces: string[]): void {
  const end = data.length;
  let at = 0;
  let bad = false;
  let value = 0;
  const varint = (limit: number): void => {
    value = 0;
    let factor = 1;
    for (let i = 0; i < 10; i++) {
      if (at >= limit) break;
      const byte = data[at++]!;
      value += (byte & 0x7f) * factor;
      if (byte < 0x80) return;
      factor *= 128;
    }
    bad = true;
  };
  while (at < end) {
    varint(end);
    const stop = at + value;
    if (bad || stop > end) {
      into.rows += 1;
      return;
    }
    let count = 0;
    let events = false;
    while (at < stop && !bad) {
      varint(stop);
      const field = Math.floor(value / 8);
      const wire = value % 8;
      if (field === 1) {
        events = true;
        break;
      }
      if (wire === 0) {
        varint(stop);
        if (field === 7) count = value;
      } else if (wire === 2) {
        varint(stop);
        const from = at;
        at += value;
        if (at > stop) bad = true;
        // 00-<trace id>-<span id>-<flags>: the last hex digit is odd when the caller sampled the trace.
        else if (field === 11 && value === 55 && traces.length < maxLinks && isOddHex(data[at - 1]!)) {
          traces.push(Buffer.from(data.buffer, data.byteOffset + from, value).toString('latin1'));
        }
      } else if (wire === 1) at += 8;
      else if (wire === 5) at += 4;
      else bad = true;
    }
    into.rows += bad || (events && count === 0) ? 1 : events ? count : 0;
    into.batches += 1;
    bad = false;
    at = stop;
  }
}

export interface Cutter {
  /** Whether the block would stay within its limits; the first rows always fit. */
  add(message: LogMessage, nowMs: number): boolean;
  /** Messages taken so far, with or without rows. */
  readonly size: number;
  /** Whether a cut would store something. */
  readonly worthy: boolean;
  /** When the block is due by age, on the clock of `add`; Infinity while it holds nothing to store. */
  readonly dueMs: number;
  /** Why it should be cut now whatever comes next. */
  full(): 'rows' | 'bytes' | undefined;
  /** The block; only when {@link worthy}. */
  cut(reason: FlushReason): Block;
}

/** Collects one block. `add` answers false when the message belongs to the next one, and `full` then says why. */
export function startBlock(limits: BlockLimits): Cutter {
  const messages: Uint8Array[] = [];
  const traces: string[] = [];
  const content = newContent();
  let first: LogMessage | undefined;
  let last: LogMessage | undefined;
  let bytes = 0;
  let dueMs = Number.POSITIVE_INFINITY;
  let refused: 'rows' | 'bytes' | undefined;
  return {
    add(message, nowMs) {
      const more = newContent();
      const links: string[] = [];
      countPayload(message.data, more, links);
      if (content.rows > 0 && content.rows + more.rows > limits.rows) {
        refused = 'rows';
        return false;
      }
      if (content.rows > 0 && bytes + message.data.length > limits.bytes) {
        refused = 'bytes';
        return false;
      }
      first ??= message;
      last = message;
      messages.push(message.data);
      bytes += message.data.length;
      content.rows += more.rows;
      content.batches += more.batches;
      for (const link of links) if (traces.length < maxLinks) traces.push(link);
      if (content.rows > 0 && dueMs === Number.POSITIVE_INFINITY) dueMs = nowMs + limits.delayMs;
      return true;
    },
    get size() {
      return messages.length;
    },
    get worthy() {
      return content.rows > 0;
    },
    get dueMs() {
      return dueMs;
    },
    full() {
      if (refused !== undefined) return refused;
      if (content.rows >= limits.rows) return 'rows';
      return content.rows > 0 && bytes >= limits.bytes ? 'bytes' : undefined;
    },
    cut(reason) {
      if (first === undefined || last === undefined || content.rows === 0) {
        throw new Error('a block without rows is not written');
      }
      return {
        lo: first.sequence,
        hi: last.sequence,
        day: utcDay(first.timeMs),
        rows: content.rows,
        batches: content.batches,
        bytes,
        messages,
        reason,
        firstTimeMs: first.timeMs,
        lastTimeMs: last.timeMs,
        traces,
      };
    },
  };
}

/**
 * Cutting: which messages of a shard's stream make up the next block. Pure; the clock is the caller's.
 *
 * A message's payload is a sequence of length-delimited StoredBatch. The worker reads only their metadata: the gateway writes it first
 * and the events last, so the scan of a batch ends at the first event (~0.2 µs a batch, whatever its size).
 */

import { utcDay } from '../../lib/timestamp.js';
import { hourMs } from '../../lib/units.js';
import type { LogMessage } from '../reader/log-message.js';

/** Why a block was cut where it ends. */
export type FlushReason = 'rows' | 'bytes' | 'delay' | 'drain';

/** Messages that are stored by one INSERT. */
export interface Block {
  /** Sequences of the first and the last message. */
  readonly lo: number;
  readonly hi: number;
  /** UTC day of the first message, `YYYY-MM-DD`: the partition. A block that spans midnight keeps its first day. */
  readonly day: string;
  /** Rows to be stored. With 0, only a tombstone can be (loader.ts, LOAD-5). */
  readonly rows: number;
  /** Events that are left out: they are stored already (LOAD-5), or are in the dead letters (LOAD-6). */
  readonly duplicate: number;
  readonly dead: number;
  readonly batches: number;
  /** Of the messages as they are in the stream. */
  readonly bytes: number;
  /** What is to be sent: whole messages, or the parts of them that are left. */
  readonly messages: readonly Uint8Array[];
  /** Of each of `messages`: the sequence that it has, or had, and the place of its first batch in that message. */
  readonly sequences: readonly number[];
  readonly batchIndexes: readonly number[];
  /** Some batch is not of the first attempt: LOAD-5 has to look at it. */
  readonly retried: boolean;
  /** Some message is not a sequence of whole batches: LOAD-6 has to take it out. */
  readonly unframed: boolean;
  /** Some batch has fields that the gateway's contract did not know. */
  readonly unknownFields: boolean;
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

/**
 * Most of the log's time that a block spans, ms: a row lies in the partition of its block's first message, which retention
 * drops by its day.
 */
export const maxSpanMs = hourMs;

/** Links of a block's span. */
export const maxLinks = 64;

const isOddHex = (char: number): boolean => ((char > 0x39 ? char - 0x57 : char) & 1) === 1;

/** What a payload holds, as far as the loader wants to know. */
export interface Content {
  /** Events. Bytes that are no batch count as one, so that they are not taken for an empty message. */
  rows: number;
  batches: number;
  /** Some batch has another attempt than 1. */
  retried: boolean;
  /** Not a sequence of whole StoredBatches. */
  unframed: boolean;
  /** Some batch says so of itself. */
  unknownFields: boolean;
}

const newContent = (): Content => ({
  rows: 0,
  batches: 0,
  retried: false,
  unframed: false,
  unknownFields: false,
});

/**
 * Adds up what a payload holds. Bytes that are not StoredBatches count as one row: they must not pass for an empty
 * message, which no process would ever look at again.
 */
// biome-ignore lint/complexity/noExcessiveCognitiveComplexity: one pass over the bytes of each message
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
      into.unframed = true;
      return;
    }
    let count = 0;
    let attempt = 0;
    let events = 0;
    while (at < stop && !bad) {
      varint(stop);
      const field = Math.floor(value / 8);
      const wire = value % 8;
      if (field === 1) {
        bad = wire !== 2;
        if (bad) break;
        events++;
        // The gateway says before how many there are. Of others, who do not, they are counted.
        if (count > 0) {
          events = count;
          break;
        }
      }
      if (wire === 0) {
        varint(stop);
        if (field === 4) attempt = value;
        else if (field === 7) count = value;
        else if (field === 9 && value !== 0) into.unknownFields = true;
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
    if (bad || at > stop) {
      into.unframed = true;
      into.rows += 1;
    } else into.rows += events;
    if (attempt !== 1) into.retried = true;
    into.batches += 1;
    bad = false;
    at = stop;
  }
}

/** What a message holds, counted as the loader counts it. */
export function contentOf(payload: Uint8Array): Readonly<Content> {
  const content = newContent();
  countPayload(payload, content, []);
  return content;
}

export interface Cutter {
  /** Whether the block would stay within its limits; the first message always fits. */
  add(message: LogMessage, nowMs: number): boolean;
  /** Messages taken so far. */
  readonly size: number;
  /** When the block is due by age, on the clock of `add`; Infinity while it is empty. */
  readonly dueMs: number;
  /** Why it should be cut now whatever comes next. */
  full(): 'rows' | 'bytes' | 'delay' | undefined;
  /** The block; only with a message in it. */
  cut(reason: FlushReason): Block;
}

/** Collects one block. `add` answers false when the message belongs to the next one, and `full` then says why. */
export function createCutter(limits: BlockLimits): Cutter {
  const messages: Uint8Array[] = [];
  const sequences: number[] = [];
  const traces: string[] = [];
  const content = newContent();
  let first: LogMessage | undefined;
  let last: LogMessage | undefined;
  let bytes = 0;
  let dueMs = Number.POSITIVE_INFINITY;
  let refused: 'rows' | 'bytes' | 'delay' | undefined;
  return {
    add(message, nowMs) {
      const more = newContent();
      const links: string[] = [];
      countPayload(message.data, more, links);
      if (first !== undefined && message.timeMs - first.timeMs > maxSpanMs) {
        refused = 'delay';
        return false;
      }
      if (content.rows > 0 && content.rows + more.rows > limits.rows) {
        refused = 'rows';
        return false;
      }
      if (first !== undefined && bytes + message.data.length > limits.bytes) {
        refused = 'bytes';
        return false;
      }
      first ??= message;
      last = message;
      messages.push(message.data);
      sequences.push(message.sequence);
      bytes += message.data.length;
      content.rows += more.rows;
      content.batches += more.batches;
      content.retried ||= more.retried;
      content.unframed ||= more.unframed;
      content.unknownFields ||= more.unknownFields;
      for (const link of links) if (traces.length < maxLinks) traces.push(link);
      if (dueMs === Number.POSITIVE_INFINITY) dueMs = nowMs + limits.delayMs;
      return true;
    },
    get size() {
      return messages.length;
    },
    get dueMs() {
      return dueMs;
    },
    full() {
      if (refused !== undefined) return refused;
      if (content.rows >= limits.rows) return 'rows';
      return bytes >= limits.bytes ? 'bytes' : undefined;
    },
    cut(reason) {
      if (first === undefined || last === undefined) throw new Error('an empty block is not written');
      return {
        lo: first.sequence,
        hi: last.sequence,
        day: utcDay(first.timeMs),
        rows: content.rows,
        duplicate: 0,
        dead: 0,
        batches: content.batches,
        bytes,
        messages,
        sequences,
        batchIndexes: new Array<number>(messages.length).fill(0),
        retried: content.retried,
        unframed: content.unframed,
        unknownFields: content.unknownFields,
        reason,
        firstTimeMs: first.timeMs,
        lastTimeMs: last.timeMs,
        traces,
      };
    },
  };
}

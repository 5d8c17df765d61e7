/**
 * Validates an encoded EventBatch without decoding it. Framing faults refuse the batch, faults inside an event refuse
 * that event; the rest travels on as the very bytes that came. The fast scan passes over what is surely valid, which is
 * nearly all; the compiled scanner looks at the rest.
 */
import { SluiceError } from '../errors.js';
import { compileScanner } from './compile.js';
import { createFastScan } from './fast-scan.js';
import { explain, type Rejection } from './faults.js';
import type { ReadFindings } from './json/index.js';
import { eventRules } from './rules.js';
import { length, varintParts } from './wire.js';

export interface ScanResult {
  /** Valid events. */
  accepted: number;
  /** Invalid events. */
  rejected: number;
  /** Why, for the first 100 of them. One shared empty array when there are none. */
  rejections: Rejection[];
  /** Some accepted event has a field that the contract does not know. */
  unknownFields: boolean;
  /** The encoded EventBatch of the accepted events: the very input when none was rejected. */
  bytes: Uint8Array;
}

export interface ScanLimits {
  /** Most events in a batch, valid or not. */
  readonly maxEvents: number;
}

const maxRejections = 100;
const noRejections: Rejection[] = [];
Object.freeze(noRejections);

const { scan, fault } = compileScanner(eventRules);
const fast = createFastScan(eventRules);

/**
 * @throws SluiceError batch_malformed (with the byte offset), batch_too_large (more than maxEvents), batch_empty.
 */
// biome-ignore lint/complexity/noExcessiveCognitiveComplexity: one pass over the bytes of a batch; a call for each event would cost time
export function scanBatch(batch: Uint8Array, limits: ScanLimits): ScanResult {
  const end = batch.length;
  const { maxEvents } = limits;
  const loaded = fast?.load(batch) ?? false;
  let view: DataView | undefined;
  let count = 0;
  let unknown = 0;
  let p = 0;
  let refused: Refused | undefined;
  while (p < end) {
    if (loaded && fast !== undefined) {
      p = fast.run(p, maxEvents - count);
      count += fast.passed;
      if (p === end) break;
    }
    const at = p;
    if (batch[p++] !== 0x0a) throw badTag(batch, at);
    if (++count > maxEvents) {
      throw new SluiceError('batch_too_large', `the batch has more than ${maxEvents} events`);
    }
    // Events are mostly of 128 to 16383 bytes: lengths of two bytes.
    let size = p < end ? batch[p]! : 0x80;
    if (size < 0x80) {
      p++;
    } else if (p + 1 < end && batch[p + 1]! < 0x80) {
      size = (size & 0x7f) | (batch[p + 1]! << 7);
      p += 2;
    } else {
      p = length(batch, p, end);
      if (p < 0) throw badLength(at);
      size = varintParts[0]!;
    }
    if (size > end - p) throw badLength(at);
    view ??= new DataView(batch.buffer, batch.byteOffset, end);
    const answer = scan(batch, view, p, p + size);
    if (answer < 0) {
      refused ??= new Refused();
      refused.add(batch, count - 1, at, p, p + size);
    } else {
      unknown |= answer;
    }
    p += size;
  }
  if (count === 0) throw new SluiceError('batch_empty', 'the batch has no events');
  if (refused === undefined) {
    return { accepted: count, rejected: 0, rejections: noRejections, unknownFields: unknown !== 0, bytes: batch };
  }
  const rejected = refused.spans.length / 2;
  return {
    accepted: count - rejected,
    rejected,
    rejections: refused.rejections,
    unknownFields: unknown !== 0,
    bytes: refused.removeFrom(batch),
  };
}

/**
 * Scans what reading JSON left of a batch, and joins what both found: counts are those of all events, and indexes are places among all.
 * A batch of which nothing is left is no error.
 * @throws SluiceError as scanBatch
 */
export function scanAfterReading(batch: Uint8Array, limits: ScanLimits, findings: ReadFindings): ScanResult {
  const { refused } = findings;
  if (refused.length === 0) return scanBatch(batch, limits);
  if (batch.length === 0) {
    const rejections = [...findings.rejections];
    return { accepted: 0, rejected: refused.length, rejections, unknownFields: false, bytes: batch };
  }
  const scan = scanBatch(batch, limits);
  return {
    ...scan,
    rejected: scan.rejected + refused.length,
    rejections: joinRejections(scan.rejections, findings).slice(0, maxRejections),
  };
}

/** In the order of the events. */
function joinRejections(scanned: readonly Rejection[], { refused, rejections }: ReadFindings): Rejection[] {
  let before = 0;
  const placed = scanned.map((rejection) => {
    // Each event that was left out before this one moves it one place on.
    while (before < refused.length && (refused[before] as number) <= rejection.index + before) before++;
    return { ...rejection, index: rejection.index + before };
  });
  return [...rejections, ...placed].sort((a, b) => a.index - b.index);
}

/** The refused events of one batch. */
class Refused {
  readonly rejections: Rejection[] = [];
  /** Start (of the tag) and end of each, in turn. */
  readonly spans: number[] = [];

  add(batch: Uint8Array, index: number, at: number, start: number, end: number): void {
    this.spans.push(at, end);
    if (this.rejections.length < maxRejections) this.rejections.push(explain(fault, batch, index, start));
  }

  /** A new buffer with what is left. */
  removeFrom(batch: Uint8Array): Uint8Array {
    let size = batch.length;
    for (let i = 0; i < this.spans.length; i += 2) size -= this.spans[i + 1]! - this.spans[i]!;
    const rest = new Uint8Array(size);
    let from = 0;
    let to = 0;
    for (let i = 0; i <= this.spans.length; i += 2) {
      const until = this.spans[i] ?? batch.length;
      rest.set(batch.subarray(from, until), to);
      to += until - from;
      from = this.spans[i + 1] ?? until;
    }
    return rest;
  }
}

function badTag(batch: Uint8Array, offset: number): SluiceError {
  const byte = batch[offset]!.toString(16).padStart(2, '0');
  return new SluiceError(
    'batch_malformed',
    `byte ${offset} is 0x${byte}; an EventBatch holds events only (tag 0x0a) at this place`,
    { offset },
  );
}

function badLength(offset: number): SluiceError {
  return new SluiceError(
    'batch_malformed',
    `the event at byte ${offset} has a malformed length or runs past the end of the batch`,
    { offset },
  );
}

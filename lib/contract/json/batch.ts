/**
 * The events of a request from JSON to an encoded EventBatch. It leaves out and reports an event that it cannot read, and reads the
 * others. It counts events while it reads, so it refuses early a small text that would become very many.
 */
import { SluiceError } from '../../errors.js';
import { KiB } from '../../units.js';
import type { Rejection } from '../faults.js';
import { eventRules } from '../rules.js';
import { EventReader } from './event.js';
import { FieldFault } from './fault.js';
import { WireOutput } from './output.js';
import { planOf } from './plan.js';
import type { JsonText } from './text.js';

export interface ReadLimits {
  /** Most events, whether they can be read or not. */
  readonly maxEvents: number;
  /** Most bytes of the encoded batch. */
  readonly maxBytes: number;
  /** Fields that the contract does not know are left out and told, instead of refusing their event. */
  readonly ignoreUnknownFields: boolean;
}

/** What was found wrong before the scan, which sees the other events only. */
export interface ReadFindings {
  /** Places of the events that were left out, from 0, ascending. */
  readonly refused: readonly number[];
  /** Why, for the first 100 of them. */
  readonly rejections: readonly Rejection[];
  /** Paths of the fields that were ignored, each once, at most 100. */
  readonly ignoredFields: readonly string[];
}

export interface ReadBatch {
  /** Encoded EventBatch of the events that could be read. */
  readonly bytes: Uint8Array;
  /** Undefined when there is nothing to tell. */
  readonly findings: ReadFindings | undefined;
}

const maxTold = 100;
const eventPlan = planOf(eventRules);

/** Text that is read between two pauses, unless one event is longer: 4 to 8 ms. Bytes. */
const sliceBytes = 256 * KiB;

/**
 * Reads the array of events at the text's position. Pauses (yields) after each slice of the text.
 * @throws SluiceError json_invalid, batch_too_large; FieldFault when it is no array
 */
export function* readEvents(text: JsonText, limits: ReadLimits): Generator<void, ReadBatch> {
  const batch = new BatchReader(text, limits);
  if (text.openArray()) {
    let from = text.p;
    do {
      batch.event();
      if (text.p - from < sliceBytes) continue;
      batch.pause();
      yield;
      from = text.p;
    } while (text.moreItems());
  }
  return batch.done();
}

/** Reads the one event at the text's position. @throws SluiceError json_invalid, batch_too_large */
export function readEvent(text: JsonText, limits: ReadLimits): ReadBatch {
  const batch = new BatchReader(text, limits);
  batch.event();
  return batch.done();
}

class BatchReader {
  private readonly out = new WireOutput();
  private readonly reader: EventReader;
  private readonly refused: number[] = [];
  private readonly rejections: Rejection[] = [];
  private count = 0;

  constructor(
    private readonly text: JsonText,
    private readonly limits: ReadLimits,
  ) {
    this.reader = new EventReader(text, this.out, limits.ignoreUnknownFields);
  }

  event(): void {
    const { text, out, limits } = this;
    if (this.count === limits.maxEvents) {
      throw new SluiceError('batch_too_large', `The batch has more than ${limits.maxEvents} events.`);
    }
    text.next();
    const start = text.p;
    const before = out.q;
    let fault = this.tryEvent();
    while (out.overflowed) {
      out.grow(out.q * 2, before);
      out.q = before;
      text.p = start;
      fault = this.tryEvent();
    }
    if (fault === undefined) this.reader.keepIgnored();
    else {
      this.refused.push(this.count);
      if (this.rejections.length < maxTold) {
        this.rejections.push({ index: this.count, field: fault.path, code: fault.code, message: fault.message });
      }
      out.q = before;
      text.p = start;
      text.skip(false);
    }
    this.count++;
    if (out.q > limits.maxBytes) {
      throw new SluiceError('batch_too_large', `The batch has more than ${limits.maxBytes} bytes as Protobuf.`);
    }
  }

  private tryEvent(): FieldFault | undefined {
    const { out } = this;
    this.reader.restart();
    out.byte(0x0a);
    const at = out.open();
    try {
      this.reader.message(eventPlan);
    } catch (reason) {
      if (reason instanceof FieldFault) return reason;
      throw reason;
    }
    out.close(at);
    return undefined;
  }

  pause(): void {
    this.out.pause();
  }

  done(): ReadBatch {
    const { refused, rejections } = this;
    const bytes = this.out.done();
    const ignoredFields = this.reader.told();
    if (refused.length === 0 && ignoredFields.length === 0) return { bytes, findings: undefined };
    return { bytes, findings: { refused, rejections, ignoredFields } };
  }
}

/**
 * Reads PublishStream's answers out of gRPC's frames: only what the generator needs, without a Protobuf library, as
 * the generator's own cost must stay small beside the gateway's. Answers of unary calls: unary-methods.ts.
 */
import { type BatchName, parseBatchId } from './payload.js';

export type Answer =
  | { readonly kind: 'accepted'; readonly name: BatchName; readonly accepted: number; readonly rejected: number }
  | {
      readonly kind: 'failed';
      readonly name: BatchName;
      readonly code: number;
      readonly message: string;
      /** Ms; undefined when a retry would not help. */
      readonly retryAfterMs: number | undefined;
    }
  | { readonly kind: 'draining' }
  | { readonly kind: 'other' };

/** Cuts a byte stream into the messages of 5-byte framed gRPC. */
export class FrameReader {
  private rest: Buffer = Buffer.alloc(0);

  /** @throws Error on a compressed frame, which was not asked for, or a frame above 1 MiB, which no answer is */
  push(chunk: Buffer, message: (bytes: Buffer) => void): void {
    const bytes = this.rest.length === 0 ? chunk : Buffer.concat([this.rest, chunk]);
    let at = 0;
    while (bytes.length - at >= 5) {
      const length = bytes.readUInt32BE(at + 1);
      if (bytes[at] !== 0 || length > 1024 * 1024) throw new Error('not an answer of PublishStream');
      if (bytes.length - at - 5 < length) break;
      message(bytes.subarray(at + 5, at + 5 + length));
      at += 5 + length;
    }
    this.rest = bytes.subarray(at);
  }
}

/** Walks the fields of a message: number, start and end of a length-delimited value or the value of a varint. */
export class Fields {
  field = 0;
  value = 0;
  start = 0;
  end = 0;
  private at: number;

  constructor(
    private readonly bytes: Uint8Array,
    from: number,
    private readonly to: number,
  ) {
    this.at = from;
  }

  next(): boolean {
    if (this.at >= this.to) return false;
    const tag = this.varint();
    this.field = tag >>> 3;
    switch (tag & 7) {
      case 0:
        this.value = this.varint();
        return true;
      case 2: {
        const length = this.varint();
        this.start = this.at;
        this.at += length;
        this.end = this.at;
        if (this.at > this.to) throw new Error('truncated answer');
        return true;
      }
      default:
        throw new Error(`wire type ${tag & 7} in an answer`);
    }
  }

  /** Exact up to 2^53. */
  private varint(): number {
    let value = 0;
    let factor = 1;
    for (;;) {
      const byte = this.bytes[this.at++];
      if (byte === undefined) throw new Error('truncated answer');
      value += (byte & 127) * factor;
      if (byte < 128) return value;
      factor *= 128;
    }
  }
}

const nobody: BatchName = { run: 0, slot: -1, number: -1 };

/** Reads one PublishStreamResponse. */
export function readAnswer(bytes: Buffer): Answer {
  const outer = new Fields(bytes, 0, bytes.length);
  if (!outer.next()) return { kind: 'other' };
  if (outer.field === 1) {
    const result = new Fields(bytes, outer.start, outer.end);
    let name = nobody;
    let accepted = 0;
    let rejected = 0;
    while (result.next()) {
      if (result.field === 1) name = parseBatchId(bytes, result.start, result.end - result.start) ?? nobody;
      else if (result.field === 2) accepted = result.value;
      else if (result.field === 3) rejected = result.value;
    }
    return { kind: 'accepted', name, accepted, rejected };
  }
  if (outer.field === 2) {
    const failure = new Fields(bytes, outer.start, outer.end);
    let name = nobody;
    let code = 0;
    let message = '';
    let retryAfterMs: number | undefined;
    while (failure.next()) {
      if (failure.field === 1) name = parseBatchId(bytes, failure.start, failure.end - failure.start) ?? nobody;
      else if (failure.field === 2) code = failure.value;
      else if (failure.field === 3) message = bytes.toString('utf8', failure.start, failure.end);
      else if (failure.field === 4) {
        retryAfterMs = 0;
        const duration = new Fields(bytes, failure.start, failure.end);
        while (duration.next()) retryAfterMs += duration.field === 1 ? duration.value * 1000 : duration.value / 1e6;
      }
    }
    return { kind: 'failed', name, code, message, retryAfterMs };
  }
  return { kind: outer.field === 4 ? 'draining' : 'other' };
}

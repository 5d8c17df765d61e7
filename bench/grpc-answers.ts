/**
 * Reads PublishStream's answers out of gRPC's frames: only what the generator needs, without a Protobuf library, as
 * the generator's own cost must stay small beside the gateway's. Answers of unary calls: unary-methods.ts.
 */
import { MiB } from '../lib/units.js';
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
      if (bytes[at] !== 0 || length > MiB) throw new Error('not an answer of PublishStream');
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

const noName: BatchName = { run: 0, slot: -1, number: -1 };

/** Reads one PublishStreamResponse; a PublishResponse has its BatchResult where a stream's answer has `accepted`. */
export function readAnswer(bytes: Buffer): Answer {
  const outer = new Fields(bytes, 0, bytes.length);
  if (!outer.next()) return { kind: 'other' };
  if (outer.field === 1) return readAccepted(bytes, outer);
  if (outer.field === 2) return readFailed(bytes, outer);
  return { kind: outer.field === 4 ? 'draining' : 'other' };
}

function readAccepted(bytes: Buffer, { start, end }: Fields): Answer {
  const answer = { kind: 'accepted' as const, name: noName, accepted: 0, rejected: 0 };
  const fields = new Fields(bytes, start, end);
  while (fields.next()) {
    if (fields.field === 1) answer.name = nameIn(bytes, fields);
    else if (fields.field === 2) answer.accepted = fields.value;
    else if (fields.field === 3) answer.rejected = fields.value;
  }
  return answer;
}

function readFailed(bytes: Buffer, { start, end }: Fields): Answer {
  const answer = { kind: 'failed' as const, name: noName, code: 0, message: '', retryAfterMs: undefined };
  let retryAfterMs: number | undefined;
  const fields = new Fields(bytes, start, end);
  while (fields.next()) {
    if (fields.field === 1) answer.name = nameIn(bytes, fields);
    else if (fields.field === 2) answer.code = fields.value;
    else if (fields.field === 3) answer.message = bytes.toString('utf8', fields.start, fields.end);
    else if (fields.field === 4) retryAfterMs = readDuration(bytes, fields);
  }
  return { ...answer, retryAfterMs };
}

const nameIn = (bytes: Buffer, { start, end }: Fields): BatchName => parseBatchId(bytes, start, end - start) ?? noName;

/** Ms of a google.protobuf.Duration. */
function readDuration(bytes: Buffer, { start, end }: Fields): number {
  let ms = 0;
  const fields = new Fields(bytes, start, end);
  while (fields.next()) ms += fields.field === 1 ? fields.value * 1000 : fields.value / 1e6;
  return ms;
}

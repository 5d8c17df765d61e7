/**
 * Encodes answers. Code here writes the plain answer, "accepted", into a shared buffer (0.2 µs against 3 µs for the library's encoder).
 * The library encodes all others.
 */
import { create, toBinary } from '@bufbuild/protobuf';
import { PublishResponseSchema, PublishStreamResponseSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { KiB } from '../../../lib/units.js';
import type { IngestResult } from '../../ingest/ingest.js';
import { toBatchResult } from '../publish-batch.js';
import { type Answer, toMessage } from '../stream-outbox.js';

export const envelopeSize = 5;
/** What a plain answer takes at most, with its envelope: two texts of 64 bytes, and numbers. */
const plainSize = 256;
const slabSize = 64 * KiB;

let slab = Buffer.allocUnsafeSlow(slabSize);
let used = 0;

/** Room for `size` bytes; what is not used stays for the next one. */
function reserve(size: number): void {
  if (slabSize - used >= size) return;
  // Others may still look at the old one.
  slab = Buffer.allocUnsafeSlow(slabSize);
  used = 0;
}

const isPlain = ({ batchId, rejections, position, ignoredFields }: IngestResult): boolean =>
  rejections.length === 0 &&
  ignoredFields === undefined &&
  batchId.length <= 64 &&
  (position === undefined || (position.stream.length <= 64 && position.sequence <= Number.MAX_SAFE_INTEGER));

function putVarint(at: number, value: number): number {
  let p = at;
  let rest = value;
  while (rest >= 0x80) {
    slab[p++] = (rest % 128) | 0x80;
    rest = Math.floor(rest / 128);
  }
  slab[p++] = rest;
  return p;
}

function putText(at: number, tag: number, text: string): number {
  if (text === '') return at;
  slab[at] = tag;
  slab[at + 1] = text.length;
  let p = at + 2;
  for (let i = 0; i < text.length; i++) slab[p++] = text.charCodeAt(i);
  return p;
}

function putUint(at: number, tag: number, value: number): number {
  if (value === 0) return at;
  slab[at] = tag;
  return putVarint(at + 1, value);
}

/** `BatchResult` as field 1 of a message. Ids and stream names are ASCII by their syntax (ingest.ts, log-streams.ts). */
function putResult(start: number, { batchId, accepted, rejected, position }: IngestResult): number {
  // A plain result is at most 200 bytes long, a position at most 127: lengths of two bytes and of one.
  const from = start + 3;
  let at = putText(from, 0x0a, batchId);
  at = putUint(at, 0x10, accepted);
  at = putUint(at, 0x18, rejected);
  if (position !== undefined) {
    slab[at] = 0x2a;
    let end = putText(at + 2, 0x0a, position.stream);
    end = putUint(end, 0x10, position.shard);
    end = putUint(end, 0x18, Number(position.sequence));
    slab[at + 1] = end - at - 2;
    at = end;
  }
  const size = at - from;
  slab[start] = 0x0a;
  if (size >= 0x80) {
    slab[start + 1] = (size & 0x7f) | 0x80;
    slab[start + 2] = size >> 7;
    return at;
  }
  slab[start + 1] = size;
  slab.copyWithin(start + 2, from, at);
  return at - 1;
}

function putEnvelope(at: number, size: number): void {
  slab[at] = 0;
  slab.writeUInt32BE(size, at + 1);
}

/** A PublishResponse, with its envelope in front when there is to be one. */
export function encodeResponse(result: IngestResult, enveloped: boolean): Buffer {
  const before = enveloped ? envelopeSize : 0;
  if (!isPlain(result)) {
    const bytes = toBinary(PublishResponseSchema, create(PublishResponseSchema, { result: toBatchResult(result) }));
    return enveloped ? envelope(0, bytes) : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  }
  reserve(plainSize);
  const start = used;
  used = putResult(start + before, result);
  if (enveloped) putEnvelope(start, used - start - before);
  return slab.subarray(start, used);
}

/**
 * The next answers of a stream, each in its envelope, as one piece of bytes: until there is no more, or enough for one write.
 * Empty: there was none.
 */
export function encodeAnswers(answers: { next(): Answer | undefined }): Buffer {
  const pieces: Buffer[] = [];
  let start = used;
  let size = 0;
  const endPiece = (): void => {
    if (used > start) pieces.push(slab.subarray(start, used));
    size += used - start;
  };
  while (size + used - start < slabSize) {
    const answer = answers.next();
    if (answer === undefined) break;
    if (answer.case === 'accepted' && isPlain(answer.value)) {
      if (slabSize - used < plainSize) {
        endPiece();
        reserve(plainSize);
        start = used;
      }
      const at = used;
      used = putResult(at + envelopeSize, answer.value);
      putEnvelope(at, used - at - envelopeSize);
    } else {
      endPiece();
      start = used;
      const bytes = envelope(0, toBinary(PublishStreamResponseSchema, toMessage(answer)));
      size += bytes.length;
      pieces.push(bytes);
    }
  }
  endPiece();
  return pieces.length === 1 ? (pieces[0] as Buffer) : Buffer.concat(pieces);
}

export function envelope(flags: number, bytes: Uint8Array): Buffer {
  const all = Buffer.allocUnsafe(envelopeSize + bytes.length);
  all[0] = flags;
  all.writeUInt32BE(bytes.length, 1);
  all.set(bytes, envelopeSize);
  return all;
}

/**
 * StoredBatch framing: varint length ++ metadata (fields 2 to 14) ++ the client's event bytes, unchanged.
 *
 * Protobuf lets two encodings of a message be joined, so the events need no decoding; that is safe only because the
 * scanner has proved that they hold nothing but field 1 (docs/facts.md, FACT-1). Written by hand, because a generated
 * encoder would want the events as objects. Costs about 0.5 µs a batch and one copy of the events
 * (bench/ingest-core.ts).
 */
import { heldBuffer } from '../held/held-bytes.js';

/** What a stored batch says, and the bytes of its events. */
export interface StoredBatchParts {
  /** ASCII, as the tenant directory issues it. */
  readonly tenant: string;
  /** ASCII, at most 64 bytes: validated before. */
  readonly batchId: string;
  readonly attempt: number;
  /** Gateway's clock, ms since 1970. */
  readonly receivedAt: number;
  readonly sentAt: { seconds: bigint; nanos: number } | undefined;
  readonly eventCount: number;
  readonly rejectedCount: number;
  readonly unknownFields: boolean;
  /** ASCII. */
  readonly contract: string;
  readonly traceparent: string | undefined;
  readonly client: string | undefined;
  readonly clientAddress: Uint8Array | undefined;
  readonly userAgent: string | undefined;
  /** Encoded EventBatch: only field 1. */
  readonly events: Uint8Array;
}

/** A batch whose size is known and whose bytes are written later, straight into the message that carries it. */
export interface FramedBatch {
  /** Bytes with the length prefix. */
  readonly size: number;
  /** Writes exactly `size` bytes at `offset`; returns the end. */
  write(target: Uint8Array, offset: number): number;
}

/** Most bytes that framing and metadata add to a batch: the texts that clients choose are truncated or dropped to fit. */
export const maxMetadataBytes = 1024;

const maxClientBytes = 64;
const maxUserAgentBytes = 512;
const traceparentPattern = /^[\da-f]{2}-[\da-f]{32}-[\da-f]{16}-[\da-f]{2}$/;
/** The range of google.protobuf.Timestamp, in seconds. */
const minSeconds = -62_135_596_800;
const maxSeconds = 253_402_300_799;

const encoder = new TextEncoder();

/** Prepares a batch for the log. Metadata is encoded now (it is small), the events are copied once, in `write`. */
export function frameBatch(parts: StoredBatchParts): FramedBatch {
  const meta = scratch;
  let at = putAscii(meta, 0, 0x12, parts.tenant);
  at = putAscii(meta, at, 0x1a, parts.batchId);
  at = putUint(meta, at, 0x20, parts.attempt);
  const seconds = Math.floor(parts.receivedAt / 1000);
  at = putTimestamp(meta, at, 0x2a, seconds, Math.round((parts.receivedAt - seconds * 1000) * 1e6));
  if (parts.sentAt !== undefined) {
    const sent = Number(parts.sentAt.seconds);
    // A clock that names no date is left out: it must not make ClickHouse choke on the whole block.
    if (sent >= minSeconds && sent <= maxSeconds && parts.sentAt.nanos >= 0 && parts.sentAt.nanos < 1e9) {
      at = putTimestamp(meta, at, 0x32, sent, parts.sentAt.nanos);
    }
  }
  at = putUint(meta, at, 0x38, parts.eventCount);
  at = putUint(meta, at, 0x40, parts.rejectedCount);
  at = putUint(meta, at, 0x48, parts.unknownFields ? 1 : 0);
  at = putAscii(meta, at, 0x52, parts.contract);
  if (parts.traceparent !== undefined && traceparentPattern.test(parts.traceparent)) {
    at = putAscii(meta, at, 0x5a, parts.traceparent);
  }
  if (parts.client !== undefined) at = putText(meta, at, 0x62, parts.client, maxClientBytes);
  const address = parts.clientAddress;
  if (address !== undefined && (address.length === 4 || address.length === 16)) {
    meta[at++] = 0x6a;
    meta[at++] = address.length;
    meta.set(address, at);
    at += address.length;
  }
  if (parts.userAgent !== undefined) at = putText(meta, at, 0x72, parts.userAgent, maxUserAgentBytes);

  const { events } = parts;
  const metaSize = at;
  const body = metaSize + events.length;
  const head = heldBuffer(varintSize(body) + metaSize);
  head.set(meta.subarray(0, metaSize), putVarint(head, 0, body));
  return {
    size: head.length + events.length,
    write(target, offset) {
      target.set(head, offset);
      target.set(events, offset + head.length);
      return offset + head.length + events.length;
    },
  };
}

// One scratch for all: frameBatch is synchronous and copies the result out. The ids and the contract's revision are
// bounded by their syntax, so this cannot overflow.
const scratch = new Uint8Array(maxMetadataBytes);
const textScratch = new Uint8Array(maxUserAgentBytes);

function varintSize(value: number): number {
  let size = 1;
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 128)) size++;
  return size;
}

/** Any whole number from 0 to 2^53. Shifts would keep 32 bits only. */
function putVarint(target: Uint8Array, offset: number, value: number): number {
  let at = offset;
  let rest = value;
  while (rest >= 0x80) {
    target[at++] = (rest % 128) | 0x80;
    rest = Math.floor(rest / 128);
  }
  target[at++] = rest;
  return at;
}

/** proto3: 0 is not written. */
function putUint(target: Uint8Array, offset: number, tag: number, value: number): number {
  if (value === 0) return offset;
  target[offset] = tag;
  return putVarint(target, offset + 1, value);
}

/** A loop beats `Buffer.write` for texts of this length: no call into C++. */
function putAscii(target: Uint8Array, offset: number, tag: number, text: string): number {
  if (text === '') return offset;
  target[offset] = tag;
  let at = putVarint(target, offset + 1, text.length);
  for (let i = 0; i < text.length; i++) target[at++] = text.charCodeAt(i);
  return at;
}

/** At most `maxBytes` of a text that a client chose. */
function putText(target: Uint8Array, offset: number, tag: number, text: string, maxBytes: number): number {
  if (text.length <= maxBytes && isAscii(text)) return putAscii(target, offset, tag, text);
  // encodeInto stops before a character that does not fit, so a truncated text stays valid UTF-8.
  const { written } = encoder.encodeInto(text, textScratch.subarray(0, maxBytes));
  if (written === 0) return offset;
  target[offset] = tag;
  const at = putVarint(target, offset + 1, written);
  target.set(textScratch.subarray(0, written), at);
  return at + written;
}

function isAscii(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    if (text.charCodeAt(i) > 0x7f) return false;
  }
  return true;
}

function putTimestamp(target: Uint8Array, offset: number, tag: number, seconds: number, nanos: number): number {
  target[offset] = tag;
  let at = offset + 2;
  if (seconds > 0) {
    target[at++] = 0x08;
    at = putVarint(target, at, seconds);
  } else if (seconds < 0) {
    // int64 writes a negative number as its 64-bit two's complement: always ten bytes.
    target[at++] = 0x08;
    let rest = BigInt.asUintN(64, BigInt(seconds));
    while (rest >= 0x80n) {
      target[at++] = Number(rest & 0x7fn) | 0x80;
      rest >>= 7n;
    }
    target[at++] = Number(rest);
  }
  at = putUint(target, at, 0x10, nanos);
  target[offset + 1] = at - offset - 2;
  return at;
}

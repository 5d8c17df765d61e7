/**
 * What the load generator sends: messages encoded once, in which each send changes a few digits in place. Encoding
 * each batch afresh would cost the generator more than the gateway's whole work and would measure the wrong process.
 *
 * A prepared message serves one of three targets: a PublishStreamRequest in a gRPC frame (the gateway; a PublishRequest
 * has the same bytes), the same without a frame (Connect), or a length-delimited StoredBatch as the gateway writes it
 * (JetStream itself, for the ceiling).
 */
import { create, toBinary } from '@bufbuild/protobuf';
import type { EventBatch } from '#gen/sluice/event/v1/event_pb.js';
import { PublishStreamRequestSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { StoredBatchSchema } from '#gen/sluice/log/v1/log_pb.js';
import { createRandom, encodeBatch, makeBatch, type Random } from '../lib/testing/batches.js';

/** `connect`: the message alone; `gateway`: in a frame of gRPC, for streams and unary calls alike; `log`: as stored;
 * `json`: the body of a request; `otlp`: an Export of logs in a frame of gRPC (both compare/payloads.ts). */
export type PayloadTarget = 'gateway' | 'connect' | 'log' | 'json' | 'otlp';

/** One message that can be sent again and again, each time as another batch of other events. */
export interface Prepared {
  readonly target: PayloadTarget;
  /** The whole message, ready to be written. */
  readonly bytes: Buffer;
  /** The same bytes, for writing four at once. */
  readonly view: DataView;
  /** Where the encoded EventBatch lies in `bytes`. */
  readonly batch: { readonly start: number; readonly end: number };
  readonly events: number;
  /** Where each event_id's text starts. */
  readonly idOffsets: Uint32Array;
  /** Keeps the patched digits of different events of a batch apart. */
  readonly salts: Uint32Array;
  readonly batchIdOffset: number;
  readonly attemptOffset: number;
  /** Where `sent_at.seconds` lies: a varint of five bytes until the year 3058. */
  readonly secondsOffset: number;
}

export interface PrepareOptions {
  readonly target: Exclude<PayloadTarget, 'json' | 'otlp'>;
  /** Events of a batch. */
  readonly events: number;
  /** Generators with different seeds never make the same event_id. */
  readonly seed: number;
  readonly tenant: string;
  /** Makes the batch. @default realistic events of all types */
  readonly batch?: (random: Random) => EventBatch;
}

const idLength = 36;
const batchIdLength = 24;
export const batchIdBlank = 'b-00000000-0000-00000000';
/** Largest attempt that stays one byte. */
const maxAttempt = 127;
/** Four hex digits of 16 bits, as the 32 bits of their text: 256 KiB, which stay in the cache of a core. */
const hexQuads = Uint32Array.from({ length: 65_536 }, (_, value) =>
  Buffer.from(value.toString(16).padStart(4, '0'), 'latin1').readUInt32LE(),
);

/** @throws Error when the encoder's layout is not the one that patching relies on */
export function prepare(options: PrepareOptions): Prepared {
  const random = createRandom(options.seed);
  const batch = Buffer.from(encodeBatch(options.batch?.(random) ?? makeBatch(random, options.events)));
  const idOffsets = eventIdOffsets(batch, options.events);
  const sentAt = { seconds: BigInt(Math.floor(Date.now() / 1000)), nanos: 0 };
  let bytes: Buffer;
  let start: number;
  if (options.target !== 'log') {
    // Fields in number order, as every generated client writes them: the batch first.
    const head = Buffer.from([0x0a, ...varint(batch.length)]);
    const tail = toBinary(
      PublishStreamRequestSchema,
      create(PublishStreamRequestSchema, { batchId: batchIdBlank, attempt: 1, sentAt }),
    );
    const length = head.length + batch.length + tail.length;
    const frame = Buffer.alloc(options.target === 'gateway' ? 5 : 0);
    if (frame.length > 0) frame.writeUInt32BE(length, 1);
    bytes = Buffer.concat([frame, head, batch, tail]);
    start = frame.length + head.length;
  } else {
    const metadata = toBinary(
      StoredBatchSchema,
      create(StoredBatchSchema, {
        tenant: options.tenant,
        batchId: batchIdBlank,
        attempt: 1,
        receivedAt: sentAt,
        sentAt,
        eventCount: options.events,
        contract: '0123456789abcdef',
        client: 'bench/0.1.0',
      }),
    );
    const head = Buffer.from(varint(metadata.length + batch.length));
    bytes = Buffer.concat([head, metadata, batch]);
    start = head.length + metadata.length;
  }
  const batchIdOffset = bytes.indexOf(batchIdBlank);
  const attemptOffset = batchIdOffset + batchIdLength + 1;
  // sent_at in the request follows the attempt: tag, length, tag of seconds.
  const secondsOffset = options.target === 'log' ? -1 : attemptOffset + 4;
  if (batchIdOffset < 0 || bytes[attemptOffset] !== 1 || (secondsOffset >= 0 && bytes[secondsOffset - 1] !== 0x08)) {
    throw new Error('the encoder laid the message out in another way than bench/payload.ts expects');
  }
  const salts = drawSalts(random, options.events);
  return {
    target: options.target,
    bytes,
    view: viewOf(bytes),
    batch: { start, end: start + batch.length },
    events: options.events,
    idOffsets: idOffsets.map((offset) => offset + start),
    salts,
    batchIdOffset,
    attemptOffset,
    secondsOffset,
  };
}

/** A number of 32 bits for each event, by which the digits of two events of one send differ. */
export function drawSalts(random: Random, events: number): Uint32Array {
  return Uint32Array.from({ length: events }, () => (random() * 2 ** 32) >>> 0);
}

/** A message of its own bytes: what is in flight must not be changed by the next send. */
export function copyOf(prepared: Prepared): Prepared {
  const bytes = Buffer.from(prepared.bytes);
  return { ...prepared, bytes, view: viewOf(bytes) };
}

export const viewOf = (bytes: Buffer): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.length);

export interface BatchName {
  /** 32 bits that name the generator's run. */
  readonly run: number;
  /** Below 65,536: where the generator keeps what it knows about the batch. */
  readonly slot: number;
  /** 32 bits, never used twice in a run. */
  readonly number: number;
}

/**
 * Turns the message into batch `name`: a new batch_id, attempt 1, and new event_ids. Costs about 15 ns an event
 * (`npm run bench -- ceiling`, the load's share).
 *
 * 24 of an id's 32 digits change, so that ids stay as hard to compress as real ones. For one event of the message
 * the first mix is a bijection of the number; events with the same first digits differ in the last ones, as their salts
 * differ, and in the digits that stay: no id comes twice.
 */
export function patch(prepared: Prepared, name: BatchName, nowMs: number): void {
  const { view, idOffsets, salts } = prepared;
  for (let i = 0; i < idOffsets.length; i++) {
    const salt = salts[i]!;
    const offset = idOffsets[i]!;
    const first = mix(name.number ^ salt);
    const last = mix(first + salt);
    const between = mix(last ^ salt);
    // xxxxxxxx-xxxx-4ooo-aooo-xxxxxxxxxxxx: x changes, o stays.
    putHex8(view, offset, first);
    putHex4(view, offset + 9, between >>> 16);
    putHex4(view, offset + 24, between & 0xffff);
    putHex8(view, offset + 28, last);
  }
  putHex8(view, prepared.batchIdOffset + 2, name.run);
  putHex4(view, prepared.batchIdOffset + 11, name.slot);
  putHex8(view, prepared.batchIdOffset + 16, name.number);
  patchAttempt(prepared, 1, nowMs);
}

/** The same batch once more: everything stays but the attempt and the send time. */
export function patchAttempt(prepared: Prepared, attempt: number, nowMs: number): void {
  // In JSON it is one digit.
  prepared.bytes[prepared.attemptOffset] =
    prepared.target === 'json' ? 0x30 + Math.min(attempt, 9) : Math.min(attempt, maxAttempt);
  if (prepared.secondsOffset >= 0) {
    let seconds = Math.floor(nowMs / 1000);
    for (let i = 0; i < 5; i++) {
      prepared.bytes[prepared.secondsOffset + i] = (seconds & 0x7f) | (i < 4 ? 0x80 : 0);
      seconds = Math.floor(seconds / 128);
    }
  }
}

/** Reads slot and number back out of a batch_id of ours; undefined for any other. */
export function parseBatchId(bytes: Uint8Array, offset: number, length: number): BatchName | undefined {
  if (length !== batchIdLength || bytes[offset] !== 0x62) return undefined;
  return {
    run: getHex(bytes, offset + 2, 8),
    slot: getHex(bytes, offset + 11, 4),
    number: getHex(bytes, offset + 16, 8),
  };
}

/** A bijection of 32 bits that spreads neighbours far apart. */
function mix(value: number): number {
  let x = value | 0;
  x = Math.imul(x ^ (x >>> 16), 0x21f0aaad);
  x = Math.imul(x ^ (x >>> 15), 0x735a2d97);
  return (x ^ (x >>> 15)) >>> 0;
}

function putHex4(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, hexQuads[value]!, true);
}

function putHex8(view: DataView, offset: number, value: number): void {
  view.setUint32(offset, hexQuads[value >>> 16]!, true);
  view.setUint32(offset + 4, hexQuads[value & 0xffff]!, true);
}

function getHex(bytes: Uint8Array, offset: number, digits: number): number {
  let value = 0;
  for (let i = 0; i < digits; i++) {
    const c = bytes[offset + i] ?? 0;
    value = (value << 4) | (c < 0x3a ? c - 0x30 : c - 0x57);
  }
  return value >>> 0;
}

function varint(value: number): number[] {
  const out: number[] = [];
  let rest = value;
  while (rest > 127) {
    out.push((rest & 127) | 128);
    rest >>>= 7;
  }
  out.push(rest);
  return out;
}

/** Where each event's event_id text starts in an encoded EventBatch. */
function eventIdOffsets(batch: Uint8Array, events: number): Uint32Array {
  const offsets = new Uint32Array(events);
  let at = 0;
  for (let i = 0; i < events; i++) {
    if (batch[at++] !== 0x0a) throw new Error('not an EventBatch');
    let length = 0;
    for (let shift = 0; ; shift += 7) {
      const byte = batch[at++]!;
      length |= (byte & 127) << shift;
      if (byte < 128) break;
    }
    if (batch[at] !== 0x0a || batch[at + 1] !== idLength) throw new Error('event_id is not first, or not of 36 bytes');
    offsets[i] = at + 2;
    at += length;
  }
  if (at !== batch.length) throw new Error('not an EventBatch');
  return offsets;
}

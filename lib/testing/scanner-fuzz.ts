/**
 * The scanner against a slow oracle (event-oracle.ts) on mutated batches. Both must agree on every event: what the scanner accepts is
 * Protobuf that protobuf-es decodes, in valid UTF-8, and obeys all rules; what it refuses is refused for a reason; nothing that it
 * accepts is changed.
 */
import { toBinary } from '@bufbuild/protobuf';
import * as assert from 'uvu/assert';
import { EventSchema } from '#gen/sluice/event/v1/event_pb.js';
import { scanBatch } from '../contract/index.js';
import { SluiceError } from '../errors.js';
import { createRandom, integer, makeEvent, pick, type Random } from './batches.js';
import { makeOddEvent, makeUnknownField } from './corpus.js';
import { judgeEvent } from './event-oracle.js';
import { makeRichEvent } from './rich-events.js';
import { encodeTree, parseTree, type WireField } from './wire-tree.js';

export const fuzzSeed = 20_260_101;

export const scanLimits = { maxEvents: 1000 };

/** What became of events, and of batches that are malformed as a whole. */
export interface Tally {
  accepted: number;
  refused: number;
  malformed: number;
}

/** Random for one case: any case can be run alone. */
export const randomOf = (index: number): Random => createRandom(Math.imul(fuzzSeed, 31) + index);

/** Cases `from` to `to` - 1. To replay a failure, give it the case that was printed. @throws Error when a case fails */
export function fuzzScanner(from: number, to: number): void {
  const tally = { accepted: 0, refused: 0, malformed: 0 };
  for (let index = from; index < to; index++) {
    const batch = makeCase(randomOf(index));
    try {
      checkBatch(batch, tally);
    } catch (error) {
      console.error(`case ${index} of seed ${fuzzSeed}: ${Buffer.from(batch).toString('hex').slice(0, 4000)}`);
      throw error;
    }
  }
  console.log(`scanner fuzz: ${JSON.stringify(tally)}`);
  const cases = to - from;
  // A fuzz that only ever meets one outcome tests nothing.
  assert.ok(tally.accepted > cases / 10 && tally.refused > cases / 10 && tally.malformed > cases / 100);
}

function mutateBytes(random: Random, bytes: Uint8Array): Uint8Array {
  const at = () => integer(random, 0, Math.max(0, bytes.length - 1));
  switch (integer(random, 0, 6)) {
    case 0: {
      const flipped = bytes.slice();
      for (let i = integer(random, 1, 3); i > 0; i--) flipped[at()]! ^= 1 << integer(random, 0, 7);
      return flipped;
    }
    case 1:
      return bytes.slice(0, at());
    case 2: {
      // A splice of the batch into itself.
      const [from, to, into] = [at(), at(), at()];
      const piece = bytes.subarray(Math.min(from, to), Math.max(from, to));
      return Uint8Array.from(Buffer.concat([bytes.subarray(0, into), piece, bytes.subarray(into)]));
    }
    case 3: {
      const from = at();
      return Uint8Array.from(Buffer.concat([bytes.subarray(0, from), bytes.subarray(from + integer(random, 1, 4))]));
    }
    case 4: {
      const set = bytes.slice();
      set[at()] = pick(random, [0, 1, 0x7f, 0x80, 0xff, 0x0a, 0x12, 0xc0, 0xed, 0xf4]);
      return set;
    }
    case 5: {
      const put = pick(random, [[0x0a, 0], [0x80], [0x00], [0xff, 0xff], [0x0a], [0x80, 0x80, 0x80, 0x80, 0x10]]);
      const into = at();
      return Uint8Array.from(Buffer.concat([bytes.subarray(0, into), Uint8Array.from(put), bytes.subarray(into)]));
    }
    default: {
      // The tail of it becomes noise.
      const noisy = bytes.slice();
      for (let i = at(); i < noisy.length; i++) noisy[i] = integer(random, 0, 255);
      return noisy;
    }
  }
}

const varints = [0n, 1n, 2n, 7n, 8n, 127n, 128n, 999n, 1000n, 2160n, 2161n, 1n << 31n, 1n << 32n, (1n << 63n) - 1n];
const negatives = [(1n << 64n) - 1n, (1n << 64n) - 2n, 1n << 63n, (1n << 64n) - (1n << 31n)];
const texts = ['', 'a', 'CH', 'ch', 'EUR', '\u0000', '\n', '😀', '\u{10ffff}'].map((text) => Buffer.from(text));
const badTexts = [[0xc0, 0x80], [0xed, 0xa0, 0x80], [0xff], [0xf4, 0x90, 0x80, 0x80], [0xe4, 0xbd]];

type Mutation = (random: Random, field: WireField, siblings: WireField[]) => void;

/** Weighted by how often they stand here. */
const mutations: readonly Mutation[] = [
  (random, field, siblings) => void siblings.splice(integer(random, 0, siblings.length), 0, { ...field }),
  (_, field, siblings) => void siblings.splice(siblings.indexOf(field), 1),
  (random, field) => {
    field.number = integer(random, 0, 17);
  },
  (random, field) => {
    field.wireType = integer(random, 0, 7);
    if (field.wireType === 0 && typeof field.value !== 'bigint') field.value = pick(random, varints);
    if (field.wireType === 2 && typeof field.value === 'bigint') field.value = pick(random, texts);
  },
  (random, field) => {
    field.sizeLie = pick(random, [-1, 1, 2, -2, 100, 1 << 20]);
  },
  (random, field) => {
    field.pad = integer(random, 0, 10);
    field.sizePad = integer(random, 0, 5);
  },
  (random, field) => {
    field.tagPad = integer(random, 0, 2);
  },
  (random, _, siblings) => void siblings.push(makeUnknownField(random)),
  (_random, _field, siblings) => void siblings.reverse(),
  mutateValue,
  mutateValue,
];

function mutateValue(random: Random, field: WireField): void {
  if (typeof field.value === 'bigint') field.value = pick(random, random() < 0.5 ? varints : negatives);
  else if (field.wireType === 2) {
    field.value = random() < 0.5 ? pick(random, texts) : Uint8Array.from(pick(random, badTexts));
  } else field.value = Uint8Array.from({ length: field.value.length }, () => pick(random, [0, 0xff, 0x7f, 0xf0]));
}

/** Changes one field somewhere in the tree. */
function mutateTree(random: Random, fields: WireField[]): void {
  const field = fields.length === 0 ? undefined : pick(random, fields);
  if (field === undefined) fields.push(makeUnknownField(random));
  else if (Array.isArray(field.value) && random() < 0.7) mutateTree(random, field.value);
  else pick(random, mutations)(random, field, fields);
}

function makeCase(random: Random): Uint8Array {
  const events: WireField[] = [];
  for (let i = integer(random, 1, 3); i > 0; i--) {
    const style = random();
    const value =
      style < 0.92
        ? parseTree(toBinary(EventSchema, makeEvent(random, i)), EventSchema)
        : style < 0.96
          ? makeOddEvent(random, i)
          : parseTree(toBinary(EventSchema, makeRichEvent(random)), EventSchema);
    events.push({ number: 1, wireType: 2, value });
  }
  if (random() < 0.5) {
    for (let i = integer(random, 1, 2); i > 0; i--) mutateTree(random, pick(random, events).value as WireField[]);
    if (random() < 0.05) mutateTree(random, events);
    return encodeTree(events);
  }
  return mutateBytes(random, encodeTree(events));
}

/** The events' bytes by a plain reading of the frame; undefined when it is malformed. */
function unframe(batch: Uint8Array): Uint8Array[] | undefined {
  const events: Uint8Array[] = [];
  let p = 0;
  while (p < batch.length) {
    if (batch[p++] !== 0x0a) return undefined;
    let size = 0;
    let scale = 1;
    for (let i = 0; ; i++) {
      const byte = batch[p++];
      if (byte === undefined || i === 5) return undefined;
      size += (byte & 0x7f) * scale;
      scale *= 128;
      if (byte < 0x80) break;
    }
    if (size > batch.length - p) return undefined;
    events.push(batch.subarray(p, p + size));
    p += size;
  }
  return events;
}

/** @throws Error when the scanner and the oracle disagree */
export function checkBatch(batch: Uint8Array, tally: Tally): void {
  const before = Buffer.from(batch);
  const events = unframe(batch);
  let result: ReturnType<typeof scanBatch>;
  try {
    result = scanBatch(batch, scanLimits);
  } catch (error) {
    if (!(error instanceof SluiceError)) throw error;
    assert.is(error.code, events?.length === 0 ? 'batch_empty' : 'batch_malformed');
    if (error.code === 'batch_malformed') {
      assert.is(events, undefined, 'refused a batch whose frame is sound');
      assert.ok(error.offset !== undefined && error.offset >= 0 && error.offset < batch.length);
    }
    tally.malformed++;
    return;
  }
  assert.ok(events !== undefined, 'accepted a malformed frame');
  const refused = new Set(result.rejections.map((rejection) => rejection.index));
  let unknown = false;
  for (const [index, event] of events.entries()) {
    const opinion = judgeEvent(event);
    const rejection = result.rejections.find((one) => one.index === index);
    assert.is(
      opinion.fault !== undefined,
      refused.has(index),
      `event ${index}: ${opinion.fault} / ${rejection?.message}`,
    );
    if (opinion.fault === undefined) unknown ||= opinion.unknownFields;
  }
  assert.is(result.unknownFields, unknown, 'unknownFields');
  assert.is(result.rejected, refused.size);
  assert.is(result.accepted, events.length - refused.size);
  assert.ok(before.equals(batch), 'the input is untouched');
  const kept = unframe(result.bytes)?.map((event) => Buffer.from(event)) ?? [];
  const expected = events.filter((_, index) => !refused.has(index));
  assert.is(kept.length, expected.length);
  for (const [index, event] of expected.entries()) assert.ok(kept[index]?.equals(event), 'the rest travels unchanged');
  if (refused.size === 0) assert.is(result.bytes, batch);
  tally.accepted += result.accepted;
  tally.refused += result.rejected;
}

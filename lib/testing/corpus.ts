/**
 * Batches that the scanner accepts although no ordinary encoder writes them: each reader of the log must take the same
 * values from them as protobuf-es does. For tests of ClickHouse.
 */
import { type DescField, type DescMessage, ScalarType, toBinary } from '@bufbuild/protobuf';
import { EventSchema } from '#gen/sluice/event/v1/event_pb.js';
import { scanBatch } from '../contract/index.js';
import { createRandom, integer, makeEvent, pick, type Random } from './batches.js';
import { makeRichEvent } from './rich-events.js';
import { encodeTree, parseTree, type WireField } from './wire-tree.js';

/**
 * Encoded batches, `count` of them, of 1 to 8 events each: unknown fields, any order of fields, padded varints and
 * lengths, defaults written out, empty sub-messages, map entries with the value first or left out.
 */
export function acceptedCorpus(seed: number, count: number): Uint8Array[] {
  const random = createRandom(seed);
  const batches: Uint8Array[] = [];
  for (let i = 0; i < count; i++) {
    const events: WireField[] = [];
    for (let j = integer(random, 1, 8); j > 0; j--) {
      const sizePad = random() < 0.1 ? 1 : 0;
      events.push({ number: 1, wireType: 2, value: makeOddEvent(random, j), sizePad });
    }
    const bytes = encodeTree(events);
    const result = scanBatch(bytes, { maxEvents: 8 });
    if (result.rejected > 0) throw new Error(`seed ${seed}: ${JSON.stringify(result.rejections[0])}`);
    batches.push(bytes);
  }
  return batches;
}

/** A valid event as a tree, in an encoding that is legal and odd. */
export function makeOddEvent(random: Random, index: number): WireField[] {
  const event = random() < 0.5 ? makeEvent(random, index) : makeRichEvent(random);
  const fields = parseTree(toBinary(EventSchema, event), EventSchema);
  addEmptyMessages(random, fields);
  oddify(random, fields, EventSchema);
  return fields;
}

/** All field numbers of a message and of the messages in it. */
function* numbersIn({ fields }: DescMessage): Generator<number> {
  for (const field of fields) {
    yield field.number;
    if (field.fieldKind === 'message') yield* numbersIn(field.message);
  }
}

/** The first numbers after those that are known, reserved ones, and some whose tag takes two bytes to five. */
function unknownNumbersOf(desc: DescMessage): number[] {
  const known = new Set(numbersIn(desc));
  const last = Math.max(...known);
  return [last + 1, last + 2, 100, 999, 1000, 1500, 1999, 19_000, 50_000, 2 ** 29 - 1].filter(
    (number) => !known.has(number),
  );
}

const unknownNumbers = unknownNumbersOf(EventSchema);

/** A legal field that no message of the contract knows. */
export function makeUnknownField(random: Random): WireField {
  const number = pick(random, unknownNumbers);
  const wireType = pick(random, [0, 1, 2, 5]);
  const bytes = (size: number) => Uint8Array.from({ length: size }, () => integer(random, 0, 255));
  const size = wireType === 1 ? 8 : wireType === 5 ? 4 : integer(random, 0, 12);
  const varint = pick(random, [0n, 1n, 300n, 2n ** 63n, 2n ** 64n - 1n]);
  return { number, wireType, value: wireType === 0 ? varint : bytes(size) };
}

function addEmptyMessages(random: Random, fields: WireField[]): void {
  for (const desc of EventSchema.fields) {
    if (desc.fieldKind !== 'message' || random() < 0.8) continue;
    if (!fields.some((field) => field.number === desc.number)) {
      fields.push({ number: desc.number, wireType: 2, value: [], desc });
    }
  }
}

function oddify(random: Random, fields: WireField[], desc: DescMessage): void {
  for (const field of fields) {
    padField(random, field);
    if (!Array.isArray(field.value)) continue;
    if (field.desc?.fieldKind === 'map') oddifyEntry(random, field.value);
    else if (field.desc?.message !== undefined) oddify(random, field.value, field.desc.message);
  }
  writeDefaults(random, fields, desc);
  if (random() < 0.3) fields.push(makeUnknownField(random));
  if (random() < 0.5) shuffle(random, fields);
}

function padField(random: Random, field: WireField): void {
  if (typeof field.value === 'bigint') {
    const max = Math.max(0, 9 - sizeOf(field.value));
    if (random() < 0.2) field.pad = Math.min(max, pick(random, [1, 2, 9]));
  } else if (field.wireType === 2 && random() < 0.1) {
    field.sizePad = integer(random, 1, 3);
  }
}

/** Fields that are not there are written with their zero, some of them. */
function writeDefaults(random: Random, fields: WireField[], desc: DescMessage): void {
  for (const known of desc.fields) {
    const zero = zeroOf(known);
    if (zero === undefined || random() < 0.85 || fields.some((field) => field.number === known.number)) continue;
    fields.push(zero);
  }
}

function zeroOf(desc: DescField): WireField | undefined {
  if (desc.fieldKind === 'enum') return { number: desc.number, wireType: 0, value: 0n, desc };
  if (desc.fieldKind !== 'scalar') return undefined;
  const isString = desc.scalar === ScalarType.STRING;
  return { number: desc.number, wireType: isString ? 2 : 0, value: isString ? new Uint8Array(0) : 0n, desc };
}

function oddifyEntry(random: Random, entry: WireField[]): void {
  const value = entry.find((field) => field.number === 2);
  const isDefault =
    value?.value instanceof Uint8Array &&
    (value.wireType === 1 || value.value.length === 0) &&
    !value.value.some(Boolean);
  if (value !== undefined && isDefault && random() < 0.5) entry.splice(entry.indexOf(value), 1);
  if (random() < 0.3) entry.reverse();
}

function sizeOf(varint: bigint): number {
  return encodeTree([{ number: 1, wireType: 0, value: varint }]).length - 1;
}

function shuffle(random: Random, fields: WireField[]): void {
  for (let i = fields.length - 1; i > 0; i--) {
    const j = integer(random, 0, i);
    [fields[i], fields[j]] = [fields[j]!, fields[i]!];
  }
}

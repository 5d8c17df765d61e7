/**
 * Valid random events of any shape, made from the descriptor and its `(sluice.rules.v1.field)` options: a field that is added to
 * event.proto is exercised without an edit here. Reads the options itself, and shares no code with lib/contract, which the tests
 * hold to these events.
 *
 * Text, numbers and maps often lie at their limits. The same seed gives the same events, byte for byte.
 */
import { create, type DescEnum, type DescField, type DescMessage, type Message, ScalarType } from '@bufbuild/protobuf';
import { type Event, EventSchema } from '#gen/sluice/event/v1/event_pb.js';
import { Charset, type FieldRules } from '#gen/sluice/rules/v1/rules_pb.js';
import { firstSecond, integer, makeText, makeUuid, pick, type Random } from './batches.js';
import { fieldRules } from './field-rules.js';

/** A valid event with any subset of all fields, values at and near their limits. */
export function makeRichEvent(random: Random): Event {
  return makeMessage(random, EventSchema) as Event;
}

const timestampName = 'google.protobuf.Timestamp';

function makeMessage(random: Random, desc: DescMessage): Message {
  const values: Record<string, unknown> = {};
  for (const field of desc.fields) {
    const rules = fieldRules(field);
    if (rules.required || random() < 0.5) values[field.localName] = makeField(random, field, rules);
  }
  return create(desc, values);
}

function makeField(random: Random, field: DescField, rules: FieldRules): unknown {
  switch (field.fieldKind) {
    case 'scalar':
      return makeScalar(random, field.scalar, rules);
    case 'enum':
      return makeEnum(random, field.enum, rules);
    case 'message':
      return field.message.typeName === timestampName
        ? makeTimestamp(random, rules)
        : makeMessage(random, field.message);
    case 'list':
      return Array.from({ length: sizeOf(random, rules) }, () => makeItem(random, field, rules));
    case 'map':
      return makeMap(random, field, rules);
  }
}

/** A value of a list or a map. */
function makeItem(random: Random, field: DescField & { fieldKind: 'list' | 'map' }, rules: FieldRules): unknown {
  if (field.message !== undefined) return makeMessage(random, field.message);
  if (field.enum !== undefined) return makeEnum(random, field.enum, rules);
  const maxBytes = field.fieldKind === 'map' ? rules.maxValueBytes : rules.maxBytes;
  return makeScalar(random, field.scalar as ScalarType, { ...rules, maxBytes });
}

const sizeOf = (random: Random, { maxItems }: FieldRules): number =>
  random() < 0.05 ? maxItems || 64 : integer(random, 0, Math.min(4, maxItems || 4));

function makeMap(random: Random, field: DescField & { fieldKind: 'map' }, rules: FieldRules): Record<string, unknown> {
  const map: Record<string, unknown> = {};
  const size = sizeOf(random, rules);
  for (let i = 0; i < size; i++) {
    // The counter keeps keys apart and non-empty.
    const key = `${makeText(random, (rules.maxKeyBytes || 100) - String(size).length, true)}${i}`;
    map[key] = makeItem(random, field, rules);
  }
  return map;
}

function makeEnum(random: Random, { values }: DescEnum, { required }: FieldRules): number {
  return pick(
    random,
    values.map(({ number }) => number).filter((number) => number !== 0 || !required),
  );
}

const lastSecond = 253_402_300_799;

function makeTimestamp(random: Random, { min = 0, max = lastSecond }: FieldRules): { seconds: bigint; nanos: number } {
  const seconds = [min, Math.min(min + 1, max), max, Math.min(firstSecond, max), integer(random, min, max)];
  return {
    seconds: BigInt(pick(random, seconds)),
    nanos: pick(random, [0, 1, 999_999_999, integer(random, 0, 999_999_999)]),
  };
}

const finite = [0, -0, 1.5, -1e-300, Number.MAX_VALUE, -Number.MAX_VALUE, Number.MIN_VALUE, 1e21, 0.1];

function makeScalar(random: Random, scalar: ScalarType, rules: FieldRules): unknown {
  switch (scalar) {
    case ScalarType.STRING:
      return makeString(random, rules);
    case ScalarType.BYTES:
      return new TextEncoder().encode(makeString(random, rules));
    case ScalarType.BOOL:
      return random() < 0.5;
    case ScalarType.DOUBLE:
    case ScalarType.FLOAT: {
      const fits = finite.filter((value) => value >= (rules.min ?? value) && value <= (rules.max ?? value));
      const value = pick(random, fits.length === 0 ? [rules.min ?? rules.max ?? 0] : fits);
      return scalar === ScalarType.DOUBLE || Number.isFinite(Math.fround(value)) ? value : 0;
    }
    default:
      return makeInteger(random, scalar, rules);
  }
}

/** Bits of the whole numbers; signed ones are negative. */
const widths: Readonly<Partial<Record<ScalarType, -64 | -32 | 32 | 64>>> = {
  [ScalarType.INT32]: -32,
  [ScalarType.SINT32]: -32,
  [ScalarType.SFIXED32]: -32,
  [ScalarType.INT64]: -64,
  [ScalarType.SINT64]: -64,
  [ScalarType.SFIXED64]: -64,
  [ScalarType.UINT32]: 32,
  [ScalarType.FIXED32]: 32,
  [ScalarType.UINT64]: 64,
  [ScalarType.FIXED64]: 64,
};

function makeInteger(random: Random, scalar: ScalarType, rules: FieldRules): number | bigint {
  const width = widths[scalar];
  if (width === undefined) throw new Error(`no random values for ${ScalarType[scalar]}; teach them`);
  const bits = BigInt(Math.abs(width));
  const least = rules.min === undefined ? (width < 0 ? -(2n ** (bits - 1n)) : 0n) : BigInt(Math.ceil(rules.min));
  const most = rules.max === undefined ? 2n ** (width < 0 ? bits - 1n : bits) - 1n : BigInt(Math.floor(rules.max));
  const between = least + BigInt(Math.floor(random() * Number(most - least)));
  const near = [0n, -1n, 1n, 60n, -60n, 200n, BigInt(integer(random, -1e9, 1e9)), between];
  const value = pick(random, [least, most, ...near.filter((one) => one >= least && one <= most)]);
  return bits === 32n ? Number(value) : value;
}

const token = 'a.b_c:d/e-9';

function makeString(random: Random, rules: FieldRules): string {
  const most = rules.maxBytes || 300;
  const text = textOf(random, rules.charset, rules.minBytes, most);
  return text === '' && rules.required ? 'a' : text;
}

function textOf(random: Random, charset: Charset, least: number, most: number): string {
  if (charset === Charset.TOKEN) {
    const texts = [makeUuid(random), makeUuid(random), 'a', token, 'x'.repeat(most), 'Z'.repeat(Math.max(1, most - 1))];
    return pick(random, texts).slice(0, most).padEnd(least, '0');
  }
  if (charset === Charset.UPPER_ALPHA) {
    const size = integer(random, Math.max(1, least), Math.min(most, Math.max(24, least)));
    return Array.from({ length: size }, () => String.fromCharCode(integer(random, 65, 90))).join('');
  }
  const text = makeText(random, most, charset !== Charset.NO_CONTROL);
  return text === '' ? text : text + 'x'.repeat(Math.max(0, least - Buffer.byteLength(text)));
}

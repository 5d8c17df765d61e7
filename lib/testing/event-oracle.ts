/**
 * A slow second opinion on whether an event is valid: reads the descriptors and their options itself, the structure from
 * a parse tree, the values from what protobuf-es decodes. Shares no code with lib/contract.
 */
import { type DescField, type DescMessage, fromBinary, ScalarType } from '@bufbuild/protobuf';
import { type ReflectMap, type ReflectMessage, reflect } from '@bufbuild/protobuf/reflect';
import { EventSchema } from '#gen/sluice/event/v1/event_pb.js';
import { Charset, type FieldRules } from '#gen/sluice/rules/v1/rules_pb.js';
import { fieldRules } from './field-rules.js';
import { parseTree, type WireField } from './wire-tree.js';

export interface Opinion {
  /** Why the event is invalid; undefined when it is valid. */
  readonly fault: string | undefined;
  readonly unknownFields: boolean;
}

export function judgeEvent(bytes: Uint8Array): Opinion {
  let unknownFields = false;
  try {
    const tree = parseTree(bytes, EventSchema);
    unknownFields = judgeStructure(tree, EventSchema);
  } catch (error) {
    return { fault: (error as Error).message, unknownFields };
  }
  // Structure is fine: from here on protobuf-es must decode, so a throw is the test's failure.
  const message = fromBinary(EventSchema, bytes);
  try {
    judgeValues(reflect(EventSchema, message), { min: undefined, max: undefined });
  } catch (error) {
    return { fault: (error as Error).message, unknownFields };
  }
  return { fault: undefined, unknownFields };
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** @returns whether it has fields that the contract does not know */
function judgeStructure(tree: WireField[], desc: DescMessage): boolean {
  const seen = new Set<number>();
  const keys = new Map<number, Set<string>>();
  let unknown = false;
  for (const field of tree) {
    const known = desc.fields.find(({ number }) => number === field.number);
    if (known === undefined) {
      unknown = true;
    } else if (known.fieldKind === 'map') {
      const others = keys.get(known.number) ?? new Set();
      keys.set(known.number, others.add(judgeNewKey(field, known, others)));
    } else {
      if (seen.has(known.number)) throw new Error(`${known.name}: twice`);
      seen.add(known.number);
      unknown = judgeSingular(field, known) || unknown;
    }
  }
  return unknown;
}

/** @returns the key of an entry of a map */
function judgeNewKey({ wireType, value }: WireField, desc: DescMapField, others: ReadonlySet<string>): string {
  if (wireType !== 2 || !Array.isArray(value)) throw new Error(`${desc.name}: wire type`);
  const key = judgeEntry(value, desc);
  if (others.has(key)) throw new Error(`${desc.name}: key twice`);
  return key;
}

/** @returns as {@link judgeStructure} */
function judgeSingular({ wireType, value }: WireField, known: DescField): boolean {
  switch (known.fieldKind) {
    case 'message':
      if (wireType !== 2 || !Array.isArray(value)) throw new Error(`${known.name}: wire type`);
      return judgeStructure(value, known.message);
    case 'enum':
      judgeScalar('enum', wireType, value, known.name);
      return false;
    case 'scalar':
      judgeScalar(known.scalar, wireType, value, known.name);
      return false;
    default:
      throw new Error('the oracle knows no repeated fields; teach it');
  }
}

type DescMapField = DescField & { fieldKind: 'map' };

function judgeEntry(entry: WireField[], desc: DescMapField): string {
  if (desc.mapKind !== 'scalar') throw new Error('the oracle knows maps of scalars only; teach it');
  const numbers = entry.map((field) => field.number);
  if (numbers.some((number) => number > 2) || new Set(numbers).size < numbers.length) throw new Error('bad entry');
  let key = '';
  for (const { number, wireType, value } of entry) {
    judgeScalar(number === 1 ? ScalarType.STRING : desc.scalar, wireType, value, desc.name);
    if (number === 1) key = utf8.decode(value as Uint8Array);
  }
  return key;
}

function wireTypeOf(scalar: ScalarType | 'enum'): number {
  switch (scalar) {
    case ScalarType.STRING:
    case ScalarType.BYTES:
      return 2;
    case ScalarType.DOUBLE:
    case ScalarType.FIXED64:
    case ScalarType.SFIXED64:
      return 1;
    case ScalarType.FLOAT:
    case ScalarType.FIXED32:
    case ScalarType.SFIXED32:
      return 5;
    default:
      return 0;
  }
}

function judgeScalar(
  scalar: ScalarType | 'enum',
  wireType: number,
  value: bigint | Uint8Array | WireField[],
  name: string,
): void {
  if (wireType !== wireTypeOf(scalar)) throw new Error(`${name}: wire type`);
  if (scalar === ScalarType.STRING) utf8.decode(value as Uint8Array);
  if (typeof value !== 'bigint') return;
  const fits = (min: bigint, max: bigint, number: bigint) => {
    if (number < min || number > max) throw new Error(`${name}: width`);
  };
  switch (scalar) {
    case 'enum':
    case ScalarType.INT32:
      fits(-(2n ** 31n), 2n ** 31n - 1n, BigInt.asIntN(64, value));
      break;
    case ScalarType.UINT32:
    case ScalarType.SINT32:
      fits(0n, 2n ** 32n - 1n, value);
      break;
    case ScalarType.INT64:
    case ScalarType.SINT64:
    case ScalarType.UINT64:
      break;
    default:
      throw new Error(`the oracle does not know ${ScalarType[scalar]}; teach it`);
  }
}

interface Bounds {
  /** Of a Timestamp's seconds. */
  readonly min: number | undefined;
  readonly max: number | undefined;
}

function judgeValues(message: ReflectMessage, seconds: Bounds): void {
  if (message.desc.typeName === 'google.protobuf.Timestamp') {
    judgeTimestamp(message.message as unknown as { seconds: bigint; nanos: number }, seconds);
    return;
  }
  for (const desc of message.fields) judgeField(message, desc);
}

function judgeTimestamp({ seconds, nanos }: { seconds: bigint; nanos: number }, { min, max }: Bounds): void {
  if (nanos < 0 || nanos > 999_999_999) throw new Error('nanos');
  if (min !== undefined && Number(seconds) < min) throw new Error('seconds');
  if (max !== undefined && Number(seconds) > max) throw new Error('seconds');
}

type Refuse = (why: string) => never;

function judgeField(message: ReflectMessage, desc: DescField): void {
  const rules = fieldRules(desc);
  const refuse: Refuse = (why) => {
    throw new Error(`${desc.name}: ${why}`);
  };
  if (rules.required && !message.isSet(desc)) refuse('required');
  switch (desc.fieldKind) {
    case 'map':
      judgeMap(message.get(desc), rules, refuse);
      break;
    case 'message':
      if (message.isSet(desc)) judgeValues(message.get(desc), { min: rules.min, max: rules.max });
      break;
    case 'enum':
      if (!desc.enum.values.some(({ number }) => number === message.get(desc))) refuse('unknown enum');
      break;
    case 'scalar':
      judgeValue(message.get(desc), rules, refuse);
      break;
  }
}

function judgeMap(map: ReflectMap, rules: FieldRules, refuse: Refuse): void {
  if (rules.maxItems > 0 && map.size > rules.maxItems) refuse('too many');
  for (const [key, value] of map) {
    if (key === '') refuse('empty key');
    if (rules.maxKeyBytes > 0 && Buffer.byteLength(key as string) > rules.maxKeyBytes) refuse('long key');
    if (typeof value === 'number' && !Number.isFinite(value)) refuse('not finite');
    if (typeof value !== 'string' || rules.maxValueBytes === 0) continue;
    if (Buffer.byteLength(value) > rules.maxValueBytes) refuse('long value');
  }
}

function judgeValue(value: unknown, rules: FieldRules, refuse: Refuse): void {
  if (typeof value === 'string') {
    const size = Buffer.byteLength(value);
    if (size > 0 && size < rules.minBytes) refuse('short');
    if (rules.maxBytes > 0 && size > rules.maxBytes) refuse('long');
    if (!charsets[rules.charset].test(value)) refuse('charset');
  } else if (typeof value === 'number' || typeof value === 'bigint') {
    if (typeof value === 'number' && !Number.isFinite(value)) refuse('not finite');
    if (rules.min !== undefined && value < rules.min) refuse('small');
    if (rules.max !== undefined && value > rules.max) refuse('great');
  }
}

const charsets: Readonly<Record<Charset, RegExp>> = {
  [Charset.UNSPECIFIED]: /^/,
  [Charset.UPPER_ALPHA]: /^[A-Z]*$/,
  [Charset.TOKEN]: /^[A-Za-z0-9._:/-]*$/,
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what this is about.
  [Charset.NO_CONTROL]: /^[^\0-\x1f\x7f]*$/,
};

/**
 * A slow second opinion on whether an event is valid: reads the descriptors and their options itself, the structure from
 * a parse tree, the values from what protobuf-es decodes. Shares no code with lib/contract.
 */
import { type DescField, type DescMessage, fromBinary, getOption, ScalarType } from '@bufbuild/protobuf';
import { type ReflectMessage, reflect } from '@bufbuild/protobuf/reflect';
import { EventSchema } from '#gen/sluice/event/v1/event_pb.js';
import { Charset, type FieldRules, field as fieldOption } from '#gen/sluice/rules/v1/rules_pb.js';
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
    judgeValues(reflect(EventSchema, message), { least: undefined, most: undefined });
  } catch (error) {
    return { fault: (error as Error).message, unknownFields };
  }
  return { fault: undefined, unknownFields };
}

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function judgeStructure(tree: WireField[], desc: DescMessage): boolean {
  const seen = new Set<number>();
  const keys = new Map<number, Set<string>>();
  let unknown = false;
  for (const { number, wireType, value } of tree) {
    const known = desc.fields.find((field) => field.number === number);
    if (known === undefined) {
      unknown = true;
      continue;
    }
    const name = known.name;
    if (known.fieldKind === 'map') {
      if (wireType !== 2 || !Array.isArray(value)) throw new Error(`${name}: wire type`);
      const key = judgeEntry(value, known);
      const others = keys.get(number) ?? new Set();
      if (others.has(key)) throw new Error(`${name}: key twice`);
      keys.set(number, others.add(key));
      continue;
    }
    if (known.fieldKind === 'list') throw new Error('the oracle knows no repeated fields; teach it');
    if (seen.has(number)) throw new Error(`${name}: twice`);
    seen.add(number);
    if (known.fieldKind === 'message') {
      if (wireType !== 2 || !Array.isArray(value)) throw new Error(`${name}: wire type`);
      unknown = judgeStructure(value, known.message) || unknown;
    } else {
      judgeScalar(known.fieldKind === 'enum' ? 'enum' : known.scalar, wireType, value, name);
    }
  }
  return unknown;
}

function judgeEntry(entry: WireField[], desc: DescField & { fieldKind: 'map' }): string {
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

function judgeScalar(
  scalar: ScalarType | 'enum',
  wireType: number,
  value: bigint | Uint8Array | WireField[],
  name: string,
): void {
  const needed = scalar === ScalarType.STRING ? 2 : scalar === ScalarType.DOUBLE ? 1 : 0;
  if (wireType !== needed) throw new Error(`${name}: wire type`);
  if (scalar === ScalarType.STRING) utf8.decode(value as Uint8Array);
  if (typeof value !== 'bigint') return;
  const fits = (least: bigint, most: bigint, number: bigint) => {
    if (number < least || number > most) throw new Error(`${name}: width`);
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
      break;
    default:
      throw new Error(`the oracle does not know ${ScalarType[scalar]}; teach it`);
  }
}

interface Bounds {
  /** Of a Timestamp's seconds. */
  readonly least: number | undefined;
  readonly most: number | undefined;
}

// An option is decoded at each look.
const cache = new Map<DescField, FieldRules>();

function rulesOf(desc: DescField): FieldRules {
  let rules = cache.get(desc);
  if (rules === undefined) {
    rules = getOption(desc, fieldOption);
    cache.set(desc, rules);
  }
  return rules;
}

function judgeValues(message: ReflectMessage, seconds: Bounds): void {
  if (message.desc.typeName === 'google.protobuf.Timestamp') {
    const { seconds: s, nanos } = message.message as unknown as { seconds: bigint; nanos: number };
    if (nanos < 0 || nanos > 999_999_999) throw new Error('nanos');
    if (seconds.least !== undefined && Number(s) < seconds.least) throw new Error('seconds');
    if (seconds.most !== undefined && Number(s) > seconds.most) throw new Error('seconds');
    return;
  }
  for (const desc of message.fields) {
    const rules = rulesOf(desc);
    const refuse = (why: string): never => {
      throw new Error(`${desc.name}: ${why}`);
    };
    if (rules.required && !message.isSet(desc)) refuse('required');
    if (desc.fieldKind === 'map') {
      const map = message.get(desc);
      if (rules.maxItems > 0 && map.size > rules.maxItems) refuse('too many');
      for (const [key, value] of map) {
        if (key === '') refuse('empty key');
        if (rules.maxKeyBytes > 0 && Buffer.byteLength(key as string) > rules.maxKeyBytes) refuse('long key');
        if (typeof value === 'number' && !Number.isFinite(value)) refuse('not finite');
        if (typeof value !== 'string' || rules.maxValueBytes === 0) continue;
        if (Buffer.byteLength(value) > rules.maxValueBytes) refuse('long value');
      }
    } else if (desc.fieldKind === 'message') {
      if (message.isSet(desc)) judgeValues(message.get(desc), { least: rules.min, most: rules.max });
    } else if (desc.fieldKind === 'enum') {
      const number = message.get(desc);
      if (!desc.enum.values.some((value) => value.number === number)) refuse('unknown enum');
    } else if (desc.fieldKind === 'scalar') {
      const value = message.get(desc);
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
  }
}

const charsets: Readonly<Record<Charset, RegExp>> = {
  [Charset.UNSPECIFIED]: /^/,
  [Charset.UPPER_ALPHA]: /^[A-Z]*$/,
  [Charset.TOKEN]: /^[A-Za-z0-9._:/-]*$/,
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what this is about.
  [Charset.NO_CONTROL]: /^[^\0-\x1f\x7f]*$/,
};

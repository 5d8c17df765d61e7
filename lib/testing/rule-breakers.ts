/**
 * Every way to break one rule of one field, derived from the rules tree: each takes a valid event and makes one that must
 * be refused with exactly the stated field and code. A field added to the .proto is covered without an edit here.
 */
import { EventSchema } from '#gen/sluice/event/v1/event_pb.js';
import { RejectionCode } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { Charset } from '#gen/sluice/rules/v1/rules_pb.js';
import { eventRules, type FieldNode, type MessageNode } from '../contract/index.js';
import { encodeTree, parseTree, type WireField } from './wire-tree.js';

export interface Breaker {
  /** What is broken, for the test's output. */
  readonly name: string;
  /** As the rejection must name it. */
  readonly field: string;
  readonly code: RejectionCode;
  /** From a valid event to an invalid one. */
  readonly apply: (event: Uint8Array) => Uint8Array;
}

const bytes = (text: string) => new TextEncoder().encode(text);
const zeros = new Uint8Array(8);

/** All of them. */
export function ruleBreakers(): Breaker[] {
  return breakersOf(eventRules, []);
}

function breakersOf(message: MessageNode, parents: readonly FieldNode[]): Breaker[] {
  const all: Breaker[] = [];
  const prefix = parents.map((parent) => parent.name);
  for (const field of message.fields) {
    const path = [...prefix, field.name].join('.');
    const add = (name: string, code: RejectionCode, edit: (siblings: WireField[]) => void, at = path): void => {
      all.push({ name: `${path}: ${name}`, field: at, code, apply: (event) => edited(event, parents, edit) });
    };
    /** Replaces the field, or puts it in, with these in its place. */
    const put = (name: string, code: RejectionCode, given: () => Partial<WireField>[], at = path): void =>
      add(name, code, (siblings) => replace(siblings, field, given()), at);

    const outer = field.cardinality === 'map' ? 2 : field.wireType;
    for (const wireType of [0, 1, 2, 3, 4, 5, 6, 7].filter((type) => type !== outer)) {
      put(`wire type ${wireType}`, RejectionCode.WIRE, () => [{ wireType, value: wireType === 0 ? 1n : zeros }]);
    }
    if (outer === 2) {
      put('its length runs past the end', RejectionCode.WIRE, () => [{ wireType: 2, value: zeros, sizeLie: 5000 }]);
      put('its length has 6 bytes', RejectionCode.WIRE, () => [{ wireType: 2, value: zeros, sizePad: 5 }]);
    }
    if (outer === 0) {
      put('a varint of 11 bytes', RejectionCode.WIRE, () => [{ wireType: 0, value: 1n, pad: 10 }]);
      put('a varint of 10 bytes padded with 0', RejectionCode.WIRE, () => [{ wireType: 0, value: 1n, pad: 9 }]);
      put('a varint above 64 bits', RejectionCode.WIRE, () => [{ wireType: 0, value: 2n ** 64n }]);
    }
    if (field.cardinality === 'map') {
      breakMap(field, path, put);
      continue;
    }
    if (field.rules.required) {
      add('left out', RejectionCode.REQUIRED, (siblings) => {
        siblings.splice(0, siblings.length, ...siblings.filter((sibling) => sibling.number !== field.number));
      });
    }
    if (field.kind === 'message') {
      add('given twice', RejectionCode.REPEATED, (siblings) => {
        const given = siblings.find((sibling) => sibling.number === field.number);
        const empty = { number: field.number, wireType: 2, value: [] };
        siblings.push(...(given === undefined ? [empty, empty] : [given]));
      });
      add('field number 0 inside', RejectionCode.WIRE, (siblings) =>
        inside(siblings, field).push({ number: 0, wireType: 0, value: 1n }),
      );
      add('an unknown group inside', RejectionCode.WIRE, (siblings) =>
        inside(siblings, field).push({ number: 99, wireType: 3, value: zeros.subarray(8) }),
      );
      add('an unknown field cut short', RejectionCode.WIRE, (siblings) =>
        inside(siblings, field).push({ number: 99, wireType: 1, value: zeros.subarray(4) }),
      );
      add('a padded tag inside', RejectionCode.WIRE, (siblings) =>
        inside(siblings, field).push({ number: 99, wireType: 0, value: 1n, tagPad: 1 }),
      );
      all.push(...breakersOf(field.message!, [...parents, field]));
      continue;
    }
    const sample = validValue(field);
    put('given twice', RejectionCode.REPEATED, () => [
      { wireType: field.wireType, value: sample },
      { wireType: field.wireType, value: sample },
    ]);
    breakValue(field, put);
  }
  return all;
}

type Put = (name: string, code: RejectionCode, given: () => Partial<WireField>[], at?: string) => void;

function breakValue(field: FieldNode, put: Put): void {
  if (field.kind === 'string') breakText(field, put);
  else if (field.kind === 'enum') breakEnum(field, put);
  else if (field.kind !== 'double' && field.kind !== 'float') breakInteger(field, put);
}

const textValue = (value: Uint8Array) => () => [{ wireType: 2, value }];
const numberValue = (value: bigint) => () => [{ wireType: 0, value }];

/** Bytes that a string of the charset may not hold. */
const refusedBytes: Readonly<Record<Charset, readonly number[]>> = {
  [Charset.UNSPECIFIED]: [],
  [Charset.UPPER_ALPHA]: [0x40, 0x5b, 0x61, 0x20, 0],
  [Charset.TOKEN]: [0x2c, 0x3b, 0x40, 0x5b, 0x5e, 0x60, 0x7b, 0x7f, 0x20, 0x0d, 0x1a, 0],
  [Charset.NO_CONTROL]: [0, 1, 0x0a, 0x1f, 0x7f],
};

function breakText({ rules }: FieldNode, put: Put): void {
  const unit = rules.charset === Charset.UPPER_ALPHA ? 'A' : 'a';
  if (rules.required) put('empty', RejectionCode.REQUIRED, textValue(bytes('')));
  if (rules.maxBytes !== undefined) {
    put('one byte too long', RejectionCode.TOO_LONG, textValue(bytes(unit.repeat(rules.maxBytes + 1))));
  }
  if (rules.minBytes !== undefined && rules.minBytes > 1) {
    put('one byte too short', RejectionCode.TOO_SHORT, textValue(bytes(unit.repeat(rules.minBytes - 1))));
  }
  const size = rules.minBytes ?? Math.min(24, rules.maxBytes ?? 24);
  const value = bytes(unit.repeat(size));
  for (const [name, bad] of badUtf8) {
    if (bad.length > size) continue;
    // At the start, in the middle and at the end: fast checks have blind spots at edges.
    for (const at of new Set([0, (size - bad.length) >> 1, size - bad.length])) {
      const placed = value.slice();
      placed.set(bad, at);
      put(`${name} at ${at}`, RejectionCode.UTF8, textValue(placed));
    }
  }
  for (const byte of refusedBytes[rules.charset]) {
    for (const at of new Set([0, size >> 1, size - 1])) {
      const placed = value.slice();
      placed[at] = byte;
      put(`byte ${byte} at ${at}`, RejectionCode.CHARSET, textValue(placed));
    }
  }
}

function breakEnum({ rules, enum: desc }: FieldNode, put: Put): void {
  const max = Math.max(...(desc?.values ?? []).map((value) => value.number));
  if (rules.required) put('0', RejectionCode.REQUIRED, numberValue(0n));
  for (const value of [max + 1, 1000, -1, 2 ** 31, 2 ** 32 + 1, 2 ** 40]) {
    put(`enum value ${value}`, RejectionCode.UNKNOWN_ENUM, numberValue(BigInt.asUintN(64, BigInt(value))));
  }
}

function breakInteger({ rules, kind }: FieldNode, put: Put): void {
  const encode = (value: number | bigint) =>
    kind === 'sint32' || kind === 'sint64' ? zigzag(BigInt(value)) : BigInt.asUintN(64, BigInt(value));
  const range = RejectionCode.OUT_OF_RANGE;
  if (rules.min !== undefined && !(rules.min === 0 && kind === 'uint32')) {
    put('below the least', range, numberValue(encode(rules.min - 1)));
  }
  if (rules.max !== undefined) put('above the greatest', range, numberValue(encode(rules.max + 1)));
  if (rules.max !== undefined) put('far above the greatest', range, numberValue(encode(2n ** 62n)));
  if (kind === 'uint32' || kind === 'sint32' || kind === 'int32') {
    put('33 bits', range, numberValue(2n ** 32n));
    put('33 bits, valid when cut', range, numberValue(2n ** 32n + 1n));
  }
  if (kind === 'int32') put('a negative number of 5 bytes', range, numberValue(2n ** 32n - 1n));
}

function breakMap(field: FieldNode, path: string, put: Put): void {
  const key: WireField = { number: 1, wireType: 2, value: bytes('plan') };
  const value: WireField = { number: 2, wireType: field.wireType, value: validValue(field) };
  const entries =
    (...given: WireField[][]) =>
    () =>
      given.map((entry) => ({ wireType: 2, value: entry }));
  const named = `${path}[plan]`;
  const { maxKeyBytes = 0, maxValueBytes, maxItems = 0 } = field.rules;
  const keyOf = (text: string): WireField => ({ ...key, value: bytes(text) });
  put('same key twice', RejectionCode.REPEATED, entries([key, value], [key, value]), named);
  put('same key twice, far apart', RejectionCode.REPEATED, entries([key, value], [keyOf('b')], [value, key]), named);
  put('two keys in an entry', RejectionCode.REPEATED, entries([key, value, keyOf('b')]), named);
  put('two values in an entry', RejectionCode.REPEATED, entries([key, value, value]), named);
  put('an unknown field in an entry', RejectionCode.WIRE, entries([key, { ...value, number: 3 }]), named);
  put('a key of another wire type', RejectionCode.WIRE, entries([{ ...key, wireType: 0, value: 1n }]), `${path}[]`);
  put('no key', RejectionCode.REQUIRED, entries([value]), `${path}[]`);
  put('an empty key', RejectionCode.REQUIRED, entries([keyOf(''), value]), `${path}[]`);
  put('an empty entry', RejectionCode.REQUIRED, entries([]), `${path}[]`);
  const long = 'k'.repeat(maxKeyBytes + 1);
  put('a long key', RejectionCode.TOO_LONG, entries([keyOf(long), value]), `${path}[${long.slice(0, 64)}…]`);
  put('a key cut short', RejectionCode.WIRE, entries([{ ...key, sizeLie: 20 }]), named);
  put(
    'a key of broken UTF-8',
    RejectionCode.UTF8,
    entries([{ ...key, value: Uint8Array.of(0xff) }]),
    `${path}[\ufffd]`,
  );
  const many = Array.from({ length: maxItems + 1 }, (_, i) => [keyOf(`k${i}`), value]);
  put('too many entries', RejectionCode.TOO_MANY, entries(...many));
  const other = field.wireType === 2 ? { wireType: 0, value: 1n } : { wireType: 2, value: bytes('x') };
  put('a value of another wire type', RejectionCode.WIRE, entries([key, { ...value, ...other }]), named);
  if (maxValueBytes !== undefined) {
    const text = bytes('v'.repeat(maxValueBytes + 1));
    put('a long value', RejectionCode.TOO_LONG, entries([key, { ...value, value: text }]), named);
  }
  for (const [name, bad] of field.kind === 'string' ? badUtf8 : []) {
    put(`a value with ${name}`, RejectionCode.UTF8, entries([key, { ...value, value: bad }]), named);
    put(`a value with ${name}, first`, RejectionCode.UTF8, entries([{ ...value, value: bad }, key]), named);
  }
  if (field.kind !== 'double') return;
  for (const number of [Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]) {
    const double = new Uint8Array(Float64Array.of(number).buffer);
    put(`${number}`, RejectionCode.NOT_FINITE, entries([key, { ...value, value: double }]), named);
  }
  put('a double cut short', RejectionCode.WIRE, entries([key, { ...value, value: zeros.subarray(1) }]), named);
}

const badUtf8: readonly (readonly [string, Uint8Array])[] = [
  ['a lone continuation', [0x80]],
  ['a byte that is never used', [0xff]],
  ['an over-long slash', [0xc0, 0xaf]],
  ['an over-long of two bytes', [0xc1, 0xbf]],
  ['an over-long of three bytes', [0xe0, 0x9f, 0xbf]],
  ['an over-long of four bytes', [0xf0, 0x8f, 0xbf, 0xbf]],
  ['a high surrogate', [0xed, 0xa0, 0x80]],
  ['a low surrogate', [0xed, 0xbf, 0xbf]],
  ['above U+10FFFF', [0xf4, 0x90, 0x80, 0x80]],
  ['a lead byte without its continuation', [0xc3]],
  ['three bytes cut to two', [0xe4, 0xbd]],
  ['four bytes cut to three', [0xf0, 0x9f, 0x98]],
].map(([name, values]) => [name as string, Uint8Array.from(values as number[])] as const);

function validValue(field: FieldNode): bigint | Uint8Array {
  if (field.wireType === 0) return field.kind === 'sint32' || field.kind === 'sint64' ? 2n : 1n;
  if (field.wireType === 2) return bytes('A'.repeat(field.rules.minBytes ?? 1));
  return field.wireType === 1 ? zeros : zeros.subarray(4);
}

function zigzag(value: bigint): bigint {
  return BigInt.asUintN(64, (value << 1n) ^ (value >> 63n));
}

function edited(event: Uint8Array, parents: readonly FieldNode[], edit: (fields: WireField[]) => void): Uint8Array {
  const root = parseTree(event, EventSchema);
  let fields = root;
  for (const parent of parents) fields = inside(fields, parent);
  edit(fields);
  return encodeTree(root);
}

/** The fields of a message field, put in when it is not there. */
function inside(siblings: WireField[], field: FieldNode): WireField[] {
  let given = siblings.find((sibling) => sibling.number === field.number);
  if (given === undefined) {
    given = { number: field.number, wireType: 2, value: [] };
    siblings.push(given);
  }
  return given.value as WireField[];
}

function replace(siblings: WireField[], field: FieldNode, given: readonly Partial<WireField>[]): void {
  const rest = siblings.filter((sibling) => sibling.number !== field.number);
  const made = given.map((part): WireField => ({ number: field.number, wireType: 2, value: zeros, ...part }));
  siblings.splice(0, siblings.length, ...rest, ...made);
}

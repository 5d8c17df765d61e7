/**
 * Turns a finding of the scanner into what a customer reads: the field's path, a code, and a sentence that says what is wrong and what
 * is allowed. Runs for refused events only.
 */
import { RejectionCode } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { Charset } from '#gen/sluice/rules/v1/rules_pb.js';
import type { FieldNode } from './rules.js';
import { varint, varintParts } from './wire.js';

/** Why the scanner stopped. Numbers, because they are literals in compiled code. */
export const Reason = {
  Repeated: 1,
  Required: 2,
  TooShort: 3,
  TooLong: 4,
  TooMany: 5,
  Utf8: 6,
  Charset: 7,
  Range: 8,
  Width: 9,
  Enum: 10,
  NotFinite: 11,
  /** A length that is bad or runs past its message. */
  Length: 12,
  Truncated: 13,
  Varint: 14,
  WireType: 15,
  Tag: 16,
  /** An unknown field whose value cannot be skipped. */
  Unknown: 17,
  /** A map entry with something besides one key and one value. */
  Entry: 18,
  /** A map entry with two keys or two values. */
  EntryRepeated: 19,
  KeyEmpty: 20,
  KeyTooLong: 21,
  KeyUtf8: 22,
  DuplicateKey: 23,
} as const;
export type Reason = (typeof Reason)[keyof typeof Reason];

/** One step into the message: `a` is the item of a repeated field; a … b-1 the bytes of a map entry; else both -1. */
export interface PathStep {
  readonly field: FieldNode;
  readonly a: number;
  readonly b: number;
}

/** What the latest failed scan found. One object per scanner, filled again and again. */
export class Fault {
  field: FieldNode | undefined;
  reason: Reason = Reason.Tag;
  /** The number or the size at fault, the wire type given, or the number of an unknown field: as `reason` says. */
  value = 0;
  /** Where the field begins, and where its message ends. */
  from = 0;
  to = 0;
  /** Innermost step first. */
  readonly path: PathStep[] = [];

  set(field: FieldNode | undefined, reason: Reason, value: number, from: number, to: number): void {
    this.field = field;
    this.reason = reason;
    this.value = value;
    this.from = from;
    this.to = to;
    this.path.length = 0;
  }
}

/** What is wrong with one event. */
export interface Rejection {
  /** Its place in the batch, from 0. */
  readonly index: number;
  /** E.g. "device.country", "properties[plan]"; empty when the whole event is at fault. */
  readonly field: string;
  readonly code: RejectionCode;
  /** What is wrong and what is allowed, for people. Holds at most 64 bytes of a customer's data. */
  readonly message: string;
}

/** Explains the fault of event `index`, which begins at byte `start` of the batch. */
export function explain(fault: Fault, bytes: Uint8Array, index: number, start: number): Rejection {
  const { field, reason, value } = fault;
  const at = `at byte ${fault.from - start} of the event`;
  const made = (code: RejectionCode, message: string): Rejection => ({
    index,
    field: pathOf(fault, bytes),
    code,
    message,
  });
  const rules = field?.rules;
  switch (reason) {
    case Reason.Repeated:
      return made(RejectionCode.REPEATED, 'given twice; give it at most once');
    case Reason.Required:
      return made(RejectionCode.REQUIRED, `required: ${requiredOf(field)}`);
    case Reason.TooShort:
      return made(RejectionCode.TOO_SHORT, `has ${count(value)}; at least ${rules?.minBytes} are needed, or none`);
    case Reason.TooLong: {
      const most = field?.cardinality === 'map' ? rules?.maxValueBytes : rules?.maxBytes;
      return made(RejectionCode.TOO_LONG, `has ${count(value)}; at most ${most} are allowed`);
    }
    case Reason.TooMany: {
      const what = field?.cardinality === 'map' ? 'entries' : 'items';
      return made(RejectionCode.TOO_MANY, `has too many ${what}; at most ${rules?.maxItems} are allowed`);
    }
    case Reason.Utf8:
      return made(
        RejectionCode.UTF8,
        'not valid UTF-8; strings must be, and bytes that are no text do not belong here',
      );
    case Reason.Charset:
      return made(RejectionCode.CHARSET, `holds a character that is not allowed; ${charsetOf(rules?.charset)}`);
    case Reason.Range:
      return made(RejectionCode.OUT_OF_RANGE, `is ${numberOf(value, field)}; allowed is ${rangeOf(field)}`);
    case Reason.Width:
      // An enum beyond 32 bits is first of all an unknown one.
      if (field?.kind === 'enum') return made(RejectionCode.UNKNOWN_ENUM, `is no number of 32 bits; ${enumOf(field)}`);
      return made(RejectionCode.OUT_OF_RANGE, `does not fit; allowed is ${rangeOf(field)}`);
    case Reason.Enum:
      return made(RejectionCode.UNKNOWN_ENUM, `is ${value}, which this gateway does not know; ${enumOf(field)}`);
    case Reason.NotFinite:
      return made(RejectionCode.NOT_FINITE, 'is infinite or not a number; only finite numbers are allowed');
    case Reason.Length:
      return made(RejectionCode.WIRE, `its length is malformed or runs past the end of its message, ${at}`);
    case Reason.Truncated:
      return made(RejectionCode.WIRE, `cut short by the end of its message, ${at}`);
    case Reason.Varint:
      return made(RejectionCode.WIRE, `a varint that is cut short or longer than 64 bits, ${at}`);
    case Reason.WireType:
      return made(
        RejectionCode.WIRE,
        `has wire type ${value}, but a ${kindOf(field)} has ${outerWireType(field)}, ${at}; was it encoded with another contract?`,
      );
    case Reason.Tag:
      return made(RejectionCode.WIRE, `a malformed tag, ${at}`);
    case Reason.Unknown:
      return made(
        RejectionCode.WIRE,
        `unknown field ${value} has a malformed value, ${at}; unknown fields are allowed, groups are not`,
      );
    case Reason.Entry:
      return made(RejectionCode.WIRE, `a map entry holds a string key 1 and a ${field?.kind} value 2 only, ${at}`);
    case Reason.EntryRepeated:
      return made(RejectionCode.REPEATED, 'the map entry has its key or its value twice; give each once');
    case Reason.KeyEmpty:
      return made(RejectionCode.REQUIRED, 'the key of a map entry is required: a non-empty string');
    case Reason.KeyTooLong:
      return made(RejectionCode.TOO_LONG, `the key has ${count(value)}; at most ${rules?.maxKeyBytes} are allowed`);
    case Reason.KeyUtf8:
      return made(RejectionCode.UTF8, 'the key is not valid UTF-8; strings must be');
    case Reason.DuplicateKey:
      return made(RejectionCode.REPEATED, 'the map has this key twice; give each key once');
  }
}

function count(bytes: number): string {
  return bytes === 1 ? '1 byte' : `${bytes} bytes`;
}

/** The scan has 64-bit numbers as doubles, and beyond 53 bits their last digits may be others than the sender's. */
function numberOf(value: number, field: FieldNode | undefined): string {
  const exact = Number.isSafeInteger(value) || field?.kind === 'double' || field?.kind === 'float';
  return exact ? String(value) : `about ${value}`;
}

function kindOf(field: FieldNode | undefined): string {
  if (field?.cardinality === 'map') return 'map';
  return field?.kind === 'message' ? (field.message?.typeName ?? 'message') : (field?.kind ?? 'field');
}

function outerWireType(field: FieldNode | undefined): number | undefined {
  return field?.cardinality === 'map' ? 2 : field?.wireType;
}

function requiredOf(field: FieldNode | undefined): string {
  switch (field?.kind) {
    case 'string':
    case 'bytes':
      return 'give a value that is not empty';
    case 'enum':
      return `give a value other than 0; ${enumOf(field)}`;
    default:
      return 'give a value';
  }
}

export function enumOf(field: FieldNode | undefined): string {
  if (field === undefined) return namesOf(field);
  let names = enumNames.get(field);
  if (names === undefined) {
    names = namesOf(field);
    enumNames.set(field, names);
  }
  return names;
}

/** Made once for each field: a batch of a few hundred bytes may ask for it a hundred times. */
const enumNames = new WeakMap<FieldNode, string>();

function namesOf(field: FieldNode | undefined): string {
  const names = (field?.enum?.values ?? []).map(({ number, name }) => `${name} (${number})`);
  // A long enum would drown the message.
  return `known are ${names.length > 12 ? `${names.slice(0, 12).join(', ')} and more` : names.join(', ')}`;
}

function charsetOf(charset: Charset | undefined): string {
  switch (charset) {
    case Charset.TOKEN:
      return 'allowed are letters, digits and . _ : / -';
    case Charset.UPPER_ALPHA:
      return 'allowed are A to Z';
    case Charset.NO_CONTROL:
      return 'control characters (U+0000 to U+001F, U+007F) are refused';
    default:
      return 'any valid UTF-8 is allowed';
  }
}

const widths: Readonly<Record<string, readonly [string, string]>> = {
  bool: ['0', '1'],
  int32: ['-2147483648', '2147483647'],
  sint32: ['-2147483648', '2147483647'],
  uint32: ['0', '4294967295'],
};

function rangeOf(field: FieldNode | undefined): string {
  const [least, most] = widths[field?.kind ?? ''] ?? ['any number', 'any number'];
  const { min = least, max = most } = field?.rules ?? {};
  if (min === 'any number') return `at most ${max}`;
  return max === 'any number' ? `at least ${min}` : `${min} to ${max}`;
}

function pathOf(fault: Fault, bytes: Uint8Array): string {
  let path = '';
  for (let i = fault.path.length - 1; i >= 0; i--) {
    const step = fault.path[i]!;
    const { cardinality, name } = step.field;
    path += path === '' ? name : `.${name}`;
    if (cardinality === 'map' && step.a >= 0) path += `[${keyOf(bytes, step.a, step.b)}]`;
    if (cardinality === 'repeated' && step.a >= 0) path += `[${step.a}]`;
  }
  return path;
}

const keyBytesLimit = 64;

/** The key of the map entry in bytes p … end-1, truncated to 64 bytes and printable; '' when it has none that can be read. */
function keyOf(bytes: Uint8Array, from: number, end: number): string {
  let p = from;
  while (p < end) {
    const tag = bytes[p++]!;
    if (tag === 0x0a) return keyAt(bytes, p, end);
    p = behindValue(bytes, p, end, tag);
    if (p < 0) return '';
  }
  return '';
}

/** The key whose length is at p. */
function keyAt(bytes: Uint8Array, p: number, end: number): string {
  const from = varint(bytes, p, end);
  if (from < 0) return '';
  const size = Math.min(varintParts[0]! >>> 0, end - from);
  return printable(bytes.subarray(from, from + Math.min(size, keyBytesLimit)), size > keyBytesLimit);
}

/** Where the value of a tag ends; -1: it cannot be read. */
function behindValue(bytes: Uint8Array, p: number, end: number, tag: number): number {
  switch (tag & 7) {
    case 0:
      return varint(bytes, p, end);
    case 1:
      return p + 8;
    case 2: {
      const from = varint(bytes, p, end);
      return from < 0 ? -1 : from + Math.min(varintParts[0]! >>> 0, end - from);
    }
    case 5:
      return p + 4;
    default:
      return end;
  }
}

/** Bytes of a customer's text for a message, without control characters; `truncated`: the text goes on. */
export function printable(bytes: Uint8Array, truncated: boolean): string {
  // `stream` leaves off a character that the truncation has split.
  const text = new TextDecoder().decode(bytes, { stream: truncated });
  // biome-ignore lint/suspicious/noControlCharactersInRegex: taking them out is the point.
  return text.replace(/[\u0000-\u001f\u007f]/g, '\ufffd') + (truncated ? '…' : '');
}

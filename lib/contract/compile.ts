/**
 * Compiles a rules tree into a scanner: JavaScript source, one function per message, that walks the wire bytes once and checks every
 * rule in place. Nothing is decoded and nothing is allocated for a valid event. This scanner decides what is valid; fast-scan.ts only
 * takes over the easy part.
 *
 * Why source and not closures over the tree: the rules become literals, and V8 compiles one message to one function. The
 * fields are tested in ascending order in one pass, because that is how encoders write them; a field out of order costs
 * another pass. A `switch` over the tag was 12 % slower: its indirect jump is predicted worse than this row of branches.
 *
 * A scan answers 0 (valid), 1 (valid, and holds fields that the contract does not know) or -1; then `fault` says what.
 */
import type { Charset } from '#gen/sluice/rules/v1/rules_pb.js';
import { Charset as Charsets } from '#gen/sluice/rules/v1/rules_pb.js';
import { type Fail, numberLines } from './compile-numbers.js';
import { Fault, type PathStep, Reason } from './faults.js';
import type { FieldNode, MessageNode } from './rules.js';
import { ascii, plainAscii, textCharset, textFault, textUtf8, token, upperAlpha } from './text.js';
import { length, longTag, newKey, skip, varint, varintParts } from './wire.js';

export interface Scanner {
  /** Scans the message in bytes start … end-1; `view` is over the same bytes. */
  readonly scan: (bytes: Uint8Array, view: DataView, start: number, end: number) => number;
  /** About the latest scan that answered -1. */
  readonly fault: Fault;
  /** What was compiled, for a look at it. */
  readonly source: string;
}

/** Comparing keys pair by pair stays cheap up to here. */
const maxMapEntries = 1024;

/** Above ASCII's fast test; the check named here sees only texts that fail it. */
const fastTest: Readonly<Record<Charset, string>> = {
  [Charsets.UNSPECIFIED]: 'ascii',
  [Charsets.NO_CONTROL]: 'plainAscii',
  [Charsets.TOKEN]: 'token',
  [Charsets.UPPER_ALPHA]: 'upperAlpha',
};

/** What the compiler has written so far. */
interface Output {
  /** By id: faults name fields by their ids. */
  readonly fields: FieldNode[];
  readonly functions: string[];
  readonly constants: string[];
}

/** A field and its id. */
interface Place {
  readonly field: FieldNode;
  readonly id: number;
}

/** @throws Error that names a field of a kind that the scanner does not support. */
export function compileScanner(root: MessageNode): Scanner {
  const out: Output = { fields: [], functions: [], constants: [] };
  const fault = new Fault();
  const root0 = message(out, root);
  const source = `'use strict';\n${out.constants.join('\n')}\n${out.functions.join('\n')}\nreturn ${root0};`;
  const imports = { ascii, plainAscii, token, upperAlpha, textFault, varint, length, longTag, skip, newKey };
  const fail = (
    id: number,
    reason: Reason,
    value: number,
    from: number,
    to: number,
    step: number,
    a: number,
    b: number,
  ): number => {
    fault.set(id < 0 ? undefined : (out.fields[id] as FieldNode), reason, value, from, to);
    return step < 0 ? -1 : within(step, a, b);
  };
  const within = (id: number, a: number, b: number): number => {
    const step: PathStep = { field: out.fields[id] as FieldNode, a, b };
    fault.path.push(step);
    return -1;
  };
  const names = [...Object.keys(imports), 'parts', 'fail', 'within'];
  const make = new Function(...names, source) as (...values: unknown[]) => Scanner['scan'];
  return { scan: make(...Object.values(imports), varintParts, fail, within), fault, source };
}

/** The lines of one message's function. */
interface MessageLines {
  readonly locals: string[];
  /** Fields with a tag of one byte, and of more. */
  readonly cases: string[];
  readonly longCases: string[];
  /** Checked at the end. */
  readonly required: string[];
  /** Fields that may come once, so far. */
  bits: number;
}

/** Emits the function of a message and returns its name. */
function message(out: Output, node: MessageNode): string {
  const { fields, functions, constants } = out;
  const name = `scan${functions.length}`;
  functions.push('');
  const at = functions.length - 1;
  const known: string[] = [];
  const lines: MessageLines = {
    locals: ['unknown = 0', 'at = p', 't = 0', 'n = 0', 'q = 0', 'x = 0', 'r = 0'],
    ...{ cases: [], longCases: [], required: [], bits: 0 },
  };
  // Ascending, whatever the order in the .proto: see above.
  for (const field of [...node.fields].sort((a, b) => a.number - b.number)) {
    const id = fields.push(field) - 1;
    known.push(`[${field.number}, ${id}]`);
    const outer = field.cardinality === 'map' ? 2 : field.wireType;
    const checks =
      field.cardinality === 'singular'
        ? once(out, { field, id }, lines)
        : often(out, { field, id }, lines, node.typeName);
    const tag = field.number * 8 + outer;
    if (tag < 0x80) {
      const word = field.cardinality === 'singular' ? 'if' : 'while';
      lines.cases.push(`${word} (t === ${tag}) { // ${field.name}`, ...checks, ...next, '}');
    } else {
      lines.longCases.push(`case ${tag}: { // ${field.name}`, ...checks, 'continue; }');
    }
  }
  constants.push(`const known${at} = new Map([${known.join(', ')}]);`);
  functions[at] = functionOf(name, `known${at}`, lines);
  return name;
}

/** Lines that check a field that may come once. */
function once(out: Output, place: Place, lines: MessageLines): string[] {
  const { rules } = place.field;
  const fail = failAt(place);
  // 31 fields a word: its bits stay small integers to V8.
  const seen = `seen${Math.floor(lines.bits / 31)}`;
  if (lines.bits % 31 === 0) lines.locals.push(`${seen} = 0`);
  const bit = 2 ** (lines.bits % 31);
  lines.bits++;
  if (rules.required) lines.required.push(`if ((${seen} & ${bit}) === 0) ${fail(Reason.Required)}`);
  return [
    `if ((${seen} & ${bit}) !== 0) ${fail(Reason.Repeated)}`,
    `${seen} |= ${bit};`,
    ...value(out, place, 'end', fail, rules.maxBytes),
  ];
}

/** Lines that check one item of a repeated field, or one entry of a map. */
function often(out: Output, place: Place, { locals }: MessageLines, typeName: string): string[] {
  const { field, id } = place;
  const fail = failAt(place);
  const max = field.rules.maxItems;
  if (max === undefined) throw new Error(`${typeName}.${field.name}: give it max_items`);
  locals.push(`count${id} = 0`);
  const counted = `if (count${id} >= ${max}) ${fail(Reason.TooMany)}`;
  if (field.cardinality === 'repeated') {
    if (field.wireType !== 2) {
      // Packed or not, both legal on the wire; and ClickHouse fails on an empty packed field.
      throw new Error(`${typeName}.${field.name}: repeated numbers and enums are not supported`);
    }
    return [counted, ...value(out, place, 'end', fail, field.rules.maxBytes), `count${id}++;`];
  }
  if (max > maxMapEntries) throw new Error(`${typeName}.${field.name}: max_items is above ${maxMapEntries}`);
  out.constants.push(`const slots${id} = new Int32Array(${max * 3});`);
  return [counted, ...mapEntry(out, place, fail)];
}

/** Statements that refuse the event at this field. */
function failAt({ field, id }: Place): Fail {
  const step = field.cardinality === 'map' ? `${id}, -1, -1` : path(field, id);
  return (reason, value = '0') => `return fail(${id}, ${reason}, ${value}, at, end, ${step});`;
}

function functionOf(name: string, known: string, { locals, cases, longCases, required }: MessageLines): string {
  return `
function ${name}(b, v, p, end) {
  let ${locals.join(', ')};
  fields: while (p < end) {
    const first = p;
    at = p;
    t = b[p++];
${cases.join('\n')}
    if (at !== first) {
      p = at;
      continue;
    }
    if (t >= 0x80) {
      p = longTag(b, at, end);
      if (p < 0) return fail(-1, ${Reason.Tag}, 0, at, end, -1, 0, 0);
      t = parts[0] >>> 0;
${longCases.length === 0 ? '' : `switch (t) {\n${longCases.join('\n')}\n}`}
    }
    r = ${known}.get(t >>> 3);
    if (r !== undefined) return fail(r, ${Reason.WireType}, t & 7, at, end, r, -1, -1);
    if (t < 8) return fail(-1, ${Reason.Tag}, 0, at, end, -1, 0, 0);
    p = skip(b, p, end, t);
    if (p < 0) return fail(-1, ${Reason.Unknown}, t >>> 3, at, end, -1, 0, 0);
    unknown = 1;
  }
${required.join('\n')}
  return unknown;
}`;
}

/** Lines that read a length at p into n, and set q to the end of what it spans. */
function spanned(limit: string, fail: (reason: Reason) => string): string[] {
  return [
    `if (p >= ${limit}) ${fail(Reason.Length)}`,
    'n = b[p++];',
    'if (n >= 0x80) {',
    `p = length(b, p - 1, ${limit});`,
    `if (p < 0) ${fail(Reason.Length)}`,
    'n = parts[0];',
    `} else if (n > ${limit} - p) ${fail(Reason.Length)}`,
    'q = p + n;',
  ];
}

/** Lines that check the text p … q-1 of n bytes. */
function text(charset: Charset, fail: Fail): string[] {
  return [
    `if (!${fastTest[charset]}(b, v, p, q)) {`,
    `r = textFault(b, p, q, ${charset});`,
    `if (r === ${textUtf8}) ${fail(Reason.Utf8)}`,
    `if (r === ${textCharset}) ${fail(Reason.Charset)}`,
    '}',
  ];
}

/** Lines that check the value of a field at p and move p behind it. */
function value(out: Output, { field, id }: Place, limit: string, fail: Fail, maxBytes: number | undefined): string[] {
  const { kind, rules } = field;
  switch (kind) {
    case 'string':
    case 'bytes':
      return [
        ...spanned(limit, fail),
        ...(maxBytes === undefined ? [] : [`if (n > ${maxBytes}) ${fail(Reason.TooLong, 'n')}`]),
        ...(rules.minBytes === undefined
          ? []
          : [`if (n < ${rules.minBytes} && n !== 0) ${fail(Reason.TooShort, 'n')}`]),
        ...(rules.required ? [`if (n === 0) ${fail(Reason.Required)}`] : []),
        ...(kind === 'string' ? text(rules.charset, fail) : []),
        'p = q;',
      ];
    case 'message': {
      const inner = message(out, field.message as MessageNode);
      return [
        ...spanned(limit, fail),
        `r = ${inner}(b, v, p, q);`,
        'if (r !== 0) {',
        `if (r < 0) return within(${path(field, id)});`,
        'unknown = 1;',
        '}',
        'p = q;',
      ];
    }
    default:
      return numberLines(field, limit, fail, (numbers) => {
        out.constants.push(`const enum${id} = new Set([${numbers.join(', ')}]);`);
        return `enum${id}`;
      });
  }
}

/** Lines that walk the entry of a map at p. */
function mapEntry(out: Output, place: Place, fail: Fail): string[] {
  const { field, id } = place;
  const inEntry = (reason: Reason, value = '0') =>
    `return fail(${id}, ${reason}, ${value}, at, end, ${path(field, id)});`;
  const { maxKeyBytes, maxValueBytes } = field.rules;
  return [
    // Declared first: they report a fault in the entry's own length too.
    'let entry = -1, stop = -1;',
    ...spanned('end', fail),
    'entry = p;',
    'stop = q;',
    'let key = p, keySize = -1, valued = 0;',
    'while (p < stop) {',
    't = b[p++];',
    'if (t === 0x0a) {',
    `if (keySize >= 0) ${inEntry(Reason.EntryRepeated)}`,
    ...spanned('stop', inEntry),
    'key = p;',
    'keySize = n;',
    ...(maxKeyBytes === undefined ? [] : [`if (n > ${maxKeyBytes}) ${inEntry(Reason.KeyTooLong, 'n')}`]),
    ...text(Charsets.UNSPECIFIED, (reason) => inEntry(reason === Reason.Utf8 ? Reason.KeyUtf8 : reason)),
    'p = q;',
    `} else if (t === ${16 + field.wireType}) {`,
    `if (valued !== 0) ${inEntry(Reason.EntryRepeated)}`,
    'valued = 1;',
    ...value(out, place, 'stop', inEntry, maxValueBytes),
    // protobuf-es loses its place at any other field of an entry, and no encoder writes one.
    `} else ${inEntry(Reason.Entry)}`,
    '}',
    `if (keySize <= 0) ${inEntry(Reason.KeyEmpty)}`,
    `if (!newKey(b, slots${id}, count${id}, key, keySize)) ${inEntry(Reason.DuplicateKey)}`,
    `count${id}++;`,
  ];
}

/** The last arguments of `fail` and `within`: where in the message the fault is. See PathStep. */
function path(field: FieldNode, id: number): string {
  if (field.cardinality === 'map') return `${id}, entry, stop`;
  return field.cardinality === 'repeated' ? `${id}, count${id}, -1` : `${id}, -1, -1`;
}

/** Goes on to the next tag. */
const next = ['if (p >= end) break fields;', 'at = p;', 't = b[p++];'];

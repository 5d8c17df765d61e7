/**
 * The contract's field rules as checks of decoded messages, compiled from the rules tree into straight code: nothing that
 * walks descriptors for each event, so that the peers which decode lose no time here that they need not lose.
 *
 * What only the wire shows (a field given twice, a wrong wire type, padding) is gone after decoding, and cannot be checked.
 */
import { RejectionCode } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { Charset } from '#gen/sluice/rules/v1/rules_pb.js';
import { eventRules, type FieldNode, type MessageNode } from '../../lib/contract/index.js';

export interface ObjectFault {
  /** E.g. "device.country", "properties[plan]". */
  readonly field: string;
  readonly code: RejectionCode;
}

export type CheckObject = (event: object) => ObjectFault | undefined;

const camel = (name: string): string => name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());

const patterns: Readonly<Partial<Record<Charset, string>>> = {
  [Charset.TOKEN]: '/^[A-Za-z0-9._:\\/-]*$/',
  [Charset.UPPER_ALPHA]: '/^[A-Z]*$/',
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what this is about.
  [Charset.NO_CONTROL]: String(/^[^\u0000-\u001f\u007f]*$/),
};

const fault = (field: string, code: RejectionCode): string =>
  `return { field: ${JSON.stringify(field)}, code: ${code} };`;

/** UTF-8 takes at most three bytes for each of JavaScript's units: most texts need no counting. */
const longer = (value: string, most: number): string =>
  `${value}.length * 3 > ${most} && (${value}.length > ${most} || byteLength(${value}) > ${most})`;

function checksOf(message: MessageNode, object: string, path: string, depth: number): string {
  return message.fields.map((field) => checkOf(field, object, path, depth)).join('\n');
}

function checkOf(field: FieldNode, object: string, path: string, depth: number): string {
  const value = `v${depth}_${field.number}`;
  const at = path === '' ? field.name : `${path}.${field.name}`;
  const { rules } = field;
  const lines = [`const ${value} = ${object}.${camel(field.name)};`];
  const refuseIf = (condition: string, code: RejectionCode) => lines.push(`if (${condition}) ${fault(at, code)}`);
  if (field.cardinality === 'map') {
    const key = `${value}k`;
    const one = `${value}[${key}]`;
    const refuse = (condition: string, code: RejectionCode) =>
      `if (${condition}) return { field: ${JSON.stringify(at)} + '[' + ${key} + ']', code: ${code} };`;
    lines.push(
      `let ${value}n = 0;`,
      `for (const ${key} in ${value}) {`,
      rules.maxItems === undefined ? '' : `if (++${value}n > ${rules.maxItems}) ${fault(at, RejectionCode.TOO_MANY)}`,
      refuse(`${key} === ''`, RejectionCode.REQUIRED),
      rules.maxKeyBytes === undefined ? '' : refuse(longer(key, rules.maxKeyBytes), RejectionCode.TOO_LONG),
      rules.maxValueBytes === undefined ? '' : refuse(longer(one, rules.maxValueBytes), RejectionCode.TOO_LONG),
      field.kind === 'double' ? refuse(`!Number.isFinite(${one})`, RejectionCode.NOT_FINITE) : '',
      '}',
    );
  } else if (field.cardinality === 'repeated') {
    throw new Error(`${at}: these checks know no repeated fields yet`);
  } else if (field.kind === 'message') {
    if (rules.required) refuseIf(`${value} == null`, RejectionCode.REQUIRED);
    lines.push(`if (${value} != null) {`, checksOf(field.message as MessageNode, value, at, depth + 1), '}');
  } else if (field.kind === 'enum') {
    if (rules.required) refuseIf(`${value} === 0`, RejectionCode.REQUIRED);
    const known = field.enum?.values.map(({ number }) => `${value} !== ${number}`) ?? [];
    refuseIf(known.join(' && '), RejectionCode.UNKNOWN_ENUM);
  } else if (field.kind === 'string') {
    if (rules.required) refuseIf(`${value} === ''`, RejectionCode.REQUIRED);
    lines.push(`if (${value} !== '') {`);
    if (rules.maxBytes !== undefined) refuseIf(longer(value, rules.maxBytes), RejectionCode.TOO_LONG);
    if (rules.minBytes !== undefined) refuseIf(`byteLength(${value}) < ${rules.minBytes}`, RejectionCode.TOO_SHORT);
    const pattern = patterns[rules.charset];
    if (pattern !== undefined) refuseIf(`!${pattern}.test(${value})`, RejectionCode.CHARSET);
    lines.push('}');
  } else if (field.kind === 'double' || field.kind === 'float') {
    refuseIf(`!Number.isFinite(${value})`, RejectionCode.NOT_FINITE);
  } else {
    if (rules.min !== undefined) refuseIf(`${value} < ${rules.min}`, RejectionCode.OUT_OF_RANGE);
    if (rules.max !== undefined) refuseIf(`${value} > ${rules.max}`, RejectionCode.OUT_OF_RANGE);
  }
  return lines.join('\n');
}

/** Compiles the checks for messages whose fields have camelCase names, absent ones their defaults or null. */
export function compileChecks(message: MessageNode = eventRules): CheckObject {
  const source = `'use strict';\nreturn (event) => {\n${checksOf(message, 'event', '', 0)}\nreturn undefined;\n};`;
  return new Function('byteLength', source)(Buffer.byteLength) as CheckObject;
}

export interface Judged<T> {
  /** The events without fault, in order. */
  readonly valid: T[];
  readonly rejections: readonly Rejected[];
}

export interface Rejected {
  readonly index: number;
  readonly field: string;
  readonly code: RejectionCode;
  readonly message: string;
}

/** Parts the valid from the invalid; without faults, no array is copied. */
export function judge<T extends object>(check: CheckObject, events: T[]): Judged<T> {
  let valid: T[] | undefined;
  const rejections: Rejected[] = [];
  for (let index = 0; index < events.length; index++) {
    const event = events[index] as T;
    const found = check(event);
    if (found === undefined) {
      valid?.push(event);
    } else {
      valid ??= events.slice(0, index);
      rejections.push({ index, ...found, message: `${found.field} breaks the rule ${RejectionCode[found.code]}` });
    }
  }
  return { valid: valid ?? events, rejections };
}

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

type Refuse = (condition: string, code: RejectionCode) => string;

/** What a check is made of: the field, the name of its value in the code, its path, and how it is refused. */
interface Checked {
  readonly field: FieldNode;
  readonly value: string;
  readonly at: string;
  readonly refuse: Refuse;
}

function checkOf(field: FieldNode, object: string, path: string, depth: number): string {
  const value = `v${depth}_${field.number}`;
  const at = path === '' ? field.name : `${path}.${field.name}`;
  const checked: Checked = { field, value, at, refuse: (condition, code) => `if (${condition}) ${fault(at, code)}` };
  return [`const ${value} = ${object}.${camel(field.name)};`, ...checksOfValue(checked, depth)].join('\n');
}

function checksOfValue(checked: Checked, depth: number): string[] {
  const { field, value, at, refuse } = checked;
  if (field.cardinality === 'map') return mapChecks(checked);
  if (field.cardinality === 'repeated') throw new Error(`${at}: these checks know no repeated fields yet`);
  switch (field.kind) {
    case 'message': {
      const inside = checksOf(field.message as MessageNode, value, at, depth + 1);
      const whole = [`if (${value} != null) {`, inside, '}'];
      return field.rules.required ? [refuse(`${value} == null`, RejectionCode.REQUIRED), ...whole] : whole;
    }
    case 'enum': {
      const known = field.enum?.values.map(({ number }) => `${value} !== ${number}`) ?? [];
      const unknown = refuse(known.join(' && '), RejectionCode.UNKNOWN_ENUM);
      return field.rules.required ? [refuse(`${value} === 0`, RejectionCode.REQUIRED), unknown] : [unknown];
    }
    case 'string':
      return textChecks(checked);
    case 'double':
    case 'float':
      return [refuse(`!Number.isFinite(${value})`, RejectionCode.NOT_FINITE)];
    default: {
      const { min, max } = field.rules;
      return [
        min === undefined ? '' : refuse(`${value} < ${min}`, RejectionCode.OUT_OF_RANGE),
        max === undefined ? '' : refuse(`${value} > ${max}`, RejectionCode.OUT_OF_RANGE),
      ];
    }
  }
}

function textChecks({ field: { rules }, value, refuse }: Checked): string[] {
  const pattern = patterns[rules.charset];
  return [
    rules.required ? refuse(`${value} === ''`, RejectionCode.REQUIRED) : '',
    `if (${value} !== '') {`,
    rules.maxBytes === undefined ? '' : refuse(longer(value, rules.maxBytes), RejectionCode.TOO_LONG),
    rules.minBytes === undefined ? '' : refuse(`byteLength(${value}) < ${rules.minBytes}`, RejectionCode.TOO_SHORT),
    pattern === undefined ? '' : refuse(`!${pattern}.test(${value})`, RejectionCode.CHARSET),
    '}',
  ];
}

function mapChecks({ field: { rules, kind }, value, at, refuse }: Checked): string[] {
  const key = `${value}k`;
  const one = `${value}[${key}]`;
  const refuseEntry: Refuse = (condition, code) =>
    `if (${condition}) return { field: ${JSON.stringify(at)} + '[' + ${key} + ']', code: ${code} };`;
  return [
    `let ${value}n = 0;`,
    `for (const ${key} in ${value}) {`,
    rules.maxItems === undefined ? '' : refuse(`++${value}n > ${rules.maxItems}`, RejectionCode.TOO_MANY),
    refuseEntry(`${key} === ''`, RejectionCode.REQUIRED),
    rules.maxKeyBytes === undefined ? '' : refuseEntry(longer(key, rules.maxKeyBytes), RejectionCode.TOO_LONG),
    rules.maxValueBytes === undefined ? '' : refuseEntry(longer(one, rules.maxValueBytes), RejectionCode.TOO_LONG),
    kind === 'double' ? refuseEntry(`!Number.isFinite(${one})`, RejectionCode.NOT_FINITE) : '',
    '}',
  ];
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

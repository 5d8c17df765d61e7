/**
 * The event contract as a plain tree: every message and field of sluice.event.v1 with its wire form, its rules and its
 * column hints, read from the descriptors and their `(sluice.rules.v1.field)` options, and from nowhere else.
 *
 * The scanner is compiled from it, the table in ClickHouse follows from it, the docs list it. It is frozen data without
 * methods; all rules are resolved (`undefined` means: no rule). A contract that Sluice cannot hold (a oneof, a recursive
 * message, a rule that does not fit its field) fails here, at start, with the field's name.
 */
import { type DescEnum, type DescField, type DescMessage, getOption, hasOption, ScalarType } from '@bufbuild/protobuf';
import { Edition, FeatureSet_FieldPresence } from '@bufbuild/protobuf/wkt';
import { EventBatchSchema } from '#gen/sluice/event/v1/event_pb.js';
import { Charset, type FieldRules, field as fieldOption, PiiClass } from '#gen/sluice/rules/v1/rules_pb.js';
import { timestampSeconds } from '../timestamp.js';

/** What a value is. A field's own kind; for a map, the kind of its values. */
export type Kind =
  | 'string'
  | 'bytes'
  | 'bool'
  | 'int32'
  | 'uint32'
  | 'sint32'
  | 'int64'
  | 'uint64'
  | 'sint64'
  | 'fixed32'
  | 'sfixed32'
  | 'fixed64'
  | 'sfixed64'
  | 'float'
  | 'double'
  | 'enum'
  | 'message';

/** 0 varint, 1 eight bytes, 2 length-delimited, 5 four bytes. Groups (3, 4) are not part of the contract. */
export type WireType = 0 | 1 | 2 | 5;

export interface EnumNode {
  /** Full name, e.g. "sluice.event.v1.EventType". */
  readonly typeName: string;
  /** In the order of the .proto. `name` as written there ("EVENT_TYPE_CLICK"). */
  readonly values: readonly { readonly number: number; readonly name: string }[];
}

export interface MessageNode {
  /** Full name, e.g. "sluice.event.v1.Device". */
  readonly typeName: string;
  /** In the order of the .proto. */
  readonly fields: readonly FieldNode[];
}

export interface FieldNode {
  readonly number: number;
  /** As in the .proto: snake_case. */
  readonly name: string;
  /** As JSON has it: lowerCamelCase, unless the .proto says otherwise. */
  readonly jsonName: string;
  /** A map's keys are strings. */
  readonly cardinality: 'singular' | 'repeated' | 'map';
  /** A scalar declared `optional`: absent differs from zero. */
  readonly optional: boolean;
  readonly kind: Kind;
  /** Of one value (in a map: of the entry's value). The field itself, when a map or a message, is length-delimited. */
  readonly wireType: WireType;
  /** Set exactly when kind is 'enum'. Values not in it are refused. */
  readonly enum: EnumNode | undefined;
  /**
   * Set exactly when kind is 'message'. A google.protobuf.Timestamp is one with fields `seconds` and `nanos`, whose
   * ranges come from this field's min and max.
   */
  readonly message: MessageNode | undefined;
  readonly rules: Rules;
  readonly column: Column;
  /** How sensitive the value is. */
  readonly pii: PiiClass;
}

/** Lengths are bytes of UTF-8; ranges are inclusive. */
export interface Rules {
  readonly required: boolean;
  /** Of a value that is not empty. */
  readonly minBytes: number | undefined;
  readonly maxBytes: number | undefined;
  readonly charset: Charset;
  readonly min: number | undefined;
  readonly max: number | undefined;
  readonly maxItems: number | undefined;
  /** Map keys are never empty. */
  readonly maxKeyBytes: number | undefined;
  readonly maxValueBytes: number | undefined;
}

export interface Column {
  /** Undefined: the path of field names joined by `_`. */
  readonly name: string | undefined;
  readonly lowCardinality: boolean;
  /** Undefined: the server's default. */
  readonly codec: string | undefined;
}

const timestampName = 'google.protobuf.Timestamp';

const scalarKinds: Readonly<Record<ScalarType, readonly [Kind, WireType]>> = {
  [ScalarType.DOUBLE]: ['double', 1],
  [ScalarType.FLOAT]: ['float', 5],
  [ScalarType.INT64]: ['int64', 0],
  [ScalarType.UINT64]: ['uint64', 0],
  [ScalarType.INT32]: ['int32', 0],
  [ScalarType.FIXED64]: ['fixed64', 1],
  [ScalarType.FIXED32]: ['fixed32', 5],
  [ScalarType.BOOL]: ['bool', 0],
  [ScalarType.STRING]: ['string', 2],
  [ScalarType.BYTES]: ['bytes', 2],
  [ScalarType.UINT32]: ['uint32', 0],
  [ScalarType.SFIXED32]: ['sfixed32', 5],
  [ScalarType.SFIXED64]: ['sfixed64', 1],
  [ScalarType.SINT32]: ['sint32', 0],
  [ScalarType.SINT64]: ['sint64', 0],
};

/** The tree of any message. @throws Error that names the field which Sluice cannot hold. */
export function rulesOf(desc: DescMessage): MessageNode {
  return messageNode(desc, []);
}

function messageNode(desc: DescMessage, within: readonly string[]): MessageNode {
  if (within.includes(desc.typeName)) {
    throw new Error(`${desc.typeName} contains itself: a table cannot hold it, and nesting would be unbounded`);
  }
  const path = [...within, desc.typeName];
  const fields = desc.fields.map((field) => fieldNode(field, path));
  return Object.freeze({ typeName: desc.typeName, fields: Object.freeze(fields) });
}

interface FieldType {
  readonly kind: Kind;
  readonly wireType: WireType;
  readonly enumeration: DescEnum | undefined;
  readonly message: DescMessage | undefined;
}

/** Of the field, of its items, or of its values in a map. */
function typeOf(field: DescField): FieldType {
  const none = { enumeration: undefined, message: undefined };
  const scalar = (type: ScalarType): FieldType => {
    const [kind, wireType] = scalarKinds[type];
    return { ...none, kind, wireType };
  };
  const enumeration = (desc: DescEnum): FieldType => ({ ...none, kind: 'enum', wireType: 0, enumeration: desc });
  const message = (desc: DescMessage): FieldType => ({ ...none, kind: 'message', wireType: 2, message: desc });
  switch (field.fieldKind) {
    case 'scalar':
      return scalar(field.scalar);
    case 'enum':
      return enumeration(field.enum);
    case 'message':
      return message(field.message);
    case 'list':
      if (field.listKind === 'scalar') return scalar(field.scalar);
      return field.listKind === 'enum' ? enumeration(field.enum) : message(field.message);
    case 'map':
      if (field.mapKind === 'scalar') return scalar(field.scalar);
      return field.mapKind === 'enum' ? enumeration(field.enum) : message(field.message);
  }
}

/** What decides which rules a field may have. */
interface Ruled {
  readonly kind: Kind;
  readonly cardinality: FieldNode['cardinality'];
  readonly optional: boolean;
  readonly isTimestamp: boolean;
}

const isBytes = (kind: Kind): boolean => kind === 'string' || kind === 'bytes';
const isNumeric = (kind: Kind): boolean => !isBytes(kind) && kind !== 'message' && kind !== 'bool' && kind !== 'enum';

function checkSizes(rules: FieldNode['rules'], { kind, cardinality }: Ruled, refuse: (why: string) => never): void {
  const bytes = isBytes(kind);
  if ((rules.minBytes ?? rules.maxBytes) !== undefined && (!bytes || cardinality === 'map')) {
    refuse('min_bytes and max_bytes are for string and bytes fields; a map has max_key_bytes and max_value_bytes');
  }
  if (rules.charset !== Charset.UNSPECIFIED && kind !== 'string') refuse('charset is for strings');
  if (rules.maxItems !== undefined && cardinality === 'singular') refuse('max_items is for repeated fields and maps');
  if (rules.maxKeyBytes !== undefined && cardinality !== 'map') refuse('max_key_bytes is for maps');
  if (rules.maxValueBytes !== undefined && (cardinality !== 'map' || !bytes)) {
    refuse('max_value_bytes is for maps of strings or bytes');
  }
}

function checkNumbers(rules: FieldNode['rules'], field: Ruled, refuse: (why: string) => never): void {
  const { kind, cardinality, optional, isTimestamp } = field;
  const numeric = isNumeric(kind);
  if ((rules.min ?? rules.max) !== undefined && !numeric && !isTimestamp) refuse('min and max are for numbers');
  for (const bound of [rules.min, rules.max]) {
    if (bound !== undefined && !(Math.abs(bound) <= Number.MAX_SAFE_INTEGER) && kind !== 'double') {
      refuse('min and max must be exact: at most 2^53 - 1 in size');
    }
  }
  if (rules.required && cardinality !== 'singular') refuse('required is for singular fields');
  if (rules.required && (numeric || kind === 'bool') && !optional) refuse('a required number must be `optional`');
}

function fieldNode(field: DescField, within: readonly string[]): FieldNode {
  const refuse = (why: string): never => {
    throw new Error(`${field.parent.typeName}.${field.name}: ${why}`);
  };
  if (field.oneof !== undefined) refuse('a oneof cannot be stored; use an enum beside plain fields');
  if (field.parent.file.edition !== Edition.EDITION_PROTO3) refuse('only proto3 files are supported');
  const options = hasOption(field, fieldOption) ? getOption(field, fieldOption) : undefined;
  const rules = rulesFrom(options);

  if (field.fieldKind === 'map' && field.mapKey !== ScalarType.STRING) refuse('only string keys are supported in maps');
  const { kind, wireType, enumeration, message } = typeOf(field);
  const cardinality: FieldNode['cardinality'] =
    field.fieldKind === 'list' ? 'repeated' : field.fieldKind === 'map' ? 'map' : 'singular';
  // proto3 `optional`: the only scalars with explicit presence.
  const optional =
    field.presence === FeatureSet_FieldPresence.EXPLICIT &&
    (field.fieldKind === 'scalar' || field.fieldKind === 'enum');

  const isTimestamp = message?.typeName === timestampName;
  const bounded = { kind, cardinality, optional, isTimestamp };
  checkSizes(rules, bounded, refuse);
  checkNumbers(rules, bounded, refuse);

  return Object.freeze({
    number: field.number,
    name: field.name,
    jsonName: field.jsonName,
    cardinality,
    optional,
    kind,
    wireType,
    enum: enumeration === undefined ? undefined : enumNode(enumeration),
    message: message === undefined ? undefined : isTimestamp ? timestampNode(rules) : messageNode(message, within),
    rules,
    column: Object.freeze({
      name: options?.column?.name || undefined,
      lowCardinality: options?.column?.lowCardinality ?? false,
      codec: options?.column?.codec || undefined,
    }),
    pii: options?.pii ?? PiiClass.UNSPECIFIED,
  });
}

function rulesFrom(options: FieldRules | undefined): Rules {
  return Object.freeze({
    required: options?.required ?? false,
    minBytes: options?.minBytes || undefined,
    maxBytes: options?.maxBytes || undefined,
    charset: options?.charset ?? Charset.UNSPECIFIED,
    min: options?.min,
    max: options?.max,
    maxItems: options?.maxItems || undefined,
    maxKeyBytes: options?.maxKeyBytes || undefined,
    maxValueBytes: options?.maxValueBytes || undefined,
  });
}

function enumNode(desc: DescEnum): EnumNode {
  const values = desc.values.map(({ number, name }) => Object.freeze({ number, name }));
  return Object.freeze({ typeName: desc.typeName, values: Object.freeze(values) });
}

function timestampNode(rules: Rules): MessageNode {
  const part = (number: number, name: string, kind: Kind, min: number, max: number): FieldNode =>
    Object.freeze({
      number,
      name,
      jsonName: name,
      cardinality: 'singular',
      optional: false,
      kind,
      wireType: 0,
      enum: undefined,
      message: undefined,
      rules: Object.freeze({ ...rulesFrom(undefined), min, max }),
      column: Object.freeze({ name: undefined, lowCardinality: false, codec: undefined }),
      pii: PiiClass.UNSPECIFIED,
    });
  const { min = timestampSeconds.min, max = timestampSeconds.max } = rules;
  return Object.freeze({
    typeName: timestampName,
    fields: Object.freeze([part(1, 'seconds', 'int64', min, max), part(2, 'nanos', 'int32', 0, 999_999_999)]),
  });
}

function eventOf(batch: MessageNode): MessageNode {
  const [events, ...others] = batch.fields;
  // What makes it safe to append a client's bytes to a StoredBatch: at batch level there is this one tag, 0x0A.
  if (others.length > 0 || events?.number !== 1 || events.cardinality !== 'repeated' || events.message === undefined) {
    throw new Error('sluice.event.v1.EventBatch must stay `repeated Event events = 1` and nothing else');
  }
  return events.message;
}

/** The event contract: the tree of sluice.event.v1.Event. */
export const eventRules: MessageNode = eventOf(rulesOf(EventBatchSchema));

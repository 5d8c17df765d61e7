/**
 * The contract's field rules as JSON Schema for plain-json.ts, with a few keywords of our own where JSON Schema counts
 * characters and the contract counts bytes; and the way back from an error of Ajv to path and code.
 */
import { RejectionCode } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { Charset } from '#gen/sluice/rules/v1/rules_pb.js';
import { eventRules, type FieldNode, type MessageNode } from '../../lib/contract/index.js';

type Schema = Record<string, unknown>;

const camel = (name: string): string => name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());

const patterns: Readonly<Partial<Record<Charset, string>>> = {
  [Charset.TOKEN]: '^[A-Za-z0-9._:/-]*$',
  [Charset.UPPER_ALPHA]: '^[A-Z]*$',
  [Charset.NO_CONTROL]: '^[^\\u0000-\\u001f\\u007f]*$',
};

/** JSON Schema of one event. */
export function eventSchema(message: MessageNode = eventRules): Schema {
  const required = message.fields.filter((field) => field.rules.required).map((field) => camel(field.name));
  const properties = Object.fromEntries(message.fields.map((field) => [camel(field.name), schemaOf(field)]));
  return { type: 'object', properties, ...(required.length > 0 ? { required } : {}) };
}

function schemaOf(field: FieldNode): Schema {
  const { rules } = field;
  if (field.cardinality === 'map') {
    const value = field.kind === 'string' ? { type: 'string', maxBytes: rules.maxValueBytes } : { type: 'number' };
    const { maxItems: maxProperties, maxKeyBytes } = rules;
    return { type: 'object', maxProperties, maxKeyBytes, additionalProperties: value };
  }
  if (field.cardinality === 'repeated') throw new Error(`${field.name}: this schema knows no repeated fields yet`);
  switch (field.kind) {
    case 'message':
      if (field.message?.typeName !== 'google.protobuf.Timestamp') return eventSchema(field.message as MessageNode);
      return { type: 'string', timestamp: [rules.min, rules.max] };
    case 'enum': {
      const names = field.enum?.values ?? [];
      return { enum: names.filter(({ number }) => number !== 0 || !rules.required).map(({ name }) => name) };
    }
    case 'string': {
      const { required, maxBytes, minBytes, charset } = rules;
      return given({
        type: 'string',
        minLength: required ? 1 : undefined,
        maxBytes,
        minBytes,
        pattern: patterns[charset],
      });
    }
    case 'double':
    case 'float':
      return { type: 'number' };
    default:
      return given({
        type: 'integer',
        minimum: rules.min ?? (field.kind.startsWith('u') ? 0 : undefined),
        maximum: rules.max,
      });
  }
}

/** Without what is undefined, which Ajv refuses. */
const given = (schema: Schema): Schema =>
  Object.fromEntries(Object.entries(schema).filter(([, value]) => value !== undefined));

const fits = (text: string, most: number): boolean =>
  text.length * 3 <= most || (text.length <= most && Buffer.byteLength(text) <= most);

const rfc3339 = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?(?:Z|[+-]\d\d:\d\d)$/;

/** Keywords beyond JSON Schema's, for Ajv. Each gives a function of one value. */
export const keywords = [
  { keyword: 'maxBytes', type: 'string', compile: (most: number) => (text: string) => fits(text, most) },
  {
    keyword: 'minBytes',
    type: 'string',
    compile: (least: number) => (text: string) => text === '' || Buffer.byteLength(text) >= least,
  },
  {
    keyword: 'maxKeyBytes',
    type: 'object',
    compile: (most: number) => (map: object) => {
      for (const key in map) if (key === '' || !fits(key, most)) return false;
      return true;
    },
  },
  {
    keyword: 'timestamp',
    type: 'string',
    compile: ([least = 0, most = 0]: [number?, number?]) => {
      return (text: string) => {
        if (!rfc3339.test(text)) return false;
        const seconds = Date.parse(text) / 1000;
        return seconds >= least && seconds < most + 1;
      };
    },
  },
];

/** What is used of an error of Ajv. */
export interface SchemaError {
  readonly keyword: string;
  /** JSON pointer, e.g. "/device/country". */
  readonly instancePath: string;
  readonly params: Readonly<Record<string, unknown>>;
  readonly message?: string | undefined;
}

const codes: Readonly<Record<string, RejectionCode>> = {
  required: RejectionCode.REQUIRED,
  minLength: RejectionCode.REQUIRED,
  maxBytes: RejectionCode.TOO_LONG,
  minBytes: RejectionCode.TOO_SHORT,
  maxProperties: RejectionCode.TOO_MANY,
  pattern: RejectionCode.CHARSET,
  timestamp: RejectionCode.OUT_OF_RANGE,
  minimum: RejectionCode.OUT_OF_RANGE,
  maximum: RejectionCode.OUT_OF_RANGE,
  enum: RejectionCode.UNKNOWN_ENUM,
  type: RejectionCode.WIRE,
};

const fields = new Map<string, FieldNode>();
(function note(message: MessageNode) {
  for (const field of message.fields) {
    fields.set(camel(field.name), field);
    if (field.kind === 'message') note(field.message as MessageNode);
  }
})(eventRules);

export interface SchemaFault {
  readonly field: string;
  readonly code: keyof typeof RejectionCode;
  readonly message: string;
}

/** Path and code as the contract names them. Runs for refused events only. */
export function explainError(error: SchemaError, event: unknown): SchemaFault {
  const steps = error.instancePath.split('/').slice(1);
  if (error.keyword === 'required') steps.push(String(error.params.missingProperty));
  let code = codes[error.keyword] ?? RejectionCode.UNSPECIFIED;
  let value = event;
  let path = '';
  let map = false;
  for (const step of steps) {
    const name = step.replace(/~1/g, '/').replace(/~0/g, '~');
    const field = fields.get(name);
    value = (value as Record<string, unknown> | undefined)?.[name];
    path += map ? `[${name}]` : `${path === '' ? '' : '.'}${field?.name ?? name}`;
    map = field?.cardinality === 'map';
    // The zero of a required enum is as good as none.
    if (error.keyword === 'enum' && field?.enum?.values[0]?.name === value) code = RejectionCode.REQUIRED;
  }
  if (error.keyword === 'maxKeyBytes') {
    const key = Object.keys(value as object).find((one) => one === '' || !fits(one, 128)) ?? '';
    path += `[${key}]`;
    code = key === '' ? RejectionCode.REQUIRED : RejectionCode.TOO_LONG;
  }
  return { field: path, code: RejectionCode[code] as keyof typeof RejectionCode, message: error.message ?? '' };
}

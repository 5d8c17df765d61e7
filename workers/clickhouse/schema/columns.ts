/**
 * The columns of the events table, and how each is read from a StoredBatch: derived from the contract's rules tree.
 */
import type { EnumNode, FieldNode, Kind, MessageNode } from '../../../lib/contract/rules.js';

export interface Column {
  readonly name: string;
  /** ClickHouse type as `system.columns` writes it, so that a difference means a migration. */
  readonly type: string;
  readonly codec: string | undefined;
  /** Expression over `e` (one event as a tuple) or over the fields of the batch. */
  readonly select: string;
}

/** A string literal. NUL is escaped, too: to the embedded engine it would be the end of the statement. */
export const quote = (text: string): string =>
  `'${text.replace(/\\/g, '\\\\').replace(/'/g, "\\'").replaceAll('\0', '\\0')}'`;

const scalarTypes: Readonly<Record<Exclude<Kind, 'enum' | 'message'>, string>> = {
  string: 'String',
  bytes: 'String',
  bool: 'Bool',
  int32: 'Int32',
  sint32: 'Int32',
  sfixed32: 'Int32',
  uint32: 'UInt32',
  fixed32: 'UInt32',
  int64: 'Int64',
  sint64: 'Int64',
  sfixed64: 'Int64',
  uint64: 'UInt64',
  fixed64: 'UInt64',
  float: 'Float32',
  double: 'Float64',
};

export const isTimestamp = (field: FieldNode): boolean => field.message?.typeName === 'google.protobuf.Timestamp';

/** EVENT_TYPE_CLICK of EventType → click. */
export function enumLabel(node: EnumNode, name: string): string {
  const short = node.typeName.slice(node.typeName.lastIndexOf('.') + 1);
  const prefix = `${short.replace(/(?<=[a-z0-9])(?=[A-Z])/g, '_').toUpperCase()}_`;
  return (name.startsWith(prefix) ? name.slice(prefix.length) : name).toLowerCase();
}

function enumType(node: EnumNode): string {
  const wide = node.values.some(({ number }) => number < -128 || number > 127);
  const labels = node.values.map(({ number, name }) => `${quote(enumLabel(node, name))} = ${number}`);
  return `${wide ? 'Enum16' : 'Enum8'}(${labels.join(', ')})`;
}

/**
 * The type in the input structure: what ClickHouse's Protobuf reader fills. Enums come as numbers and are turned into the
 * column's enum afterwards, so that the reader's own table of names plays no part.
 */
export function inputType(field: FieldNode): string {
  const one =
    field.kind === 'message'
      ? tupleType(field.message as MessageNode)
      : field.kind === 'enum'
        ? 'Int32'
        : scalarTypes[field.kind];
  if (field.cardinality === 'map') return `Map(String, ${one})`;
  if (field.cardinality === 'repeated') return `Array(${one})`;
  return field.optional ? `Nullable(${one})` : one;
}

export const tupleType = (message: MessageNode): string =>
  `Tuple(${message.fields.map((field) => `${field.name} ${inputType(field)}`).join(', ')})`;

/** Nanoseconds since 1970: exact for 1677 to 2262, which the contract's range is well within. */
const timestampOf = (path: string): string =>
  `fromUnixTimestamp64Nano(${path}.seconds * 1000000000 + ${path}.nanos, 'UTC')`;

/** For unchecked clocks: a time outside of 1970 to 2199 counts as absent (1970-01-01). */
const boundedTimestampOf = (path: string): string =>
  `fromUnixTimestamp64Nano(if(${path}.seconds BETWEEN 0 AND 7258118399 AND ${path}.nanos BETWEEN 0 AND 999999999, ` +
  `${path}.seconds * 1000000000 + ${path}.nanos, 0), 'UTC')`;

export const timestampType = "DateTime64(9, 'UTC')";

function columnType(field: FieldNode): string {
  const { lowCardinality } = field.column;
  if (isTimestamp(field)) return timestampType;
  const one =
    field.kind === 'enum'
      ? enumType(field.enum as EnumNode)
      : field.kind === 'message'
        ? tupleType(field.message as MessageNode)
        : scalarTypes[field.kind];
  if (field.cardinality === 'map') return `Map(${lowCardinality ? 'LowCardinality(String)' : 'String'}, ${one})`;
  if (field.cardinality === 'repeated') return `Array(${lowCardinality ? `LowCardinality(${one})` : one})`;
  const nullable = field.optional ? `Nullable(${one})` : one;
  return lowCardinality ? `LowCardinality(${nullable})` : nullable;
}

/** The columns of a message's fields; those of a singular message within are put in its place, their names joined by `_`. */
export function columnsOf(message: MessageNode, path = 'e', prefix = ''): Column[] {
  return message.fields.flatMap((field): Column[] => {
    const source = `${path}.${field.name}`;
    const name = field.column.name ?? `${prefix}${field.name}`;
    if (field.kind === 'message' && field.cardinality === 'singular' && !isTimestamp(field)) {
      return columnsOf(field.message as MessageNode, source, `${name}_`);
    }
    const type = columnType(field);
    const select = isTimestamp(field)
      ? timestampOf(source)
      : field.kind === 'enum'
        ? `CAST(${source}, ${quote(type)})`
        : source;
    return [{ name, type, codec: field.column.codec, select }];
  });
}

/** Facts of the batch that every row of it carries. */
export const batchColumns: readonly Column[] = [
  { name: 'tenant', type: 'LowCardinality(String)', codec: undefined, select: 'tenant' },
  { name: 'batch_id', type: 'String', codec: undefined, select: 'batch_id' },
  { name: 'received_at', type: timestampType, codec: undefined, select: timestampOf('received_at') },
  { name: 'sent_at', type: timestampType, codec: undefined, select: boundedTimestampOf('sent_at') },
  { name: 'contract', type: 'LowCardinality(String)', codec: undefined, select: 'contract' },
  { name: 'client', type: 'LowCardinality(String)', codec: undefined, select: 'client' },
  { name: 'client_address', type: 'String', codec: undefined, select: 'client_address' },
  { name: 'user_agent', type: 'String', codec: undefined, select: 'user_agent' },
  { name: '_batch', type: 'UInt128', codec: undefined, select: 'batch_hash' },
  { name: '_attempt', type: 'UInt32', codec: undefined, select: 'attempt' },
];

/** Constants of the INSERT: the same in every row of a block, so they compress to nothing. */
export const blockColumns: readonly Omit<Column, 'select'>[] = [
  { name: '_day', type: 'Date', codec: undefined },
  { name: '_stream', type: 'LowCardinality(String)', codec: undefined },
  { name: '_shard', type: 'UInt32', codec: undefined },
  { name: '_block', type: 'UInt64', codec: undefined },
  { name: '_lo', type: 'UInt64', codec: undefined },
  { name: '_hi', type: 'UInt64', codec: undefined },
  { name: '_accepted', type: 'UInt32', codec: undefined },
  { name: '_duplicate', type: 'UInt32', codec: undefined },
  { name: '_dead', type: 'UInt32', codec: undefined },
  // When the log took the block's last message: tells whether the log still has it, or another of its sequence (LOAD-8).
  { name: '_hi_at', type: "DateTime64(3, 'UTC')", codec: undefined },
];

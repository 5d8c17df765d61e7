/**
 * The schema text that ClickHouse parses StoredBatch with. Self-contained: the embedded engine has no
 * google/protobuf/*.proto (FACT-3). Enums are plain int32 in it: ClickHouse then needs no table of their names, and the
 * scanner has already refused unknown values.
 */
import { type DescField, type DescMessage, ScalarType } from '@bufbuild/protobuf';
import type { FieldNode, MessageNode } from '../../../lib/contract/rules.js';
import { inputType } from './columns.js';

/** Batch-level fields that are read, as (name, type in the schema text, type in the input structure). */
const read: Readonly<Record<string, string>> = {
  tenant: 'String',
  batch_id: 'String',
  attempt: 'UInt32',
  received_at: 'Tuple(seconds Int64, nanos Int32)',
  sent_at: 'Tuple(seconds Int64, nanos Int32)',
  contract: 'String',
  client: 'String',
  client_address: 'String',
  user_agent: 'String',
};

export interface InputFormat {
  /** For format_schema. */
  readonly schema: string;
  /** For format_schema_message_name. */
  readonly message: string;
  /** For input(…). */
  readonly structure: string;
  /** Names in the structure beside `events`. */
  readonly batchFields: readonly string[];
}

const typeNameOf = (message: MessageNode): string => message.typeName.replace(/\./g, '_');

function fieldText(field: FieldNode): string {
  const one =
    field.kind === 'message' ? typeNameOf(field.message as MessageNode) : field.kind === 'enum' ? 'int32' : field.kind;
  const label = field.cardinality === 'repeated' ? 'repeated ' : field.optional ? 'optional ' : '';
  const type = field.cardinality === 'map' ? `map<string, ${one}>` : `${label}${one}`;
  return `${type} ${field.name} = ${field.number};`;
}

/** Every message type below, once. */
function messagesOf(message: MessageNode, found = new Map<string, MessageNode>()): Map<string, MessageNode> {
  found.set(message.typeName, message);
  for (const field of message.fields) {
    if (field.message !== undefined) messagesOf(field.message, found);
  }
  return found;
}

const scalarText = (field: DescField): string =>
  field.fieldKind === 'message' ? 'google_protobuf_Timestamp' : ScalarType[field.scalar as ScalarType].toLowerCase();

/** What of the input is read; the schema text is always that of the whole contract, because ClickHouse keeps each text. */
export interface Reading {
  /** The tree of an event, without the fields that are not read. */
  readonly event: MessageNode;
  /** Whether a field of the batch itself is read. */
  readonly batchField: (name: string) => boolean;
}

/**
 * @param storedBatch descriptor of sluice.log.v1.StoredBatch: numbers of the batch's own fields
 * @param event rules tree of the events in it
 */
export function inputFormat(storedBatch: DescMessage, event: MessageNode, reading: Reading): InputFormat {
  const fields = storedBatch.fields.filter((field) => field.name in read);
  if (fields.length !== Object.keys(read).length) {
    throw new Error('StoredBatch has lost a field that the events table keeps');
  }
  const texts = [...messagesOf(event).values(), timestamp].map(
    (message) => `message ${typeNameOf(message)} { ${message.fields.map(fieldText).join(' ')} }`,
  );
  const batch = [
    `repeated ${typeNameOf(event)} events = 1;`,
    ...fields.map((field) => `${scalarText(field)} ${field.name} = ${field.number};`),
  ];
  const wanted = fields.filter((field) => reading.batchField(field.name));
  return {
    schema: ['syntax = "proto3";', ...new Set(texts), `message StoredBatch { ${batch.join(' ')} }`].join('\n'),
    message: 'StoredBatch',
    batchFields: wanted.map((field) => field.name),
    structure: [
      `events Array(${inputType({ ...eventsField, message: reading.event })})`,
      ...wanted.map((field) => `${field.name} ${read[field.name]}`),
    ].join(', '),
  };
}

const noRules: FieldNode['rules'] = {
  required: false,
  minBytes: undefined,
  maxBytes: undefined,
  charset: 0,
  min: undefined,
  max: undefined,
  maxItems: undefined,
  maxKeyBytes: undefined,
  maxValueBytes: undefined,
};

const plain = (number: number, name: string, kind: FieldNode['kind'], wireType: FieldNode['wireType']): FieldNode => ({
  number,
  name,
  jsonName: name,
  cardinality: 'singular',
  optional: false,
  kind,
  wireType,
  enum: undefined,
  message: undefined,
  rules: noRules,
  column: { name: undefined, lowCardinality: false, codec: undefined },
  pii: 0,
});

const eventsField = plain(1, 'events', 'message', 2);

const timestamp: MessageNode = {
  typeName: 'google.protobuf.Timestamp',
  fields: [plain(1, 'seconds', 'int64', 0), plain(2, 'nanos', 'int32', 0)],
};

/** What a block's INSERT names and reads: only the columns for which the block has values. */
import type { DescMessage } from '@bufbuild/protobuf';
import type { FieldNode, MessageNode } from '../../../lib/contract/rules.js';
import { batchColumns, columnsOf, quote } from './columns.js';
import { createWalker, everything, type FieldPresence, isFlattened } from './field-presence.js';
import { inputFormat } from './format-schema.js';

/** The rows of a block, as parts of an INSERT … SELECT. */
export interface BlockRows {
  /** Names of the columns, and an expression for each. */
  readonly into: readonly string[];
  readonly select: readonly string[];
  /** What the SELECT reads from: events as rows. */
  readonly input: string;
  /** How ClickHouse reads the body. */
  readonly settings: Readonly<Record<string, string>>;
}

/** Kinds of blocks, by what they hold, that are remembered. A handful in practice; the bound is for a client that sends every mixture. */
const maxKnown = 256;

/** Fields of the batch that most batches lack: they are opt-in. */
const optInFields: ReadonlySet<string> = new Set(['client_address', 'user_agent']);
const optionalBatchFields = (storedBatch: DescMessage): ReadonlyMap<string, number> =>
  new Map(storedBatch.fields.filter(({ name }) => optInFields.has(name)).map(({ name, number }) => [name, number]));

/** An enum's column has its least value as default: only when that is 0 does leaving it out read as an absent field. */
const mayBeLeftOut = ({ kind, cardinality, enum: of }: FieldNode): boolean =>
  kind !== 'enum' || cardinality !== 'singular' || (of?.values ?? []).every(({ number }) => number >= 0);

/** The tree without the fields that no event has. */
function presentPart(message: MessageNode, has: (path: string) => boolean, prefix: string): MessageNode {
  const fields = message.fields.flatMap((field): FieldNode[] => {
    if (!isFlattened(field)) return has(`${prefix}${field.name}`) || !mayBeLeftOut(field) ? [field] : [];
    const inner = presentPart(field.message as MessageNode, has, `${prefix}${field.name}.`);
    return inner.fields.length === 0 ? [] : [{ ...field, message: inner }];
  });
  return { ...message, fields };
}

/** @returns the rows of a block of these payloads; of undefined, with all columns */
export function createBlockRows(
  storedBatch: DescMessage,
  event: MessageNode,
): (payloads: readonly Uint8Array[] | undefined) => BlockRows {
  const walker = createWalker(event, optionalBatchFields(storedBatch));

  function rowsOf(presence: FieldPresence): BlockRows {
    const has = (path: string): boolean => presence(walker.ids.get(path) ?? 0);
    const batchField = (name: string): boolean => !walker.ids.has(`.${name}`) || has(`.${name}`);
    const present = presentPart(event, has, '');
    const reading = { event: present.fields.length === 0 ? event : present, batchField };
    const rows = [...columnsOf(reading.event), ...batchColumns.filter(({ name }) => batchField(name))];
    const format = inputFormat(storedBatch, event, reading);
    return {
      into: rows.map(({ name }) => name),
      select: rows.map((column) => column.select),
      // The hash is taken per batch, before the rows are multiplied.
      input:
        `(SELECT events, ${format.batchFields.join(', ')}, reinterpretAsUInt128(sipHash128(tenant, batch_id)) AS batch_hash ` +
        `FROM input(${quote(format.structure)})) ARRAY JOIN events AS e`,
      settings: {
        format_schema_source: 'string',
        format_schema: format.schema,
        format_schema_message_name: `${format.message}`,
      },
    };
  }

  const known = new Map<string, BlockRows>();
  return (payloads) => {
    const { key, presence } =
      payloads === undefined ? { key: 'everything', presence: everything } : walker.presenceIn(payloads);
    let rows = known.get(key);
    if (rows === undefined) {
      rows = rowsOf(presence);
      if (known.size >= maxKnown) known.clear();
      known.set(key, rows);
    }
    return rows;
  };
}

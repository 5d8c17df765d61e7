/**
 * What a worker would do that decodes: stored batches → rows → JSONEachRow, RowBinary or Native, for the same columns of the
 * same table. Written to be fast: straight code compiled from the list of columns (no call or look-up by name for a value), one
 * growing buffer, no object per row but the decoded message (and, for JSON, the row).
 */
import { eventRules, type FieldNode, type MessageNode } from '../../lib/contract/index.js';
import { batchColumns, blockColumns, columnsOf, enumLabel } from '../../workers/clickhouse/schema/columns.js';

/** A decoded event, fields in camelCase, absent messages null or undefined. */
export type Decoded = Readonly<Record<string, unknown>>;

export interface RowBatch {
  readonly tenant: string;
  readonly batchId: string;
  readonly attempt: number;
  readonly receivedAt: { readonly seconds: number; readonly nanos: number };
  readonly contract: string;
  readonly client: string;
  readonly events: readonly Decoded[];
}

export type RowFormat = 'JSONEachRow' | 'RowBinary' | 'Native';

type Kind =
  | 'string'
  | 'time'
  | 'enum'
  | 'int32'
  | 'uint32'
  | 'int64'
  | 'uint64'
  | 'uint128'
  | 'date'
  | 'strings'
  | 'doubles';

interface RowColumn {
  readonly name: string;
  /** As told to ClickHouse: the column's type, but for LowCardinality, which it makes itself. */
  readonly type: string;
  readonly kind: Kind;
  /** Names of enum numbers. */
  readonly labels: readonly string[];
  /** Expression over `e` (the event), the messages within it by their names, `b` (the batch) and `k` (the block). */
  readonly source: string;
}

const camel = (name: string): string => name.replace(/_([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
const plain = (type: string): string => type.replace(/LowCardinality\((\w+)\)/g, '$1');
const isTime = (field: FieldNode): boolean => field.message?.typeName === 'google.protobuf.Timestamp';

function kindOf(field: FieldNode): Kind {
  if (field.cardinality === 'map') return field.kind === 'string' ? 'strings' : 'doubles';
  if (isTime(field)) return 'time';
  switch (field.kind) {
    case 'string':
    case 'enum':
    case 'uint32':
      return field.kind;
    case 'sint32':
      return 'int32';
    case 'sint64':
      return 'int64';
    default:
      throw new Error(`${field.name}: these formats know no ${field.kind} yet`);
  }
}

/** In the order of columnsOf. */
function readers(message: MessageNode, path: readonly string[] = []): Omit<RowColumn, 'name' | 'type'>[] {
  return message.fields.flatMap((field) => {
    const name = camel(field.name);
    if (field.kind === 'message' && field.cardinality === 'singular' && !isTime(field)) {
      return readers(field.message as MessageNode, [...path, name]);
    }
    const [outer] = path;
    const source = outer === undefined ? `e.${name}` : `(${outer} == null ? undefined : ${outer}.${name})`;
    const labels: string[] = [];
    for (const { number, name: label } of field.enum?.values ?? []) labels[number] = enumLabel(field.enum!, label);
    return [{ kind: kindOf(field), labels, source }];
  });
}

const eventReaders = readers(eventRules);
/** Constants of every event's row: declared once a row. */
const withinEvent = eventRules.fields
  .filter((field) => field.kind === 'message' && field.cardinality === 'singular' && !isTime(field))
  .map((field) => `const ${camel(field.name)} = e.${camel(field.name)};`)
  .join(' ');

const batchKinds: Readonly<Record<string, readonly [Kind, string]>> = {
  tenant: ['string', 'b.tenant'],
  batch_id: ['string', 'b.batchId'],
  received_at: ['time', 'b.receivedAt'],
  sent_at: ['time', 'undefined'],
  contract: ['string', 'b.contract'],
  client: ['string', 'b.client'],
  client_address: ['string', "''"],
  user_agent: ['string', "''"],
  // The hash costs the same wherever it is taken: left out of this comparison, 0 for all.
  _batch: ['uint128', '0'],
  _attempt: ['uint32', 'b.attempt'],
  _day: ['date', '20513'],
  _stream: ['string', "'bench'"],
  _shard: ['uint32', '0'],
  _block: ['uint64', 'k'],
  _lo: ['uint64', 'k'],
  _hi: ['uint64', 'k'],
  _hi_at: ['time', 'undefined'],
  _accepted: ['uint32', '0'],
  _duplicate: ['uint32', '0'],
  _dead: ['uint32', '0'],
};

/** Day 20513 since 1970. */
const blockDayText = '2026-03-01';

export const rowColumns: readonly RowColumn[] = [
  ...columnsOf(eventRules).map(({ name, type }, i) => {
    return { name, type: plain(type), ...(eventReaders[i] as Omit<RowColumn, 'name' | 'type'>) };
  }),
  ...[...batchColumns, ...blockColumns].map(({ name, type }): RowColumn => {
    const known = batchKinds[name];
    if (known === undefined) throw new Error(`${name}: a column that these formats do not know`);
    return { name, type: plain(type), kind: known[0], labels: [], source: known[1] };
  }),
];

/** For input(…). */
export const rowStructure: string = rowColumns.map(({ name, type }) => `\`${name}\` ${type}`).join(', ');

/** A buffer that grows, written at the end. */
class Writer {
  bytes = Buffer.allocUnsafe(1 << 20);
  length = 0;

  room(more: number): void {
    if (this.length + more <= this.bytes.length) return;
    const larger = Buffer.allocUnsafe(Math.max(this.bytes.length * 2, this.length + more));
    this.bytes.copy(larger, 0, 0, this.length);
    this.bytes = larger;
  }

  varint(value: number): void {
    this.room(10);
    let rest = value;
    while (rest > 127) {
      this.bytes[this.length++] = (rest % 128) | 128;
      rest = Math.floor(rest / 128);
    }
    this.bytes[this.length++] = rest;
  }

  text(value: string): void {
    // Three bytes a unit at most. Short ASCII, which is most, is written without a look at its length first.
    this.room(value.length * 3 + 10);
    if (value.length < 43) {
      const size = this.bytes.write(value, this.length + 1);
      this.bytes[this.length] = size;
      this.length += size + 1;
    } else {
      this.varint(Buffer.byteLength(value));
      this.length += this.bytes.write(value, this.length);
    }
  }

  int64(value: number): void {
    this.room(8);
    const high = Math.floor(value / 4_294_967_296);
    this.length = this.bytes.writeInt32LE(high, this.bytes.writeUInt32LE(value - high * 4_294_967_296, this.length));
  }

  /** Seconds and nanoseconds as nanoseconds, exact beyond 2^53. */
  nanos(time: { readonly seconds: number; readonly nanos: number } | null | undefined): void {
    this.room(8);
    if (time == null) {
      this.bytes.fill(0, this.length, this.length + 8);
    } else {
      this.bytes.writeBigInt64LE(BigInt(time.seconds) * 1_000_000_000n + BigInt(time.nanos), this.length);
    }
    this.length += 8;
  }

  strings(map: Readonly<Record<string, string>> | undefined): void {
    const keys = Object.keys(map ?? {});
    this.varint(keys.length);
    for (const key of keys) {
      this.text(key);
      this.text((map as Readonly<Record<string, string>>)[key] as string);
    }
  }

  doubles(map: Readonly<Record<string, number>> | undefined): void {
    const keys = Object.keys(map ?? {});
    this.varint(keys.length);
    for (const key of keys) {
      this.text(key);
      this.double((map as Readonly<Record<string, number>>)[key] as number);
    }
  }

  double(value: number): void {
    this.room(8);
    this.length = this.bytes.writeDoubleLE(value, this.length);
  }

  uint8(value: number): void {
    this.room(1);
    this.bytes[this.length++] = value;
  }

  uint16(value: number): void {
    this.room(2);
    this.length = this.bytes.writeUInt16LE(value, this.length);
  }

  int32(value: number): void {
    this.room(4);
    this.length = this.bytes.writeInt32LE(value | 0, this.length);
  }

  zeros(count: number): void {
    this.room(count);
    this.bytes.fill(0, this.length, this.length + count);
    this.length += count;
  }
}

/** A statement that writes one value. */
function writing({ kind, source }: RowColumn): string {
  switch (kind) {
    case 'string':
      // Most are empty.
      return `v = ${source}; if (v) w.text(v); else w.uint8(0);`;
    case 'time':
      return `w.nanos(${source});`;
    case 'enum':
      return `w.uint8(${source} ?? 0);`;
    case 'int32':
    case 'uint32':
      return `w.int32(${source} ?? 0);`;
    case 'int64':
    case 'uint64':
      return `w.int64(${source} ?? 0);`;
    case 'uint128':
      return 'w.zeros(16);';
    case 'date':
      return `w.uint16(${source});`;
    case 'strings':
    case 'doubles':
      return `w.${kind}(${source});`;
  }
}

type Write = (w: Writer, batches: readonly RowBatch[], k: number) => void;

const forRows = (body: string): Write =>
  new Function(
    'w',
    'batches',
    'k',
    `'use strict'; let v; for (const b of batches) for (const e of b.events) { ${withinEvent} ${body} }`,
  ) as Write;

const writeRows = forRows(rowColumns.map(writing).join('\n'));
const writeColumns = rowColumns.map((column) => (isMap(column) ? undefined : forRows(writing(column))));

function isMap({ kind }: RowColumn): boolean {
  return kind === 'strings' || kind === 'doubles';
}

function rowBinary(batches: readonly RowBatch[], block: number): Writer {
  const writer = new Writer();
  writeRows(writer, batches, block);
  return writer;
}

/** One block, column by column; a map is its offsets, its keys, its values. */
function native(batches: readonly RowBatch[], block: number): Writer {
  const writer = new Writer();
  writer.varint(rowColumns.length);
  writer.varint(batches.reduce((n, batch) => n + batch.events.length, 0));
  rowColumns.forEach(({ name, type, kind }, i) => {
    writer.text(name);
    writer.text(type);
    const write = writeColumns[i];
    if (write !== undefined) {
      write(writer, batches, block);
      return;
    }
    const maps: Readonly<Record<string, string | number>>[] = [];
    let end = 0;
    for (const batch of batches) {
      for (const event of batch.events) {
        const map = (event[camel(name)] ?? {}) as Readonly<Record<string, string | number>>;
        for (const _ in map) end++;
        maps.push(map);
        writer.int64(end);
      }
    }
    for (const map of maps) for (const key in map) writer.text(key);
    for (const map of maps) {
      for (const key in map) {
        if (kind === 'strings') writer.text(map[key] as string);
        else writer.double(map[key] as number);
      }
    }
  });
  return writer;
}

type TimeValue = { readonly seconds: number; readonly nanos: number };
const timeText = ({ seconds, nanos }: TimeValue): string => `${seconds}.${String(nanos).padStart(9, '0')}`;

/** A statement that puts one value into the row, unless it is the default. */
function putting({ name, kind, labels, source }: RowColumn): string {
  const key = JSON.stringify(name);
  switch (kind) {
    case 'time':
      return `v = ${source}; if (v != null) row[${key}] = timeText(v);`;
    case 'date':
      return `row[${key}] = '${blockDayText}';`;
    case 'enum':
      return `v = ${source}; if (v) row[${key}] = ${JSON.stringify(labels)}[v];`;
    case 'uint128':
      return '';
    case 'strings':
    case 'doubles':
      return `v = ${source}; for (const _ in v) { row[${key}] = v; break; }`;
    default:
      return `v = ${source}; if (v) row[${key}] = v;`;
  }
}

const putRows = new Function(
  'timeText',
  `'use strict'; return (lines, batches, k) => { let v; for (const b of batches) for (const e of b.events) {
    ${withinEvent} const row = {}; ${rowColumns.map(putting).join('\n')} lines.push(JSON.stringify(row)); } };`,
)(timeText) as (lines: string[], batches: readonly RowBatch[], k: number) => void;

/** Rows as objects for JSON.stringify, which beats any text put together by hand. Defaults are left out. */
function jsonEachRow(batches: readonly RowBatch[], block: number): Buffer {
  const lines: string[] = [];
  putRows(lines, batches, block);
  return Buffer.from(lines.join('\n'));
}

/** The rows of these batches, ready to be sent. */
export function encodeRows(format: RowFormat, batches: readonly RowBatch[], block: number): Uint8Array {
  if (format === 'JSONEachRow') return jsonEachRow(batches, block);
  const { bytes, length } = format === 'RowBinary' ? rowBinary(batches, block) : native(batches, block);
  return bytes.subarray(0, length);
}

/**
 * What a worker would do that decodes: stored batches → rows → JSONEachRow, RowBinary or Native, for the same columns of the
 * same table. Written to be fast: one pass, one growing buffer, no object per row but the decoded message.
 */
import { eventRules, type FieldNode, type MessageNode } from '../../lib/contract/index.js';
import { batchColumns, blockColumns, columnsOf, enumLabel } from '../../workers/schema/columns.js';

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
  read(event: Decoded, batch: RowBatch, block: number): unknown;
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
    const read =
      outer === undefined
        ? (event: Decoded) => event[name]
        : (event: Decoded) => (event[outer] as Decoded | null | undefined)?.[name];
    const labels: string[] = [];
    for (const { number, name: label } of field.enum?.values ?? []) labels[number] = enumLabel(field.enum!, label);
    return [{ kind: kindOf(field), labels, read }];
  });
}

const eventReaders = readers(eventRules);
const batchKinds: Readonly<Record<string, readonly [Kind, (batch: RowBatch, block: number) => unknown]>> = {
  tenant: ['string', (batch) => batch.tenant],
  batch_id: ['string', (batch) => batch.batchId],
  received_at: ['time', (batch) => batch.receivedAt],
  sent_at: ['time', () => undefined],
  contract: ['string', (batch) => batch.contract],
  client: ['string', (batch) => batch.client],
  client_address: ['string', () => ''],
  user_agent: ['string', () => ''],
  // The hash costs the same wherever it is taken: left out of this comparison, 0 for all.
  _batch: ['uint128', () => 0],
  _attempt: ['uint32', (batch) => batch.attempt],
  _day: ['date', () => blockDay],
  _stream: ['string', () => 'bench'],
  _shard: ['uint32', () => 0],
  _block: ['uint64', (_, block) => block],
  _lo: ['uint64', (_, block) => block],
  _hi: ['uint64', (_, block) => block],
  _accepted: ['uint32', () => 0],
  _duplicate: ['uint32', () => 0],
  _dead: ['uint32', () => 0],
};

/** 2026-03-01, in days since 1970. */
export const blockDay = 20_513;
const blockDayText = '2026-03-01';

export const rowColumns: readonly RowColumn[] = [
  ...columnsOf(eventRules).map(({ name, type }, i) => {
    return { name, type: plain(type), ...(eventReaders[i] as Omit<RowColumn, 'name' | 'type'>) };
  }),
  ...[...batchColumns, ...blockColumns].map(({ name, type }): RowColumn => {
    const known = batchKinds[name];
    if (known === undefined) throw new Error(`${name}: a column that these formats do not know`);
    return { name, type: plain(type), kind: known[0], labels: [], read: (_, batch, block) => known[1](batch, block) };
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

  value(kind: Kind, value: unknown): void {
    switch (kind) {
      case 'string':
        this.text((value as string | undefined) ?? '');
        break;
      case 'time':
        this.nanos(value as { seconds: number; nanos: number } | undefined);
        break;
      case 'int64':
      case 'uint64':
        this.int64((value as number | undefined) ?? 0);
        break;
      case 'strings':
      case 'doubles': {
        const map = (value ?? {}) as Readonly<Record<string, string | number>>;
        const keys = Object.keys(map);
        this.varint(keys.length);
        for (const key of keys) {
          this.text(key);
          if (kind === 'strings') this.text(map[key] as string);
          else this.double(map[key] as number);
        }
        break;
      }
      default:
        this.fixed(kind, (value as number | undefined) ?? 0);
    }
  }

  double(value: number): void {
    this.room(8);
    this.length = this.bytes.writeDoubleLE(value, this.length);
  }

  fixed(kind: 'enum' | 'int32' | 'uint32' | 'uint128' | 'date', value: number): void {
    this.room(16);
    if (kind === 'enum') this.length = this.bytes.writeInt8(value, this.length);
    else if (kind === 'int32') this.length = this.bytes.writeInt32LE(value, this.length);
    else if (kind === 'uint32') this.length = this.bytes.writeUInt32LE(value, this.length);
    else if (kind === 'date') this.length = this.bytes.writeUInt16LE(value, this.length);
    else {
      this.bytes.fill(0, this.length, this.length + 16);
      this.length += 16;
    }
  }
}

function rowBinary(batches: readonly RowBatch[], block: number): Writer {
  const writer = new Writer();
  for (const batch of batches) {
    for (const event of batch.events) {
      for (const column of rowColumns) writer.value(column.kind, column.read(event, batch, block));
    }
  }
  return writer;
}

/** One block, column by column; a map is its offsets, its keys, its values. */
function native(batches: readonly RowBatch[], block: number): Writer {
  const writer = new Writer();
  writer.varint(rowColumns.length);
  writer.varint(batches.reduce((n, batch) => n + batch.events.length, 0));
  for (const { name, type, kind, read } of rowColumns) {
    writer.text(name);
    writer.text(type);
    if (kind !== 'strings' && kind !== 'doubles') {
      for (const batch of batches) for (const event of batch.events) writer.value(kind, read(event, batch, block));
      continue;
    }
    const maps: Readonly<Record<string, string | number>>[] = [];
    let end = 0;
    for (const batch of batches) {
      for (const event of batch.events) {
        const map = (read(event, batch, block) ?? {}) as Readonly<Record<string, string | number>>;
        maps.push(map);
        for (const _ in map) end++;
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
  }
  return writer;
}

/** Rows as objects for JSON.stringify, which beats any text put together by hand. Defaults are left out. */
function jsonEachRow(batches: readonly RowBatch[], block: number): Buffer {
  const lines: string[] = [];
  for (const batch of batches) {
    for (const event of batch.events) {
      const row: Record<string, unknown> = {};
      for (const { name, kind, labels, read } of rowColumns) {
        const value = read(event, batch, block);
        if (value == null || value === '' || value === 0) continue;
        if (kind === 'time') {
          const { seconds, nanos } = value as { seconds: number; nanos: number };
          row[name] = `${seconds}.${String(nanos).padStart(9, '0')}`;
        } else if (kind === 'date') row[name] = blockDayText;
        else row[name] = kind === 'enum' ? labels[value as number] : value;
      }
      lines.push(JSON.stringify(row));
    }
  }
  return Buffer.from(lines.join('\n'));
}

/** The rows of these batches, ready to be sent. */
export function encodeRows(format: RowFormat, batches: readonly RowBatch[], block: number): Uint8Array {
  if (format === 'JSONEachRow') return jsonEachRow(batches, block);
  const { bytes, length } = format === 'RowBinary' ? rowBinary(batches, block) : native(batches, block);
  return bytes.subarray(0, length);
}

/**
 * Events as an OTLP client would send them: each a log record with its time, its type as the event's name, and all other
 * fields as attributes, by the contract's names (`device.os_version`, `properties.plan`). What the request says of itself,
 * batch id, attempt and send time, is attributes of the resource.
 */
import { type DescField, ScalarType } from '@bufbuild/protobuf';
import { type ReflectMessage, reflect } from '@bufbuild/protobuf/reflect';
import { BinaryWriter, WireType } from '@bufbuild/protobuf/wire';
import { type Event, EventSchema } from '#gen/sluice/event/v1/event_pb.js';

export interface LogsRequest {
  readonly batchId: string;
  readonly attempt: number;
  readonly sentAt: Date;
  readonly events: readonly Event[];
}

/** A number is a double. */
type Value = string | bigint | number;

/** OTLP's field numbers, as far as they are written here. */
const request = { resourceLogs: 1 } as const;
const resourceLogs = { resource: 1, scopeLogs: 2 } as const;
const resource = { attributes: 1 } as const;
const scopeLogs = { logRecords: 2 } as const;
const logRecord = { timeUnixNano: 1, attributes: 6, eventName: 12 } as const;
const keyValue = { key: 1, value: 2 } as const;
const anyValue = { string: 1, int: 3, double: 4 } as const;

/** @returns an encoded ExportLogsServiceRequest */
export function encodeLogs({ batchId, attempt, sentAt, events }: LogsRequest): Uint8Array {
  const writer = new BinaryWriter();
  open(writer, request.resourceLogs);
  open(writer, resourceLogs.resource);
  writeAttribute(writer, resource.attributes, 'batch_id', batchId);
  writeAttribute(writer, resource.attributes, 'attempt', BigInt(attempt));
  writeAttribute(writer, resource.attributes, 'sent_at', sentAt.toISOString());
  writer.join();
  open(writer, resourceLogs.scopeLogs);
  for (const event of events) {
    open(writer, scopeLogs.logRecords);
    writeRecord(writer, event);
    writer.join();
  }
  return writer.join().join().finish();
}

function writeRecord(writer: BinaryWriter, event: Event): void {
  const { occurredAt } = event;
  if (occurredAt !== undefined) {
    const nanos = occurredAt.seconds * 1_000_000_000n + BigInt(occurredAt.nanos);
    writer.tag(logRecord.timeUnixNano, WireType.Bit64).fixed64(nanos);
  }
  for (const [key, value] of attributesOf(reflect(EventSchema, event))) {
    writeAttribute(writer, logRecord.attributes, key, value);
  }
  writer.tag(logRecord.eventName, WireType.LengthDelimited).string(enumName(EventSchema.field.type, event.type));
}

/** All fields that are set, but those that a record has places of its own for. */
function* attributesOf(message: ReflectMessage, prefix = ''): Generator<[string, Value]> {
  for (const field of message.fields) {
    if (field === EventSchema.field.type || field === EventSchema.field.occurredAt || !message.isSet(field)) continue;
    const key = prefix + field.name;
    switch (field.fieldKind) {
      case 'message':
        yield* attributesOf(message.get(field), `${key}.`);
        break;
      case 'map':
        for (const [name, value] of message.get(field)) yield [`${key}.${name}`, value as string | number];
        break;
      case 'enum':
        yield [key, enumName(field, message.get(field))];
        break;
      case 'scalar':
        yield [key, scalarOf(field.scalar, message.get(field))];
        break;
      default:
        throw new Error(`an event has no lists: ${field}`);
    }
  }
}

function scalarOf(type: ScalarType, value: unknown): Value {
  if (typeof value === 'string' || typeof value === 'bigint') return value;
  if (typeof value !== 'number') throw new Error(`an event has no field of such a kind: ${typeof value}`);
  return type === ScalarType.DOUBLE || type === ScalarType.FLOAT ? value : BigInt(value);
}

/** EVENT_TYPE_CLICK is "click". */
function enumName(field: DescField, number: number): string {
  const name = field.enum?.value[number]?.localName;
  if (name === undefined) throw new Error(`${field} has no name for ${number}`);
  return name.toLowerCase();
}

function writeAttribute(writer: BinaryWriter, field: number, key: string, value: Value): void {
  open(writer, field);
  writer.tag(keyValue.key, WireType.LengthDelimited).string(key);
  open(writer, keyValue.value);
  if (typeof value === 'string') writer.tag(anyValue.string, WireType.LengthDelimited).string(value);
  else if (typeof value === 'bigint') writer.tag(anyValue.int, WireType.Varint).int64(value);
  else writer.tag(anyValue.double, WireType.Bit64).double(value);
  writer.join().join();
}

const open = (writer: BinaryWriter, field: number): BinaryWriter => writer.tag(field, WireType.LengthDelimited).fork();

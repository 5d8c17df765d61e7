/**
 * Reads OTLP's log records back as events, for the tests: by protobufjs and a schema, another hand than the one that writes them
 * (otlp-logs.ts).
 */
import { fromJson, type JsonObject, type JsonValue } from '@bufbuild/protobuf';
import protobuf from 'protobufjs';
import { type Event, EventSchema, EventType } from '#gen/sluice/event/v1/event_pb.js';

/** The part of opentelemetry.proto that an event needs. */
const schema = `
  syntax = "proto3";
  message LogsData { repeated ResourceLogs resource_logs = 1; }
  message ResourceLogs { Resource resource = 1; repeated ScopeLogs scope_logs = 2; }
  message Resource { repeated KeyValue attributes = 1; }
  message ScopeLogs { repeated LogRecord log_records = 2; }
  message LogRecord { fixed64 time_unix_nano = 1; repeated KeyValue attributes = 6; string event_name = 12; }
  message KeyValue { string key = 1; AnyValue value = 2; }
  message AnyValue { oneof value { string string_value = 1; int64 int_value = 3; double double_value = 4; } }`;
const LogsData = protobuf.parse(schema, { keepCase: true }).root.lookupType('LogsData');

interface KeyValue {
  readonly key: string;
  /** 64-bit numbers are texts. */
  readonly value: { string_value?: string; int_value?: string; double_value?: number };
}

interface LogRecord {
  readonly time_unix_nano?: string;
  readonly attributes?: KeyValue[];
  readonly event_name?: string;
}

interface Logs {
  readonly resource_logs: { resource: { attributes: KeyValue[] }; scope_logs: { log_records: LogRecord[] }[] }[];
}

export interface ReadLogs {
  readonly resource: JsonObject;
  readonly events: Event[];
}

/** Of a request with one resource and one scope. */
export function readLogs(bytes: Uint8Array): ReadLogs {
  const logs = LogsData.toObject(LogsData.decode(bytes), { longs: String, defaults: false }) as Logs;
  const [one, ...others] = logs.resource_logs;
  if (one === undefined || others.length > 0 || one.scope_logs.length !== 1) throw new Error('not one scope');
  const resource = Object.fromEntries(one.resource.attributes.map(({ key, value }) => [key, readValue(value)]));
  return { resource, events: (one.scope_logs[0]?.log_records ?? []).map(eventOf) };
}

function eventOf({ time_unix_nano = '0', attributes = [], event_name = '' }: LogRecord): Event {
  const json: Record<string, JsonValue> = {};
  for (const { key, value } of attributes) {
    const [, group, name = key] = /^(\w+)\.(.*)$/s.exec(key) ?? [];
    if (group !== undefined) json[group] ??= {};
    const into = group === undefined ? json : (json[group] as Record<string, JsonValue>);
    into[name] = key === 'device.platform' ? enumName('PLATFORM', readValue(value)) : readValue(value);
  }
  const event = fromJson(EventSchema, json);
  event.type = EventType[String(event_name).toUpperCase() as keyof typeof EventType];
  const nanos = BigInt(time_unix_nano);
  event.occurredAt = {
    $typeName: 'google.protobuf.Timestamp',
    seconds: nanos / 1_000_000_000n,
    nanos: Number(nanos % 1_000_000_000n),
  };
  return event;
}

const enumName = (prefix: string, name: JsonValue): string => `${prefix}_${String(name).toUpperCase()}`;

function readValue({ string_value, int_value, double_value }: KeyValue['value']): JsonValue {
  const value = string_value ?? int_value ?? double_value;
  if (value === undefined) throw new Error('an attribute without a value');
  return value;
}

import { fromBinary, fromJson, type JsonValue, toBinary, toJson } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { EventBatchSchema, EventSchema } from '#gen/sluice/event/v1/event_pb.js';
import { RejectionCode } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { SluiceError } from '../../errors.js';
import { createRandom, makeBatch } from '../../testing/batches.js';
import { contractOf, field } from '../../testing/contracts.js';
import { makeRichEvent } from '../../testing/rich-events.js';
import { rulesOf } from '../rules.js';
import { scanAfterReading } from '../scan.js';
import { type ReadLimits, readEvent, readEvents } from './batch.js';
import { EventReader } from './event.js';
import { FieldFault } from './fault.js';
import { WireOutput } from './output.js';
import { planOf } from './plan.js';
import { allAtOnce } from './slices.js';
import { JsonText } from './text.js';

const limits: ReadLimits = { maxEvents: 10_000, maxBytes: 1024 * 1024, ignoreUnknownFields: false };

const read = (json: string | Uint8Array, more: Partial<ReadLimits> = {}) => {
  const text = new JsonText(typeof json === 'string' ? Buffer.from(json) : json);
  const batch = allAtOnce(readEvents(text, { ...limits, ...more }));
  text.finish();
  return batch;
};
const idsOf = (bytes: Uint8Array): string[] => fromBinary(EventBatchSchema, bytes).events.map(({ eventId }) => eventId);
const good = (id: string): string =>
  JSON.stringify({ eventId: id, type: 'EVENT_TYPE_CLICK', occurredAt: '2026-01-31T12:00:00Z' });
/** An event with these members. */
const event = (members: string, id = 'x'): string => `${good(id).slice(0, -1)},${members}}`;

test('realistic events become the same bytes as by way of the generated code', () => {
  const batch = makeBatch(createRandom(1), 300);
  const json = JSON.stringify((toJson(EventBatchSchema, batch) as { events: JsonValue }).events);
  assert.equal(read(json), { bytes: Buffer.from(toBinary(EventBatchSchema, batch)), findings: undefined });
});

test('rich events in any script, under both names of their fields, decode to what was written', () => {
  const random = createRandom(2);
  const events = Array.from({ length: 100 }, () => makeRichEvent(random));
  for (const useProtoFieldName of [false, true]) {
    const json = JSON.stringify(events.map((one) => toJson(EventSchema, one, { useProtoFieldName })));
    const escaped = json.replace(/[^ -~]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`);
    for (const text of [json, escaped]) {
      const { bytes, findings } = read(text, { maxBytes: 1 << 30 });
      assert.is(findings, undefined);
      assert.equal(fromBinary(EventBatchSchema, bytes).events, events);
    }
  }
});

const faults: [string, string, keyof typeof RejectionCode, RegExp][] = [
  ['null', '', 'TYPE', /expected an object, got null/],
  ['[]', '', 'TYPE', /got an array/],
  ['[{}]', '', 'TYPE', /got an array/],
  ['7', '', 'TYPE', /got a number/],
  ['"x"', '', 'TYPE', /got a string/],
  ['true', '', 'TYPE', /got a boolean/],
  [event('"userId":7'), 'user_id', 'TYPE', /expected a string, got a number/],
  [event('"userId":["a"]'), 'user_id', 'TYPE', /got an array/],
  [event('"properties":{"plan":"a","qty":2}'), 'properties[qty]', 'TYPE', /expected a string, got a number/],
  [event('"properties":{"qty":null}'), 'properties[qty]', 'TYPE', /got null/],
  [event('"properties":[]'), 'properties', 'TYPE', /expected an object, got an array/],
  [event('"properties":{"":"a","é":{}}'), 'properties[é]', 'TYPE', /got an object/],
  [event('"metrics":{"a":"0x10"}'), 'metrics[a]', 'TYPE', /is "0x10", which is no number/],
  [event('"metrics":{"a":1e999}'), 'metrics[a]', 'OUT_OF_RANGE', /too great/],
  [event('"touch":"paid_search"'), 'touch', 'TYPE', /expected an object, got a string/],
  [event('"touch":{"channel":7}'), 'touch.channel', 'TYPE', /expected a string, got a number/],
  [event('"touch":{"colour":"red"}'), 'touch.colour', 'UNKNOWN_FIELD', /sluice\.event\.v1\.Touch has channel, source/],
  [event('"colour":{"a":[1,{"b":2}]}'), 'colour', 'UNKNOWN_FIELD', /unknown field/],
  [event('"event":"EventId"'), 'event', 'UNKNOWN_FIELD', /unknown field/],
  [event('"touch":{"costMicros":"0x10"}'), 'touch.cost_micros', 'TYPE', /is "0x10"/],
  [event('"valueMicros":" 12 "'), 'value_micros', 'TYPE', /is " 12 ", which is no whole number/],
  [event('"valueMicros":"+5"'), 'value_micros', 'TYPE', /is "\+5"/],
  [event('"valueMicros":""'), 'value_micros', 'TYPE', /is ""/],
  [event('"valueMicros":1.5'), 'value_micros', 'TYPE', /is "1.5", which is no whole number/],
  [event('"valueMicros":true'), 'value_micros', 'TYPE', /expected a whole number, got a boolean/],
  [
    event('"valueMicros":9223372036854775808'),
    'value_micros',
    'OUT_OF_RANGE',
    /a sint64 holds -9223372036854775808 to/,
  ],
  [event('"page":{"status":"-1"}'), 'page.status', 'OUT_OF_RANGE', /a uint32 holds 0 to 4294967295/],
  [event('"device":{"platform":"IOS"}'), 'device.platform', 'UNKNOWN_ENUM', /is "IOS", .*PLATFORM_IOS \(1\)/],
  [event('"device":{"platform":"1"}'), 'device.platform', 'UNKNOWN_ENUM', /is "1"/],
  [
    event('"device":{"platform":{}}'),
    'device.platform',
    'TYPE',
    /the name of an enum value, or its number, got an object/,
  ],
  [event('"device":{"platform":1.5}'), 'device.platform', 'TYPE', /no whole number/],
  [
    good('x').replace('01-31T12', '02-30T12'),
    'occurred_at',
    'TYPE',
    /is "2026-02-30T12:00:00Z", which is no time that exists/,
  ],
  [good('x').replace('T12', 'T24'), 'occurred_at', 'TYPE', /no time that exists/],
  [good('x').replace('"2026-01-31T12:00:00Z"', '1769860800'), 'occurred_at', 'TYPE', /got a number/],
  [event('"userId":"a\\ud800"'), 'user_id', 'UTF8', /half of a surrogate pair \(\\ud800\)/],
  [event('"properties":{"a":"\\udc00"}'), 'properties[a]', 'UTF8', /half of a surrogate pair/],
  [event('"properties":{"\\udc00":"a"}'), 'properties', 'UTF8', /half of a surrogate pair/],
  [event('"user\\ud800":"a"'), '', 'UTF8', /half of a surrogate pair/],
  [event('"eventId":"y"'), 'event_id', 'REPEATED', /given twice/],
  [event('"event_id":"y"'), 'event_id', 'REPEATED', /given twice/],
  [event('"event\\u0049d":"y"'), 'event_id', 'REPEATED', /given twice/],
  [event('"userId":null,"user_id":null'), 'user_id', 'REPEATED', /given twice/],
  [event('"touch":{"channel":"a","channel":"a"}'), 'touch.channel', 'REPEATED', /given twice/],
  [event(`"deep":${'['.repeat(200_000)}${']'.repeat(200_000)}`), 'deep', 'UNKNOWN_FIELD', /unknown field/],
  [event(`"properties":{"a":${'{"a":'.repeat(5_000)}1${'}'.repeat(5_000)}}`), 'properties[a]', 'TYPE', /got an object/],
  [
    event(`"properties":{${Array.from({ length: 65 }, (_, i) => `"k${i}":""`).join()}}`),
    'properties',
    'TOO_MANY',
    /at most 64/,
  ],
];

test('each kind of bad event is named by index, field and code, and costs no other event', () => {
  for (const [bad, path, code, message] of faults) {
    const { bytes, findings } = read(`[${good('a')}, ${bad} ,${good('b')}]`);
    const label = bad.slice(0, 120);
    assert.equal(idsOf(bytes), ['a', 'b'], label);
    assert.equal(findings?.refused, [1], label);
    const [rejection] = findings?.rejections ?? [];
    assert.equal([rejection?.index, rejection?.field, rejection?.code], [1, path, RejectionCode[code]], label);
    assert.match(rejection?.message ?? '', message, label);
  }
});

test('what only the scan can see is joined with what reading saw, in the order of the events', () => {
  const bytes = Buffer.concat([
    Buffer.from('[{"userId":"'),
    Buffer.of(0xff),
    Buffer.from(`"},7,${good('a')},{},null,`),
  ]);
  const twice = event('"properties":{"a":"1","\\u0061":"2"}');
  const { bytes: batch, findings } = read(Buffer.concat([bytes, Buffer.from(`${good('b')},${twice}]`)]));
  assert.ok(findings);
  const scan = scanAfterReading(batch, { maxEvents: 10 }, findings);
  assert.equal([scan.accepted, scan.rejected], [2, 5]);
  assert.equal(
    scan.rejections.map(({ index, field: path, code }) => `${index} ${path} ${RejectionCode[code]}`),
    ['0 user_id UTF8', '1  TYPE', '3 event_id REQUIRED', '4  TYPE', '6 properties[a] REPEATED'],
  );
  assert.equal(idsOf(scan.bytes), ['a', 'b']);
});

test('a batch of which nothing is left is reported, with the first hundred reasons of very many', () => {
  const { bytes, findings } = read(`[${Array(500).fill('null').join()}]`);
  assert.ok(findings);
  const scan = scanAfterReading(bytes, { maxEvents: 10_000 }, findings);
  assert.equal([scan.accepted, scan.rejected, scan.rejections.length], [0, 500, 100]);
  assert.is(scan.rejections[99]?.index, 99);
});

test('the names of objects are data in a map, and unknown fields elsewhere', () => {
  const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty'];
  const { bytes, findings } = read(`[${event(`"properties":{${names.map((name) => `"${name}":"${name}"`).join()}}`)}]`);
  assert.is(findings, undefined);
  const raw = Buffer.from(bytes).toString('latin1');
  for (const name of names) assert.is(raw.split(name).length, 3, name);
  for (const name of names) {
    assert.is(read(`[${event(`"${name}":{}`)}]`).findings?.rejections[0]?.field, name);
    assert.is(read(`[${event(`"touch":{"${name}":null}`)}]`).findings?.rejections[0]?.field, `touch.${name}`);
  }
});

test('unknown fields are left out and listed once each when the request asks for it; all else is as strict', () => {
  const ignoring = { ignoreUnknownFields: true };
  const odd = event('"colour":{"a":[1,null,"x"]},"touch":{"chanel":1,"channel":"a"},"__proto__":1');
  const { bytes, findings } = read(`[${odd},${odd},${event('"hidden":1,"userId":7')}]`, ignoring);
  assert.equal(idsOf(bytes), ['x', 'x']);
  assert.is(fromBinary(EventBatchSchema, bytes).events[0]?.touch?.channel, 'a');
  assert.equal(findings?.ignoredFields, ['colour', 'touch.chanel', '__proto__']);
  assert.equal(findings?.refused, [2]);
  for (const [members, path, code] of [
    ['"colour":1,"colour":2', 'colour', 'REPEATED'],
    ['"colour":{"a":1,"a":2}', 'colour', 'REPEATED'],
    [`"colour":${'['.repeat(200)}${']'.repeat(200)}`, 'colour', 'TOO_DEEP'],
    ['"colour":"\\ud800"', 'colour', 'UTF8'],
    ['"device":{"platform":"IOS"}', 'device.platform', 'UNKNOWN_ENUM'],
  ] as const) {
    const [rejection] = read(`[${event(members)}]`, ignoring).findings?.rejections ?? [];
    assert.equal([rejection?.field, rejection?.code], [path, RejectionCode[code]], members);
  }
});

test('what no contract bounds is bounded here: keys of an ignored object, unknown fields of a message', () => {
  const ignoring = { ignoreUnknownFields: true };
  const keys = (count: number) => Array.from({ length: count }, (_, i) => `"k${i}":{"k0":[]}`).join();
  assert.equal(read(`[${event(`"colour":{${keys(100)}}`)}]`, ignoring).findings?.ignoredFields, ['colour']);
  assert.is(read(`[${event(keys(100))}]`, ignoring).findings?.ignoredFields.length, 100);
  const many = event(`"touch":{${keys(60)}},"device":{${keys(60)}},"colour":[${`{${keys(60)}},`.repeat(60)}{}]`);
  assert.is(read(`[${many}]`, ignoring).findings?.ignoredFields.length, 100);
  for (const [members, path] of [
    [`"colour":[{"a":{${keys(101)}}}]`, 'colour'],
    [`"touch":{${keys(101)}}`, 'touch'],
    [keys(101), ''],
  ] as const) {
    const [rejection] = read(`[${event(members)}]`, ignoring).findings?.rejections ?? [];
    assert.equal([rejection?.field, rejection?.code], [path, RejectionCode.TOO_MANY], members.slice(0, 50));
  }
});

test('only the faults that are reported are put into words', () => {
  const { decode } = TextDecoder.prototype;
  let decoded = 0;
  TextDecoder.prototype.decode = function (...args) {
    decoded++;
    return decode.apply(this, args);
  };
  try {
    for (const bad of [
      '{"type":"NOPE"}',
      '{"colour":1}',
      '{"properties":{"a":7}}',
      '{"valueMicros":"0x1"}',
      '{"occurredAt":""}',
    ]) {
      decoded = 0;
      const { findings } = read(`[${Array(5_000).fill(bad).join()}]`);
      assert.equal([findings?.refused.length, findings?.rejections.length], [5_000, 100]);
      assert.ok(decoded >= 100 && decoded <= 200, `${bad}: ${decoded} texts`);
    }
    decoded = 0;
    const ignored = Array(2_000).fill(event('"colour":1,"touch":{"colour":{"a":[]}}')).join();
    assert.equal(read(`[${ignored}]`, { ignoreUnknownFields: true }).findings?.ignoredFields, [
      'colour',
      'touch.colour',
    ]);
    assert.is(decoded, 2);
  } finally {
    TextDecoder.prototype.decode = decode;
  }
});

test('a text that is no JSON refuses the request, also inside an event that is refused already', () => {
  for (const text of [
    `[${good('a')},{"a":01}]`,
    `[${good('a')},{"userId":7,"x":[}]`,
    `[${good('a')},]`,
    `[${good('a')}`,
    `[7,nul]`,
  ]) {
    assert.throws(
      () => read(text),
      (reason: unknown) => reason instanceof SluiceError && reason.code === 'json_invalid',
    );
  }
});

test('events are counted while they are read, and bytes after each event', () => {
  const tooLarge = (reason: unknown) => reason instanceof SluiceError && reason.code === 'batch_too_large';
  const started = performance.now();
  assert.throws(() => read(`[${'{},'.repeat(1_400_000)}{}]`), tooLarge);
  assert.ok(performance.now() - started < 500);
  assert.throws(() => read(`[${'null,'.repeat(10)}7]`, { maxEvents: 10 }), tooLarge);
  assert.is(read(`[${'null,'.repeat(9)}7]`, { maxEvents: 10 }).findings?.refused.length, 10);
  const fat = event(`"name":"${'x'.repeat(700)}"`);
  assert.throws(() => read(`[${fat},${fat}]`, { maxBytes: 1_000 }), tooLarge);
  assert.is(read(`[${fat}]`, { maxBytes: 1_000 }).findings, undefined);
});

test('an event larger than the memory at hand is written again in more of it', () => {
  for (const size of [65_000, 70_000, 3_000_000]) {
    const large = event(`"name":"${'é'.repeat(size)}","properties":{"${'k'.repeat(size)}":"v"}`);
    const { bytes } = read(`[${good('a')},${large},${good('b')}]`, { maxBytes: 1 << 30 });
    const { events } = fromBinary(EventBatchSchema, bytes);
    assert.equal(
      events.map(({ eventId }) => eventId),
      ['a', 'x', 'b'],
    );
    assert.is(events[1]?.name, 'é'.repeat(size));
    assert.equal(events[1]?.properties, { ['k'.repeat(size)]: 'v' });
  }
});

test('a long text is read in slices, and texts that are read beside each other do not mix', () => {
  const make = (name: string, count: number) =>
    `[${Array.from({ length: count }, (_, i) => event(`"name":"${'x'.repeat(500)}"`, `${name}-${i}`)).join()}]`;
  const texts = [make('a', 3_000), make('b', 2_000), make('c', 10)].map((text) => new JsonText(Buffer.from(text)));
  const slices = texts.map((text) => readEvents(text, { ...limits, maxBytes: 1 << 30 }));
  const counts = [0, 0, 0];
  const ids: string[][] = [[], [], []];
  let left = slices.length;
  while (left > 0) {
    slices.forEach((one, i) => {
      if (ids[i]?.length !== 0) return;
      const from = texts[i]?.p ?? 0;
      const { done, value } = one.next();
      assert.ok((texts[i]?.p ?? 0) - from < 258 * 1024, 'a slice is short');
      counts[i] = (counts[i] ?? 0) + 1;
      if (done !== true) return;
      ids[i] = idsOf(value.bytes);
      left--;
    });
  }
  assert.equal(counts, [7, 5, 1]);
  for (const [i, name] of ['a', 'b', 'c'].entries()) {
    assert.ok(
      ids[i]?.every((id, at) => id === `${name}-${at}`),
      name,
    );
  }
  assert.equal(
    ids.map(({ length }) => length),
    [3_000, 2_000, 10],
  );
});

test('one event alone is read like the first of a batch', () => {
  const text = new JsonText(Buffer.from(good('a')));
  assert.equal(idsOf(readEvent(text, limits).bytes), ['a']);
  assert.is(readEvent(new JsonText(Buffer.from('null')), limits).findings?.rejections[0]?.index, 0);
});

const kinds = contractOf(
  field('d', 1, 'TYPE_DOUBLE'),
  field('f', 2, 'TYPE_FLOAT'),
  field('i64', 3, 'TYPE_INT64'),
  field('u64', 4, 'TYPE_UINT64'),
  field('i32', 5, 'TYPE_INT32'),
  field('f64', 6, 'TYPE_FIXED64'),
  field('f32', 7, 'TYPE_FIXED32'),
  field('b', 8, 'TYPE_BOOL'),
  field('s', 9, 'TYPE_STRING'),
  field('by', 10, 'TYPE_BYTES'),
  field('u32', 11, 'TYPE_UINT32'),
  field('sf32', 12, 'TYPE_SFIXED32'),
  field('sf64', 13, 'TYPE_SFIXED64'),
  field('s32', 14, 'TYPE_SINT32'),
  field('s64', 15, 'TYPE_SINT64'),
  field('e', 16, '.test.Sparse'),
  field('t', 17, '.google.protobuf.Timestamp'),
  field('inner_one', 18, '.test.Inner'),
  field('list', 19, 'TYPE_STRING', { repeated: true, rules: { maxItems: 3 } }),
  field('inners', 20, '.test.Inner', { repeated: true, rules: { maxItems: 3 } }),
  field('map', 21, '.test.Inner', { map: true, rules: { maxItems: 3 } }),
  field('numbers', 22, 'TYPE_SINT64', { map: true, rules: { maxItems: 3 } }),
  field('maybe', 23, 'TYPE_INT32', { optional: true }),
  field('flags', 24, 'TYPE_BOOL', { map: true, rules: { maxItems: 3 } }),
  ...Array.from({ length: 12 }, (_, i) => field(`more${i}`, 30 + i, 'TYPE_STRING')),
);

function readKinds(json: string): Uint8Array {
  const text = new JsonText(Buffer.from(json));
  const out = new WireOutput();
  new EventReader(text, out, false).message(planOf(rulesOf(kinds)));
  return out.bytes.slice(0, out.q);
}

test('every kind of field that a contract may have is read as the generated code reads it', () => {
  const values: Record<string, JsonValue[]> = {
    d: [0, 1.5, -0.25, '2.5', 'NaN', 'Infinity'],
    f: [0, 1.5, '-Infinity'],
    i64: [0, 1, -1, '9223372036854775807', '-9223372036854775808', 4503599627370497],
    u64: [0, 300, '18446744073709551615'],
    i32: [0, 7, -7, '2147483647', -2147483648],
    f64: ['1', '18446744073709551615'],
    f32: [1, 4294967295],
    b: [true, false],
    s: ['', 'é', 'x'.repeat(300)],
    by: ['', 'AQID', 'AQIDBA==', '-_8=', '-_8', '+/8='],
    u32: [1, 4294967295],
    sf32: [-1, 5],
    sf64: ['-1', '5'],
    s32: [0, -1, 1, 2147483647, -2147483648],
    s64: [0, -1, '9223372036854775807', '-9223372036854775808', 999999999999999],
    e: ['ZERO', 'FIVE', 'MINUS', 5, -3, 77],
    t: ['1970-01-01T00:00:00Z', '1969-12-31T23:59:59.5Z', '2026-01-31T12:00:00.123456789+01:00'],
    innerOne: [{}, { name: 'a' }, null],
    inner_one: [{ name: 'b' }],
    list: [[], ['a', '', 'b'], null],
    inners: [[{}, { name: 'x' }]],
    map: [{ a: {}, b: { name: 'x' } }, {}],
    numbers: [{ a: 0, b: '-5' }],
    maybe: [0, 5, null],
    flags: [{ a: true, b: false }],
    more11: ['last'],
  };
  for (const [name, all] of Object.entries(values)) {
    for (const value of all) {
      const json = JSON.stringify({ [name]: value });
      const wanted = toBinary(kinds, fromJson(kinds, { [name]: value }));
      assert.equal(fromBinary(kinds, readKinds(json)), fromBinary(kinds, wanted), json);
      if (!json.includes('{"a"')) assert.equal(readKinds(json), wanted, json);
    }
  }
});

test('a repeated field, a map of messages and a field beyond the thirty-first name what is wrong in them', () => {
  for (const [json, path, code] of [
    ['{"list":["a",null]}', 'list[1]', 'TYPE'],
    ['{"list":["a","b","c","d"]}', 'list', 'TOO_MANY'],
    ['{"inners":[{},{"name":7}]}', 'inners[1].name', 'TYPE'],
    ['{"map":{"k":{"name":7}}}', 'map[k].name', 'TYPE'],
    ['{"map":{"k":null}}', 'map[k]', 'TYPE'],
    ['{"b":"true"}', 'b', 'TYPE'],
    ['{"b":0}', 'b', 'TYPE'],
    ['{"by":"A"}', 'by', 'TYPE'],
    ['{"by":"AQ="}', 'by', 'TYPE'],
    ['{"by":"A Q="}', 'by', 'TYPE'],
    ['{"e":2147483648}', 'e', 'OUT_OF_RANGE'],
    ['{"more11":"a","more11":"b"}', 'more11', 'REPEATED'],
    ['{"innerOne":{},"inner_one":{}}', 'inner_one', 'REPEATED'],
    [`{"map":{"${'k'.repeat(200)}":{"name":7}}}`, `map[${'k'.repeat(64)}…].name`, 'TYPE'],
  ] as const) {
    assert.throws(
      () => readKinds(json),
      (reason: unknown) => {
        assert.ok(reason instanceof FieldFault, json);
        assert.equal([reason.path, reason.code], [path, RejectionCode[code]], json);
        return true;
      },
    );
  }
});

test.run();

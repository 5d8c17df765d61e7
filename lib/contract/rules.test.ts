import { create } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { EventBatchSchema } from '#gen/sluice/event/v1/event_pb.js';
import { Charset, FieldRulesSchema, PiiClass } from '#gen/sluice/rules/v1/rules_pb.js';
import { contractOf, field } from '../testing/contracts.js';
import { contractRevision, revisionOf } from './revision.js';
import { eventRules, type FieldNode, type MessageNode, rulesOf } from './rules.js';

function at(path: string): FieldNode {
  let message: MessageNode | undefined = eventRules;
  let found: FieldNode | undefined;
  for (const name of path.split('.')) {
    found = message?.fields.find((candidate) => candidate.name === name);
    message = found?.message;
  }
  if (found === undefined) throw new Error(`no field ${path}`);
  return found;
}

function refused(why: RegExp, ...fields: ReturnType<typeof field>[]): void {
  assert.throws(() => rulesOf(contractOf(...fields)), why);
}

test('the tree holds what the .proto says', () => {
  assert.is(eventRules.typeName, 'sluice.event.v1.Event');
  const id = at('event_id');
  assert.equal([id.number, id.kind, id.cardinality, id.wireType], [1, 'string', 'singular', 2]);
  assert.equal([id.rules.required, id.rules.maxBytes, id.rules.charset], [true, 64, Charset.TOKEN]);
  assert.equal([at('type').kind, at('type').enum?.typeName], ['enum', 'sluice.event.v1.EventType']);
  assert.is(at('type').enum?.values[3]?.name, 'EVENT_TYPE_CLICK');
  assert.equal([at('device.country').rules.minBytes, at('device.country').column.lowCardinality], [2, true]);
  assert.is(at('user_id').pii, PiiClass.IDENTIFIER);
  assert.equal([at('metrics').cardinality, at('metrics').kind, at('metrics').wireType], ['map', 'double', 1]);
  assert.equal([at('properties').rules.maxItems, at('properties').rules.maxValueBytes], [64, 4096]);
  assert.equal([at('value_micros').rules.min, at('value_micros').rules.max], [-1e15, 1e15]);
});

test("a Timestamp's seconds have the range of its field, its nanos that of a second", () => {
  assert.equal([at('occurred_at.seconds').rules.min, at('occurred_at.seconds').rules.max], [0, 7_258_118_399]);
  assert.equal([at('occurred_at.nanos').rules.min, at('occurred_at.nanos').rules.max], [0, 999_999_999]);
});

test('the tree is frozen through and through', () => {
  const walk = (value: unknown): void => {
    if (typeof value !== 'object' || value === null) return;
    assert.ok(Object.isFrozen(value));
    for (const inner of Object.values(value)) walk(inner);
  };
  walk(eventRules);
});

test('a contract that Sluice cannot hold fails at start with the name of the field', () => {
  refused(/test\.Root\.a: min_bytes and max_bytes are for/, field('a', 1, 'TYPE_INT32', { rules: { maxBytes: 3 } }));
  refused(/test\.Root\.a: charset is for/, field('a', 1, 'TYPE_INT32', { rules: { charset: Charset.TOKEN } }));
  refused(/test\.Root\.a: min and max are for/, field('a', 1, 'TYPE_STRING', { rules: { min: 3 } }));
  refused(/test\.Root\.a: min and max must be exact/, field('a', 1, 'TYPE_INT64', { rules: { max: 2 ** 60 } }));
  refused(/test\.Root\.a: max_items is for/, field('a', 1, 'TYPE_STRING', { rules: { maxItems: 3 } }));
  refused(/test\.Root\.a: max_key_bytes is for/, field('a', 1, 'TYPE_STRING', { rules: { maxKeyBytes: 3 } }));
  refused(/test\.Root\.a: max_value_bytes is for/, field('a', 1, 'TYPE_STRING', { rules: { maxValueBytes: 3 } }));
  refused(/test\.Root\.a: a required number/, field('a', 1, 'TYPE_INT32', { rules: { required: true } }));
  refused(
    /test\.Root\.a: required is for/,
    field('a', 1, 'TYPE_STRING', { repeated: true, rules: { required: true } }),
  );
  refused(/test\.Root\.a: a oneof/, field('a', 1, 'TYPE_STRING', { oneof: true }));
  refused(/test\.Root contains itself/, field('a', 1, '.test.Root'));
});

test('the batch is nothing but events, which is what makes appending its bytes safe', () => {
  assert.is(rulesOf(EventBatchSchema).fields.length, 1);
});

test('the revision is short and stable, and changes with any rule', () => {
  assert.match(contractRevision, /^[0-9a-f]{12}$/);
  assert.is(revisionOf(eventRules), contractRevision);
  const of = (...fields: ReturnType<typeof field>[]) => revisionOf(rulesOf(contractOf(...fields)));
  const text = (rules: object) => of(field('a', 1, 'TYPE_STRING', { rules }));
  const all = [
    text({}),
    text({ maxBytes: 3 }),
    text({ maxBytes: 4 }),
    text({ charset: Charset.TOKEN }),
    text({ pii: PiiClass.IDENTIFIER }),
    text({ column: create(FieldRulesSchema, { column: { codec: 'ZSTD(1)' } }).column }),
    of(field('b', 1, 'TYPE_STRING')),
    of(field('a', 2, 'TYPE_STRING')),
    of(field('a', 1, 'TYPE_BYTES')),
  ];
  assert.is(new Set(all).size, all.length);
  assert.is(text({}), text({}));
});

test.run();

/** What a block has is what is named in its INSERT: no field that is there may be left out. */
import { type DescMessage, fromBinary, toBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { EventBatchSchema, EventSchema } from '#gen/sluice/event/v1/event_pb.js';
import { eventRules } from '../../../lib/contract/rules.js';
import { createRandom, encodeBatch, makeBatch } from '../../../lib/testing/batches.js';
import { acceptedCorpus } from '../../../lib/testing/corpus.js';
import { makeRichEvent } from '../../../lib/testing/rich-events.js';
import { storedPayload } from '../../testing/payloads.js';
import { createWalker } from './field-presence.js';

const walker = createWalker(eventRules, new Map([['user_agent', 14]]));
const random = createRandom(11);
const payload = (bytes: Uint8Array) => storedPayload(random, { tenant: 'acme', batchId: 'b', events: 1, bytes });

/** Paths of the fields that a decoder sees a value in, from the descriptors: not from the code under test. */
function valued(desc: DescMessage, message: Record<string, unknown> | undefined, prefix = ''): string[] {
  if (message === undefined) return [];
  return desc.fields.flatMap((field): string[] => {
    const value = message[field.localName];
    const path = `${prefix}${field.name}`;
    if (field.fieldKind === 'message' && field.message.typeName.startsWith('sluice.')) {
      return valued(field.message, value as Record<string, unknown> | undefined, `${path}.`);
    }
    const empty = value === undefined || value === '' || value === 0 || value === 0n;
    return empty || (field.fieldKind === 'map' && Object.keys(value as object).length === 0) ? [] : [path];
  });
}

const found = (payloads: readonly Uint8Array[]): ReadonlySet<string> => {
  const { presence } = walker.presenceIn(payloads);
  return new Set([...walker.ids].filter(([, id]) => presence(id)).map(([path]) => path));
};

test('every field that some event has a value in is found, however it is encoded', () => {
  let missing = 0;
  for (const bytes of acceptedCorpus(5, 1_500)) {
    const paths = found([payload(bytes)]);
    for (const event of fromBinary(EventBatchSchema, bytes).events) {
      for (const path of valued(EventSchema, event as unknown as Record<string, unknown>)) {
        assert.ok(paths.has(path), `${path} is there and was not found`);
      }
    }
    if (paths.size < walker.ids.size) missing++;
  }
  assert.ok(missing > 500, `only ${missing} batches lacked a field`);
});

test('what encoders write is found exactly, and over all messages of a block', () => {
  for (let i = 0; i < 500; i++) {
    const events = [makeRichEvent(random), makeRichEvent(random)];
    const expected = new Set(
      events.flatMap((event) => valued(EventSchema, event as unknown as Record<string, unknown>)),
    );
    const bodies = events.map((event) => {
      const bytes = toBinary(EventSchema, event);
      const size =
        bytes.length < 128
          ? [bytes.length]
          : bytes.length < 16_384
            ? [(bytes.length & 127) | 128, bytes.length >> 7]
            : undefined;
      return size === undefined
        ? encodeBatch({ $typeName: 'sluice.event.v1.EventBatch', events: [event] })
        : Buffer.concat([Uint8Array.of(0x0a, ...size), bytes]);
    });
    const paths = new Set(
      [...found(bodies.map(payload))].filter(
        (path) =>
          !eventRules.fields.some(
            ({ name, kind }) =>
              name === path && kind === 'message' && !['occurred_at', 'properties', 'metrics'].includes(name),
          ),
      ),
    );
    assert.equal([...paths].sort(), [...expected].sort());
  }
});

test('usual events have few of the fields; an opt-in field of the batch is found when it is there', () => {
  const usual = found([payload(encodeBatch(makeBatch(createRandom(1), 500)))]);
  assert.ok(usual.has('touch.channel') && usual.has('device.country') && usual.has('properties'));
  for (const path of ['device.user_agent', 'app.version', 'page.url', '.user_agent'])
    assert.not.ok(usual.has(path), path);
  // user_agent of the batch: field 14, before the events.
  assert.ok(found([Uint8Array.of(5, 0x72, 1, 0x61, 0x0a, 0)]).has('.user_agent'));
});

test('bytes that cannot be walked count as holding everything', () => {
  const whole = payload(encodeBatch(makeBatch(createRandom(2), 2)));
  const odd = [
    whole.subarray(0, whole.length - 1),
    Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1),
    Uint8Array.of(3, 0x0a, 1, 0x0b),
    Uint8Array.of(2, 0x0b, 0),
    Uint8Array.of(4, 0x0a, 2, 0x0a, 0x7f),
    Uint8Array.of(9),
  ];
  for (const bytes of odd)
    assert.is(walker.presenceIn([whole, bytes]).key, 'everything', Buffer.from(bytes).toString('hex'));
});

test.run();

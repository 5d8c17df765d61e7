/**
 * Valid random events and batches, from a seed: for tests, the load generator and benchmarks.
 *
 *   makeEvent    a realistic event of about 150 encoded bytes: what most traffic looks like
 *   makeBatch    n realistic events
 *   encodeBatch  the bytes of a batch
 *
 * rich-events.ts makes events of any shape, for tests of correctness. The same seed gives the same events, byte for byte.
 */
import { create, toBinary } from '@bufbuild/protobuf';
import {
  type Event,
  type EventBatch,
  EventBatchSchema,
  EventSchema,
  EventType,
  PageSchema,
  Platform,
} from '#gen/sluice/event/v1/event_pb.js';

/** Gives a number in [0, 1). */
export type Random = () => number;

/** A small, fast generator (mulberry32): good enough for test data, not for keys. */
export function createRandom(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A whole number in [least, max]. */
export function integer(random: Random, min: number, max: number): number {
  return min + Math.floor(random() * (max - min + 1));
}

/** One of the items. */
export function pick<T>(random: Random, items: readonly T[]): T {
  return items[Math.floor(random() * items.length)] as T;
}

function hex(random: Random, digits: number): string {
  let text = '';
  while (text.length < digits) {
    text += ((random() * 2 ** 32) >>> 0).toString(16).padStart(8, '0');
  }
  return text.slice(0, digits);
}

/** In the form of a version 4 UUID. */
export function makeUuid(random: Random): string {
  const digits = hex(random, 32);
  return `${digits.slice(0, 8)}-${digits.slice(8, 12)}-4${digits.slice(13, 16)}-a${digits.slice(17, 20)}-${digits.slice(20)}`;
}

const channels = [
  'paid_search',
  'paid_social',
  'email',
  'display',
  'affiliate',
  'organic_search',
  'direct',
  'referral',
];
const sources = ['google', 'meta', 'newsletter', 'criteo', 'partner-12', 'bing', 'tiktok'];
const campaigns = ['spring_sale', 'brand_dach', 'retarget_cart', 'launch_2026', 'always_on'];
const countries = ['CH', 'DE', 'US', 'FR', 'JP', 'BR', 'IN', 'GB'];
const systems = ['17.5.1', '14', '16.7', '15.0'];
const types = [
  EventType.IMPRESSION,
  EventType.IMPRESSION,
  EventType.IMPRESSION,
  EventType.CLICK,
  EventType.CLICK,
  EventType.SESSION,
  EventType.PAGE,
  EventType.INSTALL,
  EventType.CONVERSION,
];

/** The first event happens here: 2026-01-01T00:00:00Z. A constant, so that batches do not depend on the clock. */
export const firstSecond = 1_767_225_600;

/** A realistic event of about 150 encoded bytes; `index` spaces the events of a run in time. */
export function makeEvent(random: Random, index: number): Event {
  const type = pick(random, types);
  const event = create(EventSchema, {
    eventId: makeUuid(random),
    type,
    occurredAt: { seconds: BigInt(firstSecond + Math.floor(index / 50)), nanos: integer(random, 0, 999) * 1_000_000 },
    anonymousId: hex(random, 16),
    sessionId: hex(random, 12),
    device: {
      platform: pick(random, [Platform.IOS, Platform.ANDROID, Platform.WEB]),
      osVersion: pick(random, systems),
      country: pick(random, countries),
    },
    touch: { channel: pick(random, channels), source: pick(random, sources), campaign: pick(random, campaigns) },
  });
  if (random() < 0.3) event.userId = `u-${integer(random, 1, 200_000)}`;
  if (type === EventType.PAGE) event.page = create(PageSchema, { path: '/pricing', status: 200 });
  if (type === EventType.CONVERSION) {
    event.name = 'order_completed';
    event.valueMicros = BigInt(integer(random, 1, 30_000)) * 10_000n;
    event.currency = pick(random, ['EUR', 'CHF', 'USD']);
    event.properties = { plan: pick(random, ['free', 'pro', 'team']) };
  }
  if (type === EventType.SESSION) event.metrics = { battery: Math.round(random() * 100) / 100 };
  return event;
}

/** A batch of `count` realistic events. */
export function makeBatch(random: Random, count: number): EventBatch {
  const batch = create(EventBatchSchema);
  for (let i = 0; i < count; i++) {
    batch.events.push(makeEvent(random, i));
  }
  return batch;
}

/** The bytes of a batch. */
export function encodeBatch(batch: EventBatch): Uint8Array {
  return toBinary(EventBatchSchema, batch);
}

const letters = [
  'a',
  'Z',
  '7',
  ' ',
  '-',
  '/',
  'é',
  'ß',
  '\u07ff',
  '\u0800',
  '你',
  '\uffee',
  '\ud7ff',
  '😀',
  '\u{10ffff}',
];

/** Text of many scripts, at most `max` bytes of UTF-8, often exactly that, sometimes empty; `control` allows U+0000 and kin. */
export function makeText(random: Random, max: number, control: boolean): string {
  const style = random();
  if (style < 0.1) return '';
  const limit = style < 0.25 ? max : integer(random, 0, Math.min(max, style < 0.9 ? 24 : 300));
  // Half of the texts are ASCII alone: that path of a scanner has its own boundaries.
  const alphabet = random() < 0.5 ? letters.slice(0, 6) : control ? [...letters, '\u0000', '\n', '\u007f'] : letters;
  let text = '';
  let bytes = 0;
  while (bytes < limit) {
    const letter = pick(random, alphabet);
    const length = Buffer.byteLength(letter);
    if (bytes + length <= limit) {
      text += letter;
      bytes += length;
    } else {
      text += 'x';
      bytes++;
    }
  }
  return text;
}

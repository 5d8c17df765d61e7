/**
 * Random journeys that look like life: people see and click ads over several channels, some install an app, open it, and
 * some of them buy. The same seed gives the same journeys.
 */
import { hourMs } from '../../lib/units.js';
import { type EventInit, EventType, Platform } from '../../sdk-gen/typescript/src/index.js';
import type { Source } from './source.js';

type Random = () => number;

/** mulberry32: small, fast, good enough for a demo. */
function createRandom(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

interface Channel {
  readonly name: string;
  /** How many of 100 touches come from it. */
  readonly share: number;
  /** How many of its touches are only seen. */
  readonly impressions: number;
  readonly sources: readonly string[];
  readonly medium: string;
  /** Of a click, in millionths. */
  readonly costMicros: number;
}

const channels: readonly Channel[] = [
  { name: 'paid_search', share: 22, impressions: 0.2, sources: ['google', 'bing'], medium: 'cpc', costMicros: 450_000 },
  { name: 'paid_social', share: 24, impressions: 0.7, sources: ['meta', 'tiktok'], medium: 'cpm', costMicros: 180_000 },
  { name: 'display', share: 18, impressions: 0.9, sources: ['criteo', 'dv360'], medium: 'cpm', costMicros: 60_000 },
  { name: 'organic_search', share: 14, impressions: 0, sources: ['google'], medium: 'organic', costMicros: 0 },
  { name: 'email', share: 10, impressions: 0.3, sources: ['newsletter'], medium: 'email', costMicros: 2_000 },
  {
    name: 'affiliate',
    share: 7,
    impressions: 0.1,
    sources: ['partner-12', 'partner-31'],
    medium: 'cpa',
    costMicros: 0,
  },
  { name: 'referral', share: 5, impressions: 0, sources: ['blog.example.com'], medium: 'referral', costMicros: 0 },
];
const campaigns = ['spring_sale', 'brand', 'retargeting', 'launch', 'always_on'];
const markets = [
  { country: 'CH', locale: 'de-CH', currency: 'CHF', offset: 120 },
  { country: 'DE', locale: 'de-DE', currency: 'EUR', offset: 120 },
  { country: 'FR', locale: 'fr-FR', currency: 'EUR', offset: 120 },
  { country: 'US', locale: 'en-US', currency: 'USD', offset: -300 },
  { country: 'JP', locale: 'ja-JP', currency: 'JPY', offset: 540 },
];
const devices = [
  { platform: Platform.IOS, osVersion: '17.5.1', manufacturer: 'Apple', model: 'iPhone15,2' },
  { platform: Platform.IOS, osVersion: '16.7', manufacturer: 'Apple', model: 'iPhone12,1' },
  { platform: Platform.ANDROID, osVersion: '14', manufacturer: 'Samsung', model: 'SM-S921B' },
  { platform: Platform.ANDROID, osVersion: '13', manufacturer: 'Google', model: 'Pixel 7' },
  { platform: Platform.WEB, osVersion: '', manufacturer: '', model: '' },
];
const products = ['starter', 'plus', 'family', 'gift_card'];

const pick = <T>(random: Random, items: readonly T[]): T => items[Math.floor(random() * items.length)] as T;

function pickChannel(random: Random): Channel {
  let at = random() * 100;
  for (const channel of channels) {
    at -= channel.share;
    if (at < 0) return channel;
  }
  return channels[0] as Channel;
}

/** One person's journey: touches, then perhaps the install, sessions and purchases. In order of time, ending by `endMs`. */
export function* journey(random: Random, person: string, endMs: number): Generator<EventInit> {
  const market = pick(random, markets);
  const kind = pick(random, devices);
  const device = {
    ...kind,
    id: `d-${person}`,
    locale: market.locale,
    country: market.country,
    utcOffsetMinutes: market.offset,
  };
  const isApp = kind.platform !== Platform.WEB;
  const app = isApp ? { id: 'com.example.shop', version: pick(random, ['4.2.0', '4.2.1', '4.3.0']) } : undefined;
  // Backwards from a random moment of the last four weeks, so that nothing lies in the future.
  const events: (EventInit & { at: number })[] = [];
  let at = 0;
  const wait = (hours: number): number => {
    at += Math.max(1_000, -Math.log(1 - random()) * hours * hourMs);
    return at;
  };
  const touches = 1 + Math.floor(-Math.log(1 - random()) * 2.2);
  for (let i = 0; i < Math.min(touches, 20); i++) {
    const channel = pickChannel(random);
    const seen = random() < channel.impressions;
    events.push({
      at: wait(30),
      type: seen ? EventType.IMPRESSION : EventType.CLICK,
      touch: {
        channel: channel.name,
        source: pick(random, channel.sources),
        medium: channel.medium,
        campaign: pick(random, campaigns),
        ...(seen ? {} : { costMicros: BigInt(channel.costMicros) }),
      },
    });
  }
  const engaged = random() < 0.35;
  if (engaged && isApp) events.push({ at: wait(0.2), type: EventType.INSTALL });
  if (engaged) {
    const sessions = 1 + Math.floor(random() * 4);
    for (let i = 0; i < sessions; i++) {
      const sessionId = `s-${person}-${i}`;
      events.push({ at: wait(12), type: EventType.SESSION, sessionId });
      if (!isApp) {
        const path = pick(random, ['/', '/pricing', '/products/plus', '/cart']);
        events.push({
          at: wait(0.02),
          type: EventType.PAGE,
          sessionId,
          page: { url: `https://shop.example.com${path}`, path, status: 200 },
        });
      }
      if (random() < 0.3) {
        events.push({
          at: wait(0.1),
          type: EventType.CONVERSION,
          name: 'order_completed',
          sessionId,
          userId: `u-${person}`,
          valueMicros: BigInt(Math.round(500 + -Math.log(1 - random()) * 3_500)) * 10_000n,
          currency: market.currency,
          properties: { product: pick(random, products) },
        });
      }
    }
  }
  const first = endMs - at - Math.floor(random() * 28 * 24) * hourMs;
  for (const { at: after, ...event } of events) {
    yield { ...event, occurredAt: new Date(first + after), anonymousId: person, device, ...(app && { app }) };
  }
}

/** Exactly `total` events; the last journey may end early. */
export function createGeneratedSource(options: { total: number; seed: number; run: string; endMs: number }): Source {
  return {
    title: `${options.total.toLocaleString('en')} events of generated journeys (seed ${options.seed})`,
    total: options.total,
    notes: [],
    async *events() {
      const random = createRandom(options.seed);
      let left = options.total;
      for (let person = 0; left > 0; person++) {
        for (const event of journey(random, `${options.run}-p${person}`, options.endMs)) {
          if (left-- <= 0) return;
          yield event;
        }
      }
    },
  };
}

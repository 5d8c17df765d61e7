/**
 * The events of a run. Source `s` (a client process, or the prober) makes its n-th event as `s-n`, and every other value follows from
 * these two numbers, once in JavaScript for sending and once in SQL for comparing: no list of what was sent is needed.
 */
import { type EventType, Platform } from '#gen/sluice/event/v1/event_pb.js';
import type { EventInit } from '../sdk-gen/typescript/src/index.js';

/** Names of the columns' enum values, by number. */
const types = ['install', 'session', 'click', 'impression', 'conversion', 'page', 'custom'];
const startSeconds = 1_767_225_600;
const campaigns = 97;
const text = 'züri ✓ '.repeat(3);

export const eventId = (source: number, n: number): string => `${source}-${n}`;

/** The n-th event of a source. All of its fields, also those that it leaves empty, are compared ({@link wrongValues}). */
export function makeEvent(source: number, n: number): EventInit {
  const kind = n % 7;
  return {
    eventId: eventId(source, n),
    type: (kind + 1) as EventType,
    occurredAt: { seconds: BigInt(startSeconds + (n % 86_400)), nanos: (n % 1_000) * 1_000_000 },
    name: `event ${kind}`,
    userId: `u-${(n * 7_919) % 100_003}`,
    sessionId: `s-${source}`,
    ...(n % 3 === 0
      ? {}
      : { device: { id: `d-${n % 1_009}`, platform: Platform.IOS, utcOffsetMinutes: (n % 25) * 30 - 360 } }),
    ...(n % 2 === 0 ? { touch: { campaign: `c-${n % campaigns}`, costMicros: BigInt(n) * 1_000n } } : {}),
    ...(kind === 4 ? { valueMicros: BigInt(n) * 10_000n - 5_000_000n, currency: 'CHF' } : {}),
    ...(n % 5 === 0 ? { properties: { n: String(n), text: text.slice(0, n % 20) } } : {}),
    ...(n % 11 === 0 ? { metrics: { half: n / 2 } } : {}),
    ...(kind === 5 ? { page: { path: `/p/${n % 501}`, status: 200 + (n % 5) } } : {}),
  };
}

/** Columns of the two numbers, for queries: `s` and `n`, 0 and 2^32-1 where the id is none of this harness. */
export const idColumns =
  "toUInt32OrZero(splitByChar('-', event_id)[1]) AS s, if(match(event_id, '^[0-9]+-[0-9]+$'), toUInt32OrZero(splitByChar('-', event_id)[2]), 4294967295) AS n";

const equal: readonly (readonly [column: string, expected: string])[] = [
  ['toString(type)', `arrayElement([${types.map((name) => `'${name}'`).join(', ')}], n % 7 + 1)`],
  ['toUnixTimestamp64Nano(occurred_at)', `toInt64((${startSeconds} + n % 86400) * 1000000000 + (n % 1000) * 1000000)`],
  ['name', "concat('event ', toString(n % 7))"],
  ['user_id', "concat('u-', toString((toUInt64(n) * 7919) % 100003))"],
  ['anonymous_id', "''"],
  ['session_id', "concat('s-', toString(s))"],
  ['device_id', "if(n % 3 = 0, '', concat('d-', toString(n % 1009)))"],
  ['toString(device_platform)', "if(n % 3 = 0, 'unspecified', 'ios')"],
  ['device_model', "''"],
  ['device_utc_offset_minutes', 'if(n % 3 = 0, 0, toInt32(n % 25) * 30 - 360)'],
  ['touch_campaign', `if(n % 2 = 0, concat('c-', toString(n % ${campaigns})), '')`],
  ['touch_cost_micros', 'if(n % 2 = 0, toInt64(n) * 1000, 0)'],
  ['touch_click_id', "''"],
  ['value_micros', 'if(n % 7 = 4, toInt64(n) * 10000 - 5000000, 0)'],
  ['currency', "if(n % 7 = 4, 'CHF', '')"],
  [
    'properties',
    `if(n % 5 = 0, map('n', toString(n), 'text', substringUTF8('${text}', 1, n % 20)), CAST(map(), 'Map(String, String)'))`,
  ],
  ['metrics', "if(n % 11 = 0, map('half', n / 2), CAST(map(), 'Map(String, Float64)'))"],
  ['page_path', "if(n % 7 = 5, concat('/p/', toString(n % 501)), '')"],
  ['page_status', 'if(n % 7 = 5, 200 + n % 5, 0)'],
  ['page_url', "''"],
  ['app_id', "''"],
];

/** Columns that are compared, as an expression that is the list of those whose value is not the sent one. Needs `s` and `n`. */
export const wrongValues = `arrayFilter(x -> x != '', [${equal
  .map(([column, expected]) => `if(${column} = ${expected}, '', '${column.replace(/'/g, '')}')`)
  .join(', ')}])`;

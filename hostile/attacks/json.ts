/** JSON and gzip that grow when they are read. */
import { gzipSync } from 'node:zlib';
import { KiB, MiB } from '../../lib/units.js';
import type { Attack, Field } from '../attack.js';
import { head } from '../wire/h1.js';
import type { Headers } from '../wire/h2.js';
import { bearer, envelope, grpcHeaders, plainHeaders, service } from '../wire/messages.js';
import { openMany, openManyH1, settle } from './peers.js';

/** Requests at a time, and the pause between them: what one request does to others must show, not the load of many. */
const atOnce = 4;
const pauseMs = 200;

/** Sends `count` requests over HTTP/2, four at a time, and waits for their answers. */
async function post(field: Field, count: number, headers: Headers, body: Uint8Array): Promise<void> {
  let [peer] = await openMany(field, 1);
  for (let i = 0; i < count && !field.over; i++) {
    if (peer === undefined || peer.over) [peer] = await openMany(field, 1);
    if (peer === undefined) return;
    await Promise.race([peer.send(peer.request(headers, false), body, true), field.untilOver()]);
    if (i % atOnce !== atOnce - 1) continue;
    await peer.untilAnswered(5_000);
    await field.pause(pauseMs);
  }
  if (peer !== undefined) await settle(field, [peer]);
}

const jsonHeaders = (path: string, key: string | undefined, more: Headers = []): Headers =>
  plainHeaders('POST', path, [['content-type', 'application/json'], ['authorization', bearer(key ?? '')], ...more]);
const gzip: Headers = [['content-encoding', 'gzip']];
const batchPath = '/v1/events/batch';

const emptyEvents = (count: number): string => `{"events":[${Array(count).fill('{}').join(',')}]}`;
const events = (count: number, make: () => string): string =>
  `{"events":[${Array.from({ length: count }, make).join(',')}]}`;
const badType = `{"type":"${'x'.repeat(380)}"}`;
const ignoredNames = `{"eventId":"e","type":1,"occurredAt":"2026-01-31T12:00:00Z",${Array.from({ length: 45 }, (_, i) => `"${i.toString(36)}":0`).join(',')}}`;
/** 64 MiB of the byte, packed. */
const packed = (byte: string): Buffer => gzipSync(Buffer.alloc(64 * MiB, byte), { level: 9 });

/** An attack of some requests with the same JSON body. */
const bodyOf = (name: string, about: string, count: number, make: () => string): Attack => ({
  name,
  about: `with a valid key, ${count} requests, 4 at once, with ${about}`,
  keys: 1,
  run: (field) => post(field, field.scaled(count), jsonHeaders(batchPath, field.keys[0]), Buffer.from(make())),
});

/** A valid event but for one field. */
const eventWith = (field: string): string =>
  `{"events":[{"eventId":"e-1","type":"EVENT_TYPE_CLICK","occurredAt":"2026-01-31T12:00:00Z",${field}}]}`;

const nearlyFull = 3 * MiB;

export const json: readonly Attack[] = [
  {
    name: 'json-packed-events',
    about: 'with a valid key, 80 requests of 4 kB, 4 at once: 1.39 million empty events, packed with gzip',
    keys: 1,
    run: (field) =>
      post(
        field,
        field.scaled(80),
        jsonHeaders(batchPath, field.keys[0], gzip),
        gzipSync(emptyEvents(field.scaled(1_390_000)), { level: 9 }),
      ),
  },
  {
    name: 'json-packed-events-rpc',
    about: 'the same over Connect, as JSON of Publish',
    keys: 1,
    run: (field) =>
      post(
        field,
        field.scaled(80),
        jsonHeaders(`${service}Publish`, field.keys[0], gzip),
        gzipSync(`{"batch":${emptyEvents(field.scaled(1_390_000))}}`, { level: 9 }),
      ),
  },
  bodyOf('json-empty-events', '1 million empty events, as they are', 80, () => emptyEvents(1_000_000)),
  bodyOf('json-nested', 'values nested a million deep', 80, () => eventWith(`"touch":${'{"touch":'.repeat(300_000)}`)),
  bodyOf('json-long-numbers', 'integers of 3 million digits', 80, () =>
    eventWith(`"valueMicros":${'9'.repeat(nearlyFull)}`),
  ),
  bodyOf('json-long-exponents', 'numbers with exponents of a million digits', 80, () =>
    eventWith(`"valueMicros":1e${'9'.repeat(1_000_000)}`),
  ),
  bodyOf('json-many-keys', 'an object of 250,000 unknown keys', 80, () =>
    eventWith(Array.from({ length: 250_000 }, (_, i) => `"k${i}":1`).join(',')),
  ),
  bodyOf('json-many-properties', 'a map of 200,000 entries', 80, () =>
    eventWith(`"properties":{${Array.from({ length: 200_000 }, (_, i) => `"k${i}":"v"`).join(',')}}`),
  ),
  bodyOf('json-escapes', '3 MiB of escapes in one text', 80, () =>
    eventWith(`"userId":"${'\\u0041'.repeat(500_000)}"`),
  ),
  bodyOf('json-refused-events', '10,000 events of an unknown type', 80, () => events(10_000, () => badType)),
  {
    name: 'json-ignored-names',
    about: 'with a valid key, 80 requests, 4 at once, with 450,000 unknown names that are to be ignored',
    keys: 1,
    run: (field) =>
      post(
        field,
        field.scaled(80),
        jsonHeaders(batchPath, field.keys[0], [['sluice-unknown-fields', 'ignore']]),
        Buffer.from(events(10_000, () => ignoredNames)),
      ),
  },
  {
    name: 'protobuf-empty-fields',
    about: 'with a valid key, 80 gRPC calls, 4 at once, with a message of 500,000 empty times',
    keys: 1,
    run: (field) =>
      post(
        field,
        field.scaled(80),
        grpcHeaders(`${service}Publish`, field.keys[0]),
        envelope(Buffer.alloc(field.scaled(1_000_000), Buffer.of(0x22, 0))),
      ),
  },
  {
    name: 'gzip-http1',
    about: 'with a valid key, 80 bodies over HTTP/1.1, 4 at once: 64 kB that unpack to 64 MiB',
    keys: 1,
    async run(field) {
      const body = packed(' ');
      const peers = await openManyH1(field, 4);
      for (let round = 0; round < field.scaled(20) && !field.over; round++) {
        for (const peer of peers) {
          if (peer.over) continue;
          field.counts.sent++;
          peer.unanswered++;
          const headers = ['content-type: application/json', 'content-encoding: gzip'];
          const more = [`content-length: ${body.length}`, `authorization: ${bearer(field.keys[0] ?? '')}`];
          await peer.write(head('POST', batchPath, [...headers, ...more]));
          await peer.write(body);
        }
        await Promise.race([Promise.all(peers.map((peer) => peer.change())), field.pause(3_000)]);
        await field.pause(pauseMs);
      }
      await settle(field, peers);
    },
  },
  {
    name: 'gzip-connect',
    about: 'with a valid key, 80 Connect calls of binary Publish, 4 at once: 64 kB that unpack to 64 MiB',
    keys: 1,
    run: (field) =>
      post(
        field,
        field.scaled(80),
        plainHeaders('POST', `${service}Publish`, [
          ['content-type', 'application/proto'],
          ['authorization', bearer(field.keys[0] ?? '')],
          ...gzip,
        ]),
        packed('\0'),
      ),
  },
  {
    name: 'gzip-grpc',
    about: 'with a valid key, 80 gRPC calls, 4 at once: a packed message of 64 kB that unpacks to 64 MiB',
    keys: 1,
    run: (field) =>
      post(
        field,
        field.scaled(80),
        grpcHeaders(`${service}Publish`, field.keys[0], [['grpc-encoding', 'gzip']]),
        envelope(packed('\0'), 1),
      ),
  },
  {
    name: 'gzip-tiny-messages',
    about:
      'with a valid key, 80 streams, 4 at once, each with 1,000 packed messages of 300 bytes that unpack to 250 KiB',
    keys: 1,
    async run(field) {
      const message = envelope(gzipSync(Buffer.alloc(250 * KiB), { level: 9 }), 1);
      const body = Buffer.concat(Array.from({ length: 1_000 }, () => message));
      const headers = grpcHeaders(`${service}PublishStream`, field.keys[0], [['grpc-encoding', 'gzip']]);
      await post(field, field.scaled(80), headers, body);
    },
  },
  {
    name: 'gzip-grpc-web',
    about: 'the same over gRPC-Web',
    keys: 1,
    run: (field) =>
      post(
        field,
        field.scaled(80),
        plainHeaders('POST', `${service}Publish`, [
          ['content-type', 'application/grpc-web+proto'],
          ['grpc-encoding', 'gzip'],
          ['authorization', bearer(field.keys[0] ?? '')],
        ]),
        envelope(packed('\0'), 1),
      ),
  },
  {
    name: 'gzip-get',
    about: 'with a valid key, 400 GETs of GetLimits, 4 at once, whose query unpacks to 8 MiB',
    keys: 1,
    async run(field) {
      const message = gzipSync(Buffer.alloc(8 * MiB), { level: 9 }).toString('base64url');
      const query = `connect=v1&encoding=proto&base64=1&compression=gzip&message=${message}`;
      const headers = plainHeaders('GET', `${service}GetLimits?${query}`, [
        ['authorization', bearer(field.keys[0] ?? '')],
      ]);
      const [peer] = await openMany(field, 1);
      for (let i = 0; peer !== undefined && i < field.scaled(400) && !field.over && !peer.over; i++) {
        peer.request(headers, true);
        if (i % atOnce !== atOnce - 1) continue;
        await peer.untilAnswered(5_000);
        await field.pause(20);
      }
      if (peer !== undefined) await settle(field, [peer]);
    },
  },
  {
    name: 'gzip-stream',
    about: 'with a valid key, 80 streams, 4 at once, each with 50 packed messages that unpack to 1 MiB',
    keys: 1,
    async run(field) {
      const message = envelope(gzipSync(Buffer.alloc(MiB - 64), { level: 9 }), 1);
      const body = Buffer.concat(Array.from({ length: 50 }, () => message));
      const headers = grpcHeaders(`${service}PublishStream`, field.keys[0], [['grpc-encoding', 'gzip']]);
      await post(field, field.scaled(80), headers, body);
    },
  },
];

/** Bodies that never end, come slowly, or are cut off. */
import { KiB, MiB } from '../../lib/units.js';
import type { Attack, Field } from '../attack.js';
import { head } from '../wire/h1.js';
import type { Headers } from '../wire/h2.js';
import { bearer, envelope, grpcHeaders, plainHeaders, service } from '../wire/messages.js';
import { openMany, openManyH1, streamsPerConnection } from './peers.js';

const oneMiB = MiB;
/** A message of 1 MiB of which the last byte never comes. */
const unfinished = envelope(Buffer.alloc(oneMiB - 1), 0, oneMiB);

/** Opens `count` requests over as many connections as they need, sends `body` on each, and holds them. */
async function holdUnfinished(field: Field, count: number, headers: Headers, body: Uint8Array): Promise<void> {
  const perConnection = streamsPerConnection - 6;
  const peers = await openMany(field, Math.ceil(count / perConnection));
  await Promise.race([
    Promise.all(
      peers.map(async (peer, i) => {
        const mine = Math.min(perConnection, count - i * perConnection);
        for (let n = 0; n < mine && !field.over && !peer.over; n++) {
          await peer.send(peer.request(headers, false), body, false);
        }
      }),
    ),
    field.untilOver(),
  ]);
  await field.untilOver();
}

/** So many bytes a second on each of `count` HTTP/1.1 connections. */
async function drip(field: Field, count: number, start: string, piece: string, everyMs: number): Promise<void> {
  const peers = await openManyH1(field, count);
  for (const peer of peers) {
    field.counts.sent++;
    void peer.write(start);
  }
  while (!field.over) {
    await field.pause(everyMs);
    for (const peer of peers) if (!peer.over) void peer.write(piece);
  }
}

const jsonHead = (key: string | undefined, length: number, more: readonly string[] = []): string =>
  head('POST', '/v1/events/batch', [
    'content-type: application/json',
    `content-length: ${length}`,
    ...(key === undefined ? [] : [`authorization: ${bearer(key)}`]),
    ...more,
  ]);

export const bodies: readonly Attack[] = [
  {
    name: 'unfinished-stream-messages',
    about: 'with a valid key, 1,000 streams with a message of 1 MiB of which the last byte never comes',
    keys: 1,
    run: (field) =>
      holdUnfinished(field, field.scaled(1_000), grpcHeaders(`${service}PublishStream`, field.keys[0]), unfinished),
  },
  {
    name: 'unfinished-unary-bodies',
    about: 'with a valid key, 800 single calls with a body of 1 MiB of which the last byte never comes',
    keys: 1,
    run: (field) =>
      holdUnfinished(field, field.scaled(800), grpcHeaders(`${service}Publish`, field.keys[0]), unfinished),
  },
  {
    name: 'unfinished-library-streams',
    about: 'the same streams, with a header that takes them past the hot path',
    keys: 1,
    run: (field) =>
      holdUnfinished(
        field,
        field.scaled(1_000),
        grpcHeaders(`${service}PublishStream`, field.keys[0], [['grpc-encoding', 'gzip']]),
        unfinished,
      ),
  },
  {
    name: 'stated-lengths',
    about: 'with a valid key, 2,000 streams that state a message of 1 MiB and send ten bytes of it',
    keys: 1,
    run: (field) =>
      holdUnfinished(
        field,
        field.scaled(2_000),
        grpcHeaders(`${service}PublishStream`, field.keys[0]),
        unfinished.subarray(0, 15),
      ),
  },
  {
    name: 'dripping-streams',
    about: 'with a valid key, 1,000 streams with 24 KiB of a message of 1 MiB, and a byte more every 5 s',
    keys: 1,
    async run(field) {
      const count = field.scaled(1_000);
      const peers = await openMany(field, Math.ceil(count / 250));
      const open: [peer: (typeof peers)[number], stream: number][] = [];
      for (let i = 0; i < count && !field.over; i++) {
        const peer = peers[i % peers.length];
        if (peer === undefined || peer.over) continue;
        const stream = peer.request(grpcHeaders(`${service}PublishStream`, field.keys[0]), false);
        open.push([peer, stream]);
        await Promise.race([peer.send(stream, unfinished.subarray(0, 24 * KiB), false), field.untilOver()]);
      }
      while (!field.over) {
        await field.pause(5_000);
        for (const [peer, stream] of open) if (!peer.over) void peer.send(stream, Buffer.from([0]), false);
      }
    },
  },
  {
    name: 'one-byte-bodies',
    about: 'with a valid key, 4,000 JSON calls over HTTP/2 with the first byte of a body, which take the RPC library',
    keys: 1,
    run: (field) =>
      holdUnfinished(
        field,
        field.scaled(4_000),
        plainHeaders('POST', `${service}Publish`, [
          ['content-type', 'application/json'],
          ['authorization', bearer(field.keys[0] ?? '')],
        ]),
        Buffer.from('{'),
      ),
  },
  {
    name: 'unfinished-http1-bodies',
    about: 'with a valid key, 200 JSON bodies of 4.2 MiB over HTTP/1.1 of which the last byte never comes',
    keys: 1,
    async run(field) {
      const length = Math.floor(4.2 * oneMiB);
      const body = Buffer.alloc(length - 1, ' ');
      const peers = await openManyH1(field, field.scaled(200));
      await Promise.race([
        Promise.all(
          peers.map(async (peer) => {
            field.counts.sent++;
            await peer.write(jsonHead(field.keys[0], length));
            for (let at = 0; at < body.length && !peer.over && !field.over; at += 65_536) {
              await peer.write(body.subarray(at, at + 65_536));
            }
          }),
        ),
        field.untilOver(),
      ]);
      await field.untilOver();
    },
  },
  {
    name: 'slow-http1-bodies',
    about: 'with a valid key, 200 bodies over HTTP/1.1, one byte every 100 ms each',
    keys: 1,
    run: (field) => drip(field, field.scaled(200), jsonHead(field.keys[0], 100_000), ' ', 100),
  },
  {
    name: 'slow-http2-bodies',
    about: 'with a valid key, 200 single calls over HTTP/2, one byte of the body every 100 ms each',
    keys: 1,
    async run(field) {
      const [peer] = await openMany(field, 1);
      if (peer === undefined) return;
      const json: Headers = [
        ['content-type', 'application/json'],
        ['authorization', bearer(field.keys[0] ?? '')],
      ];
      const kinds = [grpcHeaders(`${service}Publish`, field.keys[0]), plainHeaders('POST', '/v1/events/batch', json)];
      const open = Array.from({ length: field.scaled(200) }, (_, i) => peer.request(kinds[i % 2]!, false));
      while (!field.over && !peer.over) {
        for (const stream of open) await Promise.race([peer.send(stream, Buffer.from([0]), false), field.untilOver()]);
        await field.pause(100);
      }
      await field.untilOver();
    },
  },
  {
    name: 'bodies-cut-off',
    about: 'with a valid key, 20,000 calls that are reset in the middle of a body of 64 KiB, at most 20 open',
    keys: 1,
    async run(field) {
      const headers = grpcHeaders(`${service}Publish`, field.keys[0]);
      const half = envelope(Buffer.alloc(32 * KiB), 0, 64 * KiB);
      let [peer] = await openMany(field, 1);
      for (let i = 0; peer !== undefined && i < field.scaled(20_000) && !field.over; i++) {
        if (peer.over) [peer] = await openMany(field, 1);
        const stream: number | undefined = peer?.request(headers, false);
        if (peer === undefined || stream === undefined) break;
        await Promise.race([peer.send(stream, half, false), field.untilOver()]);
        peer.reset(stream);
      }
    },
  },
  {
    name: 'tiny-data-frames',
    about: 'with a valid key, 16 bodies of 1 MiB over HTTP/2, in DATA frames of one byte',
    keys: 1,
    async run(field) {
      const [peer] = await openMany(field, 1);
      if (peer === undefined) return;
      const more: Headers = [['authorization', bearer(field.keys[0] ?? '')]];
      const kinds = [
        grpcHeaders(`${service}Publish`, field.keys[0]),
        plainHeaders('POST', '/v1/events/batch', [['content-type', 'application/json'], ...more]),
        plainHeaders('POST', `${service}Publish`, [['content-type', 'application/proto'], ...more]),
      ];
      const open = Array.from({ length: 16 }, (_, i) => peer.request(kinds[i % kinds.length]!, false));
      const start = Buffer.from([0, 0, 0x0f, 0xff, 0xff]);
      for (const stream of open) await peer.send(stream, start, false);
      await Promise.race([
        Promise.all(open.map((stream) => peer.send(stream, Buffer.alloc(field.scaled(oneMiB), ' '), false, 1))),
        field.untilOver(),
      ]);
      await field.untilOver();
    },
  },
  {
    name: 'expect-continue',
    about: 'with a valid key, 500 requests that ask whether to send a body of 1 MiB, and never send it',
    keys: 1,
    run: (field) =>
      drip(field, field.scaled(500), jsonHead(field.keys[0], oneMiB, ['expect: 100-continue']), '', 1_000),
  },
];

/** HTTP/1.1: pipelines, chunks, upgrades, heads without end. */
import { MiB } from '../../lib/units.js';
import type { Attack, Field } from '../attack.js';
import { H1Peer, head } from '../wire/h1.js';
import { bearer } from '../wire/messages.js';
import { openManyH1, settle } from './peers.js';

const chunked = (key: string | undefined): string =>
  head('POST', '/v1/events/batch', [
    'content-type: application/json',
    'transfer-encoding: chunked',
    ...(key === undefined ? [] : [`authorization: ${bearer(key)}`]),
  ]);

/** Writes `piece` again and again on each of `count` connections, after `start`, until `maxBytes` in all. */
async function pour(field: Field, count: number, start: string, piece: Buffer, maxBytes: number): Promise<void> {
  const lane = async (): Promise<void> => {
    while (field.counts.bytesOut < maxBytes && !field.over) {
      const peer = await H1Peer.open(field.target, field.counts);
      if (peer === undefined) {
        await field.pause(50);
        continue;
      }
      field.counts.sent++;
      await peer.write(start);
      while (field.counts.bytesOut < maxBytes && !field.over && !peer.over) {
        if ((await Promise.race([peer.write(piece), field.untilOver()])) !== true) break;
      }
      peer.socket.destroy();
    }
  };
  await Promise.race([Promise.all(Array.from({ length: count }, lane)), field.untilOver()]);
}

export const http1: readonly Attack[] = [
  {
    name: 'pipelined-unread',
    about: 'without a key, 20 connections that pipeline 20,000 GETs each and read no answer',
    async run(field) {
      const thousand = head('GET', '/readyz').repeat(1_000);
      const peers = await openManyH1(field, 20);
      for (const peer of peers) peer.socket.pause();
      await Promise.race([
        Promise.all(
          peers.map(async (peer) => {
            for (let i = 0; i < field.scaled(20) && !peer.over && !field.over; i++) {
              field.counts.sent += 1_000;
              if (!(await peer.write(thousand))) return;
            }
          }),
        ),
        field.untilOver(),
      ]);
      await field.untilOver();
    },
  },
  {
    name: 'pipelined-posts',
    about: 'with a valid key, 4 connections that pipeline 500 POSTs of an event at once, and read the answers',
    keys: 1,
    async run(field) {
      const peers = await openManyH1(field, 4);
      for (const [n, peer] of peers.entries()) {
        const requests = Array.from({ length: field.scaled(500) }, (_, i) => {
          const body = `{"eventId":"p-${n}-${i}","type":"EVENT_TYPE_CLICK","occurredAt":"${new Date().toISOString()}"}`;
          const headers = ['content-type: application/json', `content-length: ${body.length}`];
          return `${head('POST', '/v1/events', [...headers, `authorization: ${bearer(field.keys[0] ?? '')}`])}${body}`;
        });
        field.counts.sent += requests.length;
        peer.unanswered += requests.length;
        void peer.write(requests.join(''));
      }
      await settle(field, peers);
    },
  },
  {
    name: 'chunk-extensions',
    about: 'with a valid key, bodies in chunks of one byte with 4 kB of extension each, at most 200 MiB',
    keys: 1,
    run: (field) =>
      pour(
        field,
        4,
        chunked(field.keys[0]),
        Buffer.from(`1;x=${'a'.repeat(4_000)}\r\n \r\n`.repeat(16)),
        field.scaled(200 * MiB),
      ),
  },
  {
    name: 'tiny-chunks',
    about: 'with a valid key, bodies in chunks of one byte, at most 50 MiB',
    keys: 1,
    run: (field) =>
      pour(field, 4, chunked(field.keys[0]), Buffer.from('1\r\n \r\n'.repeat(10_000)), field.scaled(50 * MiB)),
  },
  {
    name: 'endless-heads',
    about: 'without a key, a request whose headers never end, at most 200 MiB',
    run: (field) =>
      pour(
        field,
        4,
        'GET / HTTP/1.1\r\nhost: x\r\n',
        Buffer.from(`x-a: ${'b'.repeat(1_000)}\r\n`.repeat(16)),
        field.scaled(200 * MiB),
      ),
  },
  {
    name: 'trailers-without-end',
    about: 'with a valid key, a chunked body whose trailers never end, at most 100 MiB',
    keys: 1,
    run: (field) =>
      pour(
        field,
        4,
        `${chunked(field.keys[0])}0\r\n`,
        Buffer.from(`x-a: ${'b'.repeat(1_000)}\r\n`.repeat(16)),
        field.scaled(100 * MiB),
      ),
  },
  {
    name: 'upgrades',
    about: 'without a key, 5,000 requests to change to WebSocket or h2c, 50 at a time',
    async run(field) {
      const kinds = [
        head('GET', '/v1/events', ['connection: upgrade', 'upgrade: websocket', 'sec-websocket-version: 13']),
        head('POST', '/v1/events', ['connection: upgrade, http2-settings', 'upgrade: h2c', 'http2-settings: AAMAAABk']),
        'CONNECT 127.0.0.1:22 HTTP/1.1\r\nhost: x\r\n\r\n',
      ];
      for (let round = 0; round < field.scaled(100) && !field.over; round++) {
        const peers = await openManyH1(field, 50);
        for (const [i, peer] of peers.entries()) {
          field.counts.sent++;
          peer.unanswered++;
          void peer.write(kinds[i % kinds.length]!);
        }
        await settle(field, peers);
        for (const peer of peers) peer.socket.destroy();
      }
    },
  },
];

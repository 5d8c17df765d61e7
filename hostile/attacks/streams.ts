/** Many streams, and streams whose answers no client reads. */
import type { Attack, Field } from '../attack.js';
import { type Headers, setting } from '../wire/h2.js';
import { envelope, grpcHeaders, publishRequests, service } from '../wire/messages.js';
import { openMany, streamsPerConnection } from './peers.js';

/** Sends batches on `count` streams for as long as the gateway reads them, and reads none of its answers. */
async function sendUnread(field: Field, count: number, headers: Headers, messages: number): Promise<void> {
  const messageOf = publishRequests(20);
  const perConnection = Math.min(count, streamsPerConnection - 6);
  const options = { settings: { [setting.window]: 0 }, credits: false };
  const peers = await openMany(field, Math.ceil(count / perConnection), options);
  const lanes = peers.flatMap((peer, p) =>
    Array.from({ length: perConnection }, async (_, lane) => {
      const stream = peer.request(headers, false);
      for (let i = 0; i < messages && !field.over && !peer.over; i++) {
        if (!(await peer.send(stream, envelope(messageOf(`u${p}-${lane}-${i}`)), false))) return;
      }
    }),
  );
  await Promise.race([Promise.all(lanes), field.untilOver()]);
  await field.untilOver();
}

export const streams: readonly Attack[] = [
  {
    name: 'unread-stream-answers',
    about: 'with a valid key, 500 streams that send batches and never read an answer',
    keys: 1,
    run: (field) => sendUnread(field, field.scaled(500), grpcHeaders(`${service}PublishStream`, field.keys[0]), 2_000),
  },
  {
    name: 'unread-unary-answers',
    about: 'with a valid key, 20,000 calls that are answered and whose answers are never read',
    keys: 1,
    async run(field) {
      const messageOf = publishRequests(5);
      const headers = grpcHeaders(`${service}Publish`, field.keys[0]);
      const options = { settings: { [setting.window]: 0 }, credits: false };
      const perConnection = streamsPerConnection - 6;
      const each = Math.min(perConnection, field.scaled(perConnection));
      for (let i = 0; i < field.scaled(80) && !field.over; i++) {
        const [peer] = await openMany(field, 1, options);
        for (let n = 0; peer !== undefined && n < each && !field.over && !peer.over; n++) {
          const sent = peer.send(peer.request(headers, false), envelope(messageOf(`v${i}-${n}`)), true);
          await Promise.race([sent, field.untilOver()]);
        }
      }
      await field.untilOver();
    },
  },
  {
    name: 'uncommitted-batches',
    about:
      'with a valid key, 100 streams that want to hear of ClickHouse, and send 8,000 batches of an event each; nothing is loaded',
    keys: 1,
    async run(field) {
      const messageOf = publishRequests(1);
      // StreamOptions{durability: COMMITTED}, field 5 of the first message.
      const wantsCommits = Buffer.from([0x2a, 2, 0x08, 2]);
      const headers = grpcHeaders(`${service}PublishStream`, field.keys[0]);
      const [peer] = await openMany(field, 1);
      if (peer === undefined) return;
      const lane = async (_: unknown, n: number): Promise<void> => {
        const stream = peer.request(headers, false);
        for (let i = 0; i < field.scaled(160) && !field.over && !peer.over; i++) {
          const fifty = Array.from({ length: 50 }, (_, j) => envelope(messageOf(`w-${n}-${i}-${j}`)));
          if (i === 0) fifty.unshift(envelope(wantsCommits));
          const sent = peer.send(stream, Buffer.concat(fifty), false);
          if ((await Promise.race([sent, field.untilOver()])) !== true) return;
        }
      };
      await Promise.all(Array.from({ length: field.scaled(100) }, lane));
      await field.untilOver();
    },
  },
  {
    name: 'many-streams',
    about: 'with one valid key, 30,000 streams that send nothing',
    keys: 1,
    async run(field) {
      const headers = grpcHeaders(`${service}PublishStream`, field.keys[0]);
      const perConnection = streamsPerConnection - 6;
      const wanted = field.scaled(30_000);
      while (field.counts.sent < wanted && !field.over) {
        const [peer] = await openMany(field, 1);
        if (peer === undefined) await field.pause(50);
        for (let n = 0; peer !== undefined && n < perConnection && field.counts.sent < wanted && !peer.over; n++) {
          peer.request(headers, false);
        }
        await field.pause(20);
      }
      await field.untilOver();
    },
  },
  {
    name: 'empty-messages',
    about: 'with a valid key, 200,000 messages of length 0 on one stream',
    keys: 1,
    async run(field) {
      const [peer] = await openMany(field, 1);
      if (peer === undefined) return;
      const stream = peer.request(grpcHeaders(`${service}PublishStream`, field.keys[0]), false);
      const thousand = Buffer.alloc(5_000);
      for (let i = 0; i < field.scaled(200) && !field.over; i++) {
        const sent = peer.send(stream, thousand, false);
        if ((await Promise.race([sent, field.untilOver()])) === false) break;
        field.counts.sent += 1_000;
      }
      // The answers come while the gateway reads.
      while (peer.open > 0 && !peer.over && !field.over) await field.pause(50);
    },
  },
];

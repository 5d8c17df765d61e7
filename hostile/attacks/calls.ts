/** Calls whose answers are not taken, and calls that are refused. */
import { KiB, MiB } from '../../lib/units.js';
import type { Attack, Field } from '../attack.js';
import { H2Peer, type Headers, setting } from '../wire/h2.js';
import { bearer, envelope, grpcHeaders, plainHeaders, publishRequests, service } from '../wire/messages.js';
import { openMany, settle, streamsPerConnection } from './peers.js';

const noWindow = { settings: { [setting.window]: 0 } };
const json: Headers = [['content-type', 'application/json']];

/** Headers of calls in every protocol. */
const everyKind = (key: string | undefined): Headers[] => {
  const authorization: Headers = key === undefined ? [] : [['authorization', bearer(key)]];
  return [
    grpcHeaders(`${service}Publish`, key),
    plainHeaders('POST', `${service}Publish`, [...json, ...authorization]),
    plainHeaders('POST', `${service}Publish`, [['content-type', 'application/proto'], ...authorization]),
    plainHeaders('POST', '/v1/events', [...json, ...authorization]),
    plainHeaders('POST', '/v1/events/batch', [...json, ...authorization]),
  ];
};

/** So many calls a second, on one connection after another, whose answers find no window. */
async function callWithoutWindow(field: Field, perSecond: number, key: string | undefined): Promise<void> {
  // Without gRPC: its refusals are headers alone, and need no window.
  const requests = everyKind(key).slice(1);
  const peers: H2Peer[] = [];
  let peer: H2Peer | undefined;
  for (let i = 0; i < field.scaled(perSecond * 60) && !field.over; i++) {
    if (peer === undefined || peer.over || peer.open >= streamsPerConnection - 6) {
      peer = await H2Peer.open(field.target, field.counts, noWindow);
      if (peer === undefined) {
        await field.pause(100);
        continue;
      }
      peers.push(peer);
    }
    peer.request(requests[i % requests.length]!, true);
    await field.pause(1_000 / perSecond);
  }
  await field.untilOver();
}

const oneMiB = Buffer.alloc(MiB);

export const calls: readonly Attack[] = [
  {
    name: 'window-zero-strangers',
    about: 'without a key, 60 calls a second without a body, of which each is refused, from a client whose window is 0',
    run: (field) => callWithoutWindow(field, 60, undefined),
  },
  {
    name: 'window-zero-customers',
    about: 'the same with a valid key',
    keys: 1,
    run: (field) => callWithoutWindow(field, 60, field.keys[0]),
  },
  {
    name: 'empty-calls-behind-seats',
    about: 'with a valid key, 200 calls that stay open, and 50 calls behind them without a body',
    keys: 1,
    async run(field) {
      const headers = grpcHeaders(`${service}Publish`, field.keys[0]);
      const [holding] = await openMany(field, 1);
      const [asking] = await openMany(field, 1);
      if (holding === undefined || asking === undefined) return;
      for (let i = 0; i < field.scaled(200); i++)
        await holding.send(holding.request(headers, false), Buffer.from([0]), false);
      const requests = everyKind(field.keys[0]);
      for (let i = 0; i < field.scaled(50); i++) asking.request(requests[i % requests.length]!, true);
      await settle(field, [asking]);
      await field.untilOver();
    },
  },
  {
    name: 'refused-bodies-window-zero',
    about: 'without a key, 800 bodies of 1 MiB from a client whose window is 0',
    async run(field) {
      const kinds = everyKind(undefined);
      const peers = await openMany(field, 16, noWindow);
      const each = field.scaled(50);
      await Promise.all(
        peers.map(async (peer) => {
          const open: Promise<boolean>[] = [];
          for (let i = 0; i < each && !field.over && !peer.over; i++) {
            open.push(peer.send(peer.request(kinds[i % kinds.length]!, false), envelope(oneMiB), true));
            await field.pause(2);
          }
          await Promise.race([Promise.all(open), field.untilOver()]);
        }),
      );
      await field.untilOver();
    },
  },
  {
    name: 'unserved-methods',
    about:
      'without a key, CONNECT and unknown expectations, 250 a connection, 48 KiB of a body that does not end behind each',
    async run(field) {
      const kinds: readonly Headers[] = [
        [
          [':method', 'CONNECT'],
          [':authority', 'elsewhere:443'],
        ],
        plainHeaders('POST', '/v1/events', [...json, ['expect', 'something-else']]),
      ];
      const peers = await openMany(field, field.scaled(40));
      for (const peer of peers) {
        for (let i = 0; i < 250 && !field.over && !peer.over; i++) {
          const stream = peer.request(kinds[i % kinds.length]!, false);
          void peer.send(stream, oneMiB.subarray(0, 48 * KiB), false);
        }
        await field.pause(30);
      }
      await settle(field, peers);
    },
  },
  {
    name: 'ten-thousand-rejections',
    about: 'with a valid key, 20 batches of 10,000 events of which each is invalid, 4 at once',
    keys: 1,
    async run(field) {
      const [peer] = await openMany(field, 1);
      if (peer === undefined) return;
      // An event without any field, 10,000 times: field 1 of the batch, of length 0.
      const events = Buffer.alloc(20_000, Buffer.from([0x0a, 0]));
      const request = Buffer.concat([Buffer.from([0x0a, 0xa0, 0x9c, 0x01]), events]);
      const headers = grpcHeaders(`${service}Publish`, field.keys[0]);
      for (let i = 0; i < field.scaled(20) && !field.over && !peer.over; i++) {
        await peer.send(peer.request(headers, false), envelope(request), true);
        if (i % 4 === 3) await peer.untilAnswered(5_000);
      }
      await settle(field, [peer]);
    },
  },
  {
    name: 'many-tenants-at-their-limit',
    about: 'eight customers, each with as many calls of 500 events open as the gateway takes, 40 at once',
    keys: 8,
    async run(field) {
      const messageOf = publishRequests(500);
      await Promise.all(
        field.keys.map(async (key, tenant) => {
          const headers = grpcHeaders(`${service}Publish`, key);
          const [peer] = await openMany(field, 1);
          for (let i = 0; peer !== undefined && i < field.scaled(4_000) && !field.over && !peer.over; i++) {
            await peer.send(peer.request(headers, false), envelope(messageOf(`t${tenant}-${i}`)), true);
            while (peer.open >= 40 && !peer.over && !field.over) await field.pause(5);
          }
          if (peer !== undefined) await settle(field, [peer]);
        }),
      );
    },
  },
];

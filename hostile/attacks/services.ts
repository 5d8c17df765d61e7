/** Health watches, reflection, probes, and keys that are guessed. */
import type { Attack } from '../attack.js';
import { H1Peer, head } from '../wire/h1.js';
import { bearer, envelope, grpcHeaders, plainHeaders, service, wrongKey } from '../wire/messages.js';
import { openMany, openManyH1, settle, streamsPerConnection } from './peers.js';

const reflection = '/grpc.reflection.v1.ServerReflection/ServerReflectionInfo';
/** ServerReflectionRequest{file_containing_symbol: "sluice.ingest.v1.IngestService"}. */
const symbol = Buffer.from('sluice.ingest.v1.IngestService');
const askForSymbol = Buffer.concat([Buffer.from([0x22, symbol.length]), symbol]);

export const services: readonly Attack[] = [
  {
    name: 'health-watches',
    about: 'without a key, 10,000 calls of Health/Watch that stay open',
    async run(field) {
      const headers = grpcHeaders('/grpc.health.v1.Health/Watch', undefined);
      const perConnection = streamsPerConnection - 6;
      const peers = await openMany(field, Math.ceil(field.scaled(10_000) / perConnection));
      for (const peer of peers) {
        for (let n = 0; n < perConnection && !peer.over && !field.over; n++) {
          await peer.send(peer.request(headers, false), envelope(Buffer.alloc(0)), true);
        }
        await field.pause(20);
      }
      await settle(field, peers);
      await field.untilOver();
    },
  },
  {
    name: 'reflection-calls',
    about: 'without a key, where none is asked for, 20,000 reflection calls on one connection, at most 20 open',
    settings: ['--reflection', 'open'],
    async run(field) {
      const headers = grpcHeaders(reflection, undefined);
      let [peer] = await openMany(field, 1);
      for (let i = 0; peer !== undefined && i < field.scaled(20_000) && !field.over; i++) {
        if (peer.over) [peer] = await openMany(field, 1);
        await peer?.send(peer.request(headers, false), envelope(askForSymbol), true);
        while (peer !== undefined && peer.open >= 20 && !field.over && !peer.over) await field.pause(1);
      }
    },
  },
  {
    name: 'reflection-questions',
    about: 'without a key, where none is asked for, the same question 100,000 times on few reflection streams',
    settings: ['--reflection', 'open'],
    async run(field) {
      const headers = grpcHeaders(reflection, undefined);
      const questions = Buffer.concat(Array<Buffer>(100).fill(envelope(askForSymbol)));
      let [peer] = await openMany(field, 1);
      let stream: number | undefined;
      for (let i = 0; i < field.scaled(1_000) && !field.over; i++) {
        if (peer === undefined || peer.over) [peer] = await openMany(field, 1);
        if (peer === undefined) return;
        if (stream === undefined || i % 12 === 0) stream = peer.request(headers, false);
        const sent = await Promise.race([peer.send(stream, questions, false), field.untilOver()]);
        if (sent !== true) stream = undefined;
      }
      await field.untilOver();
    },
  },
  {
    name: 'status-flood',
    about: 'with a valid key, 20,000 calls of GetBatchStatus, at most 200 open, while no worker answers',
    keys: 1,
    async run(field) {
      const headers = grpcHeaders(`${service}GetBatchStatus`, field.keys[0]);
      const question = envelope(Buffer.from([0x0a, 3, 0x62, 0x2d, 0x31]));
      let [peer] = await openMany(field, 1);
      for (let i = 0; i < field.scaled(20_000) && !field.over; i++) {
        if (peer === undefined || peer.over) [peer] = await openMany(field, 1);
        if (peer === undefined) return;
        await Promise.race([peer.send(peer.request(headers, false), question, true), field.untilOver()]);
        while (peer.open >= 200 && !peer.over && !field.over) await field.pause(1);
      }
      if (peer !== undefined) await settle(field, [peer]);
    },
  },
  {
    name: 'key-guessing',
    about: 'calls with another wrong key each, as fast as one connection takes them, at most 200,000',
    async run(field) {
      const kinds = ['Publish', 'PublishStream', 'GetLimits'];
      let [peer] = await openMany(field, 1);
      for (let i = 0; i < field.scaled(200_000) && !field.over; i++) {
        if (peer === undefined || peer.over) [peer] = await openMany(field, 1);
        if (peer === undefined) {
          await field.pause(50);
          continue;
        }
        peer.request(grpcHeaders(`${service}${kinds[i % kinds.length]}`, wrongKey(i)), true);
        while (peer.open >= 100 && !peer.over && !field.over) await field.pause(0);
      }
    },
  },
  {
    name: 'key-guessing-http1',
    about: 'JSON requests with another wrong key each over 20 connections of HTTP/1.1, at most 100,000',
    async run(field) {
      const most = field.scaled(100_000);
      const peers = await openManyH1(field, 20);
      await Promise.race([Promise.all(peers.map((_, lane) => guess(lane))), field.untilOver()]);

      async function guess(lane: number): Promise<void> {
        let peer: H1Peer | undefined = peers[lane];
        while (field.counts.sent < most && !field.over) {
          if (peer === undefined || peer.over) peer = await H1Peer.open(field.target, field.counts);
          if (peer === undefined) return field.pause(50);
          field.counts.sent++;
          peer.unanswered++;
          const headers = ['content-type: application/json', 'content-length: 2'];
          const text = head('POST', '/v1/events', [
            ...headers,
            `authorization: ${bearer(wrongKey(field.counts.sent))}`,
          ]);
          const answered = peer.change();
          await peer.write(`${text}{}`);
          await answered;
        }
      }
    },
  },
  {
    name: 'readyz-flood',
    about: 'without a key, GET /readyz as fast as one HTTP/2 connection takes it, at most 200,000',
    async run(field) {
      const headers = plainHeaders('GET', '/readyz');
      let [peer] = await openMany(field, 1);
      for (let i = 0; i < field.scaled(200_000) && !field.over; i++) {
        if (peer === undefined || peer.over) [peer] = await openMany(field, 1);
        if (peer === undefined) {
          await field.pause(50);
          continue;
        }
        peer.request(headers, true);
        while (peer.open >= 100 && !peer.over && !field.over) await field.pause(0);
      }
    },
  },
];

/**
 * Requests that do not become whole, and answers that are not read, against a gateway of its own process: its memory stays bounded, and
 * a good client beside them is served. On both paths.
 */
import { type ClientHttp2Session, type ClientHttp2Stream, connect as connectHttp2 } from 'node:http2';
import { connect, type Socket } from 'node:net';
import { create, toBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { PublishRequestSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { createRandom, makeBatch } from '../../lib/testing/batches.js';
import { until } from '../../lib/testing/until.js';
import { MiB } from '../../lib/units.js';
import { enveloped, envelopesOf } from '../testing/bare-call.js';
import { type GatewayProcess, withGatewayProcess } from '../testing/gateway-process.js';
import { besideGoodClient } from '../testing/good-client.js';

const service = '/sluice.ingest.v1.IngestService/';
const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

const large = toBinary(
  PublishRequestSchema,
  create(PublishRequestSchema, { batch: makeBatch(createRandom(4), 2_500), attempt: 1 }),
);
/** A message of 1 MiB without its last byte. */
const unfinished = enveloped(Buffer.alloc(MiB - 1), MiB);

interface Attackers {
  /** Opens a call and sends, without its end. */
  open(method: string, type: string, key: string, bytes: Uint8Array): ClientHttp2Stream;
  socket(): Socket;
  /** Connections that the gateway has taken, and HTTP/2 sessions of these that it has not ended. */
  readonly taken: number;
  readonly sessions: number;
  /** Calls of which the gateway has sent the head of its answer. */
  readonly answered: number;
}

/** Each ten connections come from an address of their own, which no bystander has: limits by address must not end the attack. */
const addressOf = (n: number): string => `127.0.0.${100 + Math.floor(n / 10)}`;

async function withAttackers(
  gateway: GatewayProcess,
  connections: number,
  use: (attackers: Attackers) => Promise<void>,
): Promise<void> {
  const sockets: Socket[] = [];
  let taken = 0;
  const dial = (): Socket => {
    const localAddress = addressOf(sockets.length);
    const socket = connect({ port: gateway.port, host: '127.0.0.1', localAddress }).on('error', () => {});
    socket.once('connect', () => taken++);
    sockets.push(socket);
    return socket;
  };
  const sessions = Array.from({ length: connections }, () =>
    connectHttp2(gateway.url, { maxSessionMemory: 10_000, createConnection: dial }).on('error', () => {}),
  );
  let opened = 0;
  let answered = 0;
  try {
    // Their settings say how many streams they may open.
    await Promise.all(sessions.map((session) => new Promise((resolve) => session.once('remoteSettings', resolve))));
    await use({
      open(method, type, key, bytes) {
        const session = sessions[opened++ % connections] as ClientHttp2Session;
        const stream = session.request({
          ':method': 'POST',
          ':path': `${service}${method}`,
          'content-type': type,
          authorization: `Bearer ${key}`,
        });
        stream.on('error', () => {});
        stream.once('response', () => answered++);
        stream.resume();
        stream.write(bytes);
        return stream;
      },
      socket: dial,
      get taken() {
        return taken;
      },
      get sessions() {
        return sessions.filter(({ destroyed, closed }) => !destroyed && !closed).length;
      },
      get answered() {
        return answered;
      },
    });
  } finally {
    for (const session of sessions) session.destroy();
    for (const socket of sockets) socket.destroy();
  }
}

for (const hotPath of [true, false]) {
  const path = hotPath ? 'hot path' : 'library';
  const flags = [`--hot-path=${hotPath}`];

  test(`a thousand unfinished messages, and as many bodies, cost a bounded amount of memory (${path})`, async () => {
    await withGatewayProcess(flags, ['acme', 'good'], async (gateway) => {
      const [mine = '', good = ''] = gateway.keys;
      await withAttackers(gateway, 10, async (attackers) => {
        const { open, socket } = attackers;
        const seen = await besideGoodClient(gateway.port, good, async () => {
          for (let i = 0; i < 1_000; i++) open('PublishStream', 'application/grpc', mine, unfinished);
          await until('the streams have begun', () => attackers.answered >= 1_000, 20_000);
          await wait(1_000);
          for (let i = 0; i < 400; i++) {
            open('Publish', 'application/grpc', mine, unfinished);
            open('Publish', 'application/proto', mine, unfinished.subarray(5));
          }
          const body = Buffer.alloc(4.2 * MiB - 1, ' ');
          for (let i = 0; i < 100; i++) {
            const head = [
              'POST /v1/events/batch HTTP/1.1',
              'host: x',
              'content-type: application/json',
              `content-length: ${body.length + 1}`,
              `authorization: Bearer ${mine}`,
            ];
            const one = socket();
            one.write(`${head.join('\r\n')}\r\n\r\n`);
            one.write(body);
          }
          await wait(3_000);
          // The attack has taken place: no limit on connections has cut it short.
          assert.is(attackers.taken, 110);
          assert.is(attackers.sessions, 10, 'refusals of the gateway are no abuse of the peer');
        });
        if (process.argv[2] !== undefined)
          console.log({ path, peak: gateway.peak, answered: attackers.answered, ...seen });
        assert.ok(gateway.peak < (hotPath ? 248 : 256), `RSS ${gateway.peak.toFixed(0)} MiB`);
        assert.equal(seen.failures, []);
        assert.is(seen.unanswered, 0);
        assert.ok(seen.calls >= 50, `${seen.calls} calls`);
        // Of a machine that may be busy.
        assert.ok(seen.p99 < 8_000, `P99 ${seen.p99} ms`);
      });
    });
  });

  test(`two hundred streams with large messages lose nothing, and are only slower, also when the log stands still (${path})`, async () => {
    await withGatewayProcess(flags, ['acme'], async (gateway) => {
      const [key = ''] = gateway.keys;
      await withAttackers(gateway, 4, async ({ open }) => {
        const streams = Array.from({ length: 200 }, () => {
          const stream = open('PublishStream', 'application/grpc', key, enveloped(large));
          const one = { stream, body: Buffer.alloc(0), ended: false, why: '' };
          stream.on('trailers', (trailers) => {
            one.why = `${trailers['grpc-status']} ${trailers['grpc-message']}`;
          });
          stream.on('data', (chunk: Buffer) => {
            one.body = Buffer.concat([one.body, chunk]);
          });
          stream.on('end', () => {
            one.ended = true;
          });
          stream.write(enveloped(large));
          return one;
        });
        // Whole messages then wait for room in admission. None that becomes whole meanwhile makes room (BODY-2).
        gateway.nats.kill('SIGSTOP');
        setTimeout(() => gateway.nats.kill('SIGCONT'), 1_000);
        // The limits, then an answer for each batch.
        await until(
          'all are answered',
          () => streams.every(({ body, ended }) => ended || envelopesOf(body).length >= 3),
          25_000,
        );
        const ended = streams.filter((one) => one.ended).map(({ why }) => why);
        assert.equal(ended, [], 'no stream has ended');
        if (process.argv[2] !== undefined) console.log({ path, peak: gateway.peak });
        assert.ok(gateway.peak < (hotPath ? 230 : 256), `RSS ${gateway.peak.toFixed(0)} MiB`);
      });
    });
  });
}

test('calls through the library count their objects, also when they bring a byte each', async () => {
  // Twice 2 MiB is room for 85 calls of 48 KiB.
  await withGatewayProcess([`--max-tenant-unfinished-bytes=${2 * MiB}`], ['acme'], async (gateway) => {
    const [key = ''] = gateway.keys;
    await withAttackers(gateway, 2, async (attackers) => {
      for (let i = 0; i < 200; i++) attackers.open('Publish', 'application/json', key, Buffer.from('{'));
      // None of them ends: what is answered is refused, long before its silence of 15 s is over.
      await until('the others are refused', () => attackers.answered >= 100, 12_000);
      assert.ok(attackers.answered < 150, `${attackers.answered} refused`);
    });
  });
});

test.run();

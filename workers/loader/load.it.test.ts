/**
 * The whole way from the log into the real engine, with worker processes that are killed, frozen and stopped, and an engine
 * that is killed: what was published is stored, each event once.
 */
import { connect, type Socket } from 'node:net';
import { create, toBinary } from '@bufbuild/protobuf';
import { type JetStreamClient, jetstream, jetstreamManager } from '@nats-io/jetstream';
import { Kvm } from '@nats-io/kv';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { EventBatchSchema, EventType } from '#gen/sluice/event/v1/event_pb.js';
import { clickhouseClientOptions, resolveOptions } from '../../lib/config/index.js';
import { ensureShards, generationOf } from '../../lib/log-streams.js';
import { silentLogger } from '../../lib/logger.js';
import { shardStream, workersBucket } from '../../lib/subjects.js';
import { createRandom } from '../../lib/testing/batches.js';
import { type TestClickHouse, withClickHouse } from '../../lib/testing/clickhouse.js';
import { freeze, isFrozen } from '../../lib/testing/freeze.js';
import { type TestNats, withNats } from '../../lib/testing/nats.js';
import { untilAnswered } from '../../lib/testing/until.js';
import { type ClickHouse, createClickHouse } from '../clickhouse/client.js';
import { eventsTable } from '../clickhouse/connect.js';
import { blockName } from '../clickhouse/schema/index.js';
import { eraseUser } from '../ledger/erase.js';
import { publishStored, storedPayload } from '../testing/payloads.js';
import { startWorkerProcess, type WorkerProcess } from '../testing/worker-process.js';

const shards = 4;

const soloBatch = toBinary(
  EventBatchSchema,
  create(EventBatchSchema, {
    events: [
      { eventId: 'solo-event', type: EventType.CLICK, userId: 'only-me', occurredAt: { seconds: 1_767_225_600n } },
    ],
  }),
);

interface Scene {
  readonly nats: TestNats;
  readonly engine: TestClickHouse;
  readonly clickhouse: ClickHouse;
  readonly js: JetStreamClient;
  worker(settings?: Record<string, string | number>): Promise<WorkerProcess>;
  /** Publishes so many batches of so many events; returns how many events that were. */
  publish(batches: number, events: number): Promise<number>;
  counts(): Promise<{ rows: number; distinct: number }>;
}

async function withScene(use: (scene: Scene) => Promise<void>): Promise<void> {
  await withNats((nats) =>
    withClickHouse(async (engine) => {
      const config = resolveOptions(clickhouseClientOptions, { clickhouseUrl: engine.url }, {});
      const clickhouse = createClickHouse(config, silentLogger);
      const workers: WorkerProcess[] = [];
      const random = createRandom(7);
      const js = jetstream(nats.nc);
      let batch = 0;
      await ensureShards(nats.nc, { shards, replicas: 1, maxBytes: 512 * 1024 ** 2 });
      try {
        await use({
          nats,
          engine,
          clickhouse,
          js,
          async worker(settings = {}) {
            const worker = await startWorkerProcess({
              natsUrl: nats.url,
              clickhouseUrl: engine.url,
              blockDelay: '100ms',
              ...settings,
            });
            workers.push(worker);
            return worker;
          },
          async publish(batches, events) {
            for (let at = 0; at < batches; at += 8) {
              await Promise.all(
                Array.from({ length: Math.min(8, batches - at) }, () => {
                  const stored = { tenant: 'acme', batchId: `b-${++batch}`, events };
                  return publishStored(js, shards, stored, storedPayload(random, stored));
                }),
              );
            }
            return batches * events;
          },
          async counts() {
            const [row] = await clickhouse.rows<{ rows: string; distinct: string }>(
              'SELECT toString(count()) AS rows, toString(uniqExact(event_id)) AS distinct FROM `sluice`.`events`',
            );
            return { rows: Number(row?.rows), distinct: Number(row?.distinct) };
          },
        });
      } finally {
        for (const worker of workers) worker.child.kill('SIGKILL');
        await Promise.all(workers.map((worker) => worker.exited));
        await clickhouse.close();
      }
    }),
  );
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Everything is stored, and stays stored once even when late INSERTs had the time to arrive. */
async function assertExact(scene: Scene, sent: number): Promise<void> {
  await untilAnswered(`${sent} rows`, async () => (await scene.counts()).rows >= sent);
  await pause(300);
  assert.equal(await scene.counts(), { rows: sent, distinct: sent });
}

test('what is published arrives once, though worker and engine are killed again and again (LOAD-1, LOAD-2, LOAD-3)', async () => {
  await withScene(async (scene) => {
    const settings = { blockRows: 5_000 };
    let worker = await scene.worker(settings);
    let sent = 0;
    for (let round = 0; round < 4; round++) {
      sent += await scene.publish(40, 250);
      await pause(100 + 60 * round);
      if (round % 2 === 1) {
        scene.engine.process().kill('SIGKILL');
        await scene.engine.restart();
      } else {
        worker.child.kill('SIGKILL');
        await worker.exited;
        worker = await scene.worker(settings);
      }
    }
    await assertExact(scene, sent);
    worker.child.kill('SIGTERM');
    assert.is(await worker.exited, 0);
  });
});

test('two workers share the shards; the shards of one that is killed are loaded by the other within 6 s', async () => {
  await withScene(async (scene) => {
    const [first] = await Promise.all([scene.worker(), scene.worker()]);
    const bucket = await new Kvm(scene.nats.nc).open(workersBucket);
    await untilAnswered('both are known', async () => {
      let keys = 0;
      for await (const _ of await bucket.keys()) keys++;
      return keys === 2;
    });
    await pause(1_200);
    let sent = await scene.publish(40, 50);
    await assertExact(scene, sent);
    first.child.kill('SIGKILL');
    const killed = Date.now();
    sent += await scene.publish(40, 50);
    await untilAnswered('all shards are loaded', async () => (await scene.counts()).rows >= sent);
    assert.ok(Date.now() - killed < 6_000, `${Date.now() - killed} ms`);
    await assertExact(scene, sent);
  });
});

test('a worker that was frozen and thawed finds its shards loaded by another, and doubles nothing (LOAD-2, LOAD-3)', async () => {
  await withScene(async (scene) => {
    const settings = { blockRows: 2_000, replayWindow: '1s' };
    const frozen = await scene.worker(settings);
    let sent = await scene.publish(40, 100);
    await pause(150);
    await freeze(frozen.child);
    await scene.worker(settings);
    sent += await scene.publish(40, 100);
    await untilAnswered('the other has loaded all', async () => (await scene.counts()).rows >= sent);
    const jsm = await jetstreamManager(scene.nats.nc);
    await untilAnswered('what the frozen one would read next has left the log', async () => {
      for (let shard = 0; shard < shards; shard++)
        if ((await jsm.streams.info(shardStream(shard))).state.messages > 0) return false;
      return true;
    });
    sent += await scene.publish(40, 100);
    frozen.child.kill('SIGCONT');
    sent += await scene.publish(40, 100);
    await assertExact(scene, sent);
  });
});

for (const [point, what] of [
  ['half-sent', 'while it sends a block'],
  ['half-read', 'while it reads an answer'],
] as const) {
  test(`a worker that freezes ${what} holds up no shard: another one loads it within 6 s`, async () => {
    await withScene(async (scene) => {
      const settings = { blockRows: 2_000 };
      const frozen = await scene.worker({ ...settings, failpoint: `loader.${point}@12:freeze` });
      await scene.worker(settings);
      let sent = 0;
      while (!isFrozen(frozen.child.pid)) {
        sent += await scene.publish(16, 100);
        await pause(100);
      }
      const since = Date.now();
      sent += await scene.publish(40, 100);
      await untilAnswered('the other has loaded all', async () => (await scene.counts()).rows >= sent);
      assert.ok(Date.now() - since < 6_000, `${Date.now() - since} ms`);
      frozen.child.kill('SIGCONT');
      sent += await scene.publish(16, 100);
      await assertExact(scene, sent);
    });
  });
}

test("a statement that holds the next block's name with a half-sent body delays no shard", async () => {
  await withScene(async (scene) => {
    const jsm = await jetstreamManager(scene.nats.nc);
    const port = Number(new URL(scene.engine.url).port);
    const held: Socket[] = [];
    try {
      for (let shard = 0; shard < shards; shard++) {
        const stream = generationOf(await jsm.streams.info(shardStream(shard)));
        const parameters = new URLSearchParams({
          query: "INSERT INTO t SELECT a FROM input('a Int64') FORMAT CSV",
          query_id: blockName({ stream, shard, block: 1n }),
        });
        const socket = connect(port, '127.0.0.1');
        socket.on('error', () => undefined);
        socket.write(`POST /?${parameters} HTTP/1.1\r\nhost: x\r\ncontent-length: 99999\r\n\r\n0123456789`);
        held.push(socket);
      }
      await scene.worker();
      const since = Date.now();
      const sent = await scene.publish(20, 100);
      await untilAnswered('all is loaded', async () => (await scene.counts()).rows >= sent);
      assert.ok(Date.now() - since < 6_000, `${Date.now() - since} ms`);
      await assertExact(scene, sent);
    } finally {
      for (const socket of held) socket.destroy();
    }
  });
});

test('a worker waits for NATS, shards and engine in any order, and a drain stores what it has', async () => {
  await withScene(async (scene) => {
    scene.engine.process().kill('SIGKILL');
    const starting = startWorkerProcess({
      natsUrl: scene.nats.url,
      clickhouseUrl: scene.engine.url,
      blockDelay: '60s',
    });
    const sent = await scene.publish(8, 100);
    await pause(1_000);
    await scene.engine.restart();
    const worker = await starting;
    await pause(1_500);
    worker.child.kill('SIGTERM');
    assert.is(await worker.exited, 0);
    await assertExact(scene, sent);
  });
});

test("an erased user's rows leave ClickHouse, and the log cannot bring them back (LOAD-8)", async () => {
  await withScene(async (scene) => {
    await scene.worker();
    const sent = await scene.publish(20, 100);
    await assertExact(scene, sent);
    const [max] = await scene.clickhouse.rows<{ user: string; n: string }>(
      "SELECT user_id AS user, toString(count()) AS n FROM `sluice`.`events` WHERE user_id != '' GROUP BY user_id ORDER BY count() DESC LIMIT 1",
    );
    const jsm = await jetstreamManager(scene.nats.nc);
    const request = {
      tenant: 'acme',
      userId: max!.user,
      clickhouse: scene.clickhouse,
      target: eventsTable('sluice'),
      jsm,
      shards: Array.from({ length: shards }, (_, shard) => shard),
      waitMs: 10_000,
      logger: silentLogger,
    };
    const erasure = await eraseUser(request);
    assert.equal(erasure, { rows: Number(max!.n), messages: 20, unloaded: 0 });
    for (let shard = 0; shard < shards; shard++) {
      assert.is((await jsm.streams.info(shardStream(shard))).state.messages, 0);
    }
    const left = await scene.counts();
    assert.is(left.rows, sent - erasure.rows);
    // A user who was alone in a block leaves a tombstone, so that the block stays known (LOAD-2, LOAD-3).
    const only = { tenant: 'solo', batchId: 'solo-1', events: 1, bytes: soloBatch };
    const shard = await publishStored(scene.js, shards, only, storedPayload(createRandom(1), only));
    await untilAnswered('the lone row', async () => (await scene.counts()).rows === left.rows + 1);
    const lone = await eraseUser({ ...request, tenant: 'solo', userId: 'only-me' });
    assert.equal(lone, { rows: 1, messages: 1, unloaded: 0 });
    // It still tells when the log took the block's last message, by which a log that lost its end is known (LOAD-8).
    const tombs = await scene.clickhouse.rows<{ shard: number; timed: number }>(
      "SELECT _shard AS shard, toUnixTimestamp64Milli(_hi_at) > 0 AS timed FROM `sluice`.`events` WHERE tenant = ''",
    );
    assert.equal(
      tombs.map((row) => [Number(row.shard), Number(row.timed)]),
      [[shard, 1]],
    );
    await scene.clickhouse.command("ALTER TABLE `sluice`.`events` DELETE WHERE tenant = ''", {
      settings: { mutations_sync: 2 },
    });
    // The shards go on.
    const more = await scene.publish(8, 100);
    await assertExact({ ...scene, counts: scene.counts }, left.rows + more);
  });
});

test.run();

/**
 * Changing the number of shards, step by step on a real log (SHARD-1 to SHARD-8): what goes wrong leaves the old number and takes batches
 * again, and a batch that comes late finds no stream. The whole stack does it in cli/shards.it.test.ts.
 */
import { type JetStreamManager, jetstream, jetstreamManager } from '@nats-io/jetstream';
import { type KV, Kvm } from '@nats-io/kv';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ensureLog, generationOf } from '../../lib/log-streams.js';
import { silentLogger } from '../../lib/logger.js';
import { followShards } from '../../lib/shard-number.js';
import { formatShardSetting, parseShardSetting, type ShardSetting, shardsKey } from '../../lib/shard-setting.js';
import { batchSubject, parkedSubject, settingsBucket, shardStream, shardSubjects } from '../../lib/subjects.js';
import { type TestNats, withNats } from '../../lib/testing/nats.js';
import { until } from '../../lib/testing/until.js';
import { joinWorkers } from '../loader/assignment.js';
import type { LastBlock } from '../loader/block-store.js';
import { acceptKey } from '../loader/shard.js';
import { acceptShard, shardStatus } from './shard-states.js';
import { type ChangeOptions, changeShards, settledShards } from './shards.js';

const log = { shards: 2, replicas: 1, maxBytes: 8 * 1024 ** 2 };

interface Scene {
  readonly nats: TestNats;
  readonly jsm: JetStreamManager;
  readonly settings: KV;
  readonly options: ChangeOptions;
  readonly said: string[];
  /** What ClickHouse has of each shard. */
  readonly loaded: Map<number, Partial<LastBlock>>;
  /** A worker; one that follows takes up new numbers. */
  worker(follows: boolean): Promise<void>;
  setting(): Promise<ShardSetting>;
  subjects(): Promise<string[]>;
  /** Whether a stream takes a message there. */
  takes(subject: string): Promise<boolean>;
}

async function withScene(use: (scene: Scene) => Promise<void>): Promise<void> {
  await withNats(async (nats) => {
    await ensureLog(nats.nc, log);
    const jsm = await jetstreamManager(nats.nc);
    const settings = await new Kvm(nats.nc).open(settingsBucket);
    const loaded = new Map<number, Partial<LastBlock>>();
    const said: string[] = [];
    const ends: (() => unknown)[] = [];
    const none: LastBlock = { block: 0, hi: 0, hiAtMs: 0, others: [] };
    const setting = async () => parseShardSetting((await settings.get(shardsKey))?.string() ?? '');
    try {
      await use({
        nats,
        jsm,
        settings,
        said,
        loaded,
        options: {
          nc: nats.nc,
          jsm,
          store: { lastBlock: async (shard) => ({ ...none, ...loaded.get(shard) }) },
          timeoutMs: 20_000,
          abandonedMs: 600,
          signal: new AbortController().signal,
          say: (text) => said.push(text),
          progress: () => undefined,
        },
        async worker(follows) {
          const worker = await joinWorkers({
            nc: nats.nc,
            worker: `w${ends.length}`,
            shards: 2,
            replicas: 1,
            onChange: () => undefined,
            logger: silentLogger,
          });
          ends.push(() => worker.leave());
          if (!follows) return;
          ends.push(followShards(nats.nc, silentLogger, ({ shards, epoch }) => worker.resize(shards, epoch)));
        },
        setting,
        async subjects() {
          const { shards } = await setting();
          const all: string[] = [];
          for (let shard = 0; shard < shards; shard++) {
            all.push(...((await jsm.streams.info(shardStream(shard))).config.subjects ?? []));
          }
          return all;
        },
        takes: (subject) =>
          jetstream(nats.nc)
            .publish(subject, 'x', { retries: 0, timeout: 5_000 })
            .then(
              () => true,
              () => false,
            ),
      });
    } finally {
      for (const end of ends.reverse()) await end();
    }
  });
}

const failure = async (call: Promise<unknown>): Promise<string> =>
  call.then(
    () => 'no error',
    (error: unknown) => (error as Error).message,
  );

test('a drain that does not end goes back to the old number, and what was computed before finds no stream (SHARD-3, SHARD-5, SHARD-7)', async () => {
  await withScene(async (scene) => {
    const { options, takes, nats } = scene;
    await scene.worker(true);
    assert.ok(await takes(batchSubject(0, 'acme')));
    const changing = failure(changeShards({ ...options, timeoutMs: 6_000 }, 3));
    await until('no stream listens while the log is drained', async () => !(await takes(batchSubject(0, 'acme'))));
    assert.match(await failure(ensureLog(nats.nc, log)), /is being changed from 2 to 3/);
    assert.match(
      await failure(changeShards({ ...options, abandonedMs: 8_000 }, 4)),
      /is changing the number of shards now/,
    );
    assert.match(await changing, /The number of shards stays 2: not done within 6 s/);
    assert.equal(await scene.setting(), { shards: 2, epoch: 3 });
    assert.equal(await scene.subjects(), [shardSubjects(0, 3), shardSubjects(1, 3)]);
    assert.equal(await ensureLog(nats.nc, log), { shards: 2, epoch: 3 });
    assert.not.ok(await takes(batchSubject(0, 'acme')), 'the old subjects are gone forever');
    assert.ok(await takes(batchSubject(0, 'acme', 3)));
  });
});

test('workers that do not take up the new number keep the old one; then it grows, and shrinks to an emptied stream (SHARD-4, SHARD-6, SHARD-8)', async () => {
  await withScene(async (scene) => {
    const { options } = scene;
    assert.match(await failure(changeShards(options, 3)), /No worker runs/);
    await scene.worker(false);
    assert.match(
      await failure(changeShards({ ...options, timeoutMs: 3_500 }, 3)),
      /The number of shards stays 2: not done within 4 s/,
    );
    assert.equal(await scene.setting(), { shards: 2, epoch: 3 });
  });
  await withScene(async (scene) => {
    const { options, takes, jsm, loaded, settings } = scene;
    await scene.worker(true);
    assert.ok(await takes(batchSubject(0, 'acme')));
    // ClickHouse has it a moment later.
    setTimeout(() => loaded.set(0, { block: 1, hi: 1 }), 2_500);
    assert.equal(await changeShards(options, 3), { shards: 3, epoch: 2 });
    assert.equal(await scene.subjects(), [shardSubjects(0, 2), shardSubjects(1, 2), shardSubjects(2, 2)]);
    const made = generationOf(await jsm.streams.info(shardStream(2)));
    assert.is((await settings.get(acceptKey(2)))?.string(), made);
    assert.ok(await takes(batchSubject(2, 'acme', 2)));
    loaded.set(2, { block: 1, hi: 1 });
    assert.equal(await changeShards(options, 2), { shards: 2, epoch: 3 });
    const kept = await jsm.streams.info(shardStream(2));
    assert.equal([kept.config.subjects, kept.state.messages], [[parkedSubject(2)], 0]);
    assert.equal(await changeShards(options, 2), { shards: 2, epoch: 3 }, 'nothing to do');
  });
});

test('a log that loses its end while it is drained does not pass for loaded, and is not emptied (SHARD-4, LOAD-8)', async () => {
  await withScene(async (scene) => {
    const { options, takes, jsm, loaded } = scene;
    await scene.worker(true);
    assert.ok(await takes(batchSubject(1, 'acme')));
    const lostMeanwhile = (): void => void loaded.set(1, { block: 1, hi: 5 });
    assert.match(
      await failure(changeShards({ ...options, progress: lostMeanwhile }, 1)),
      /The number of shards stays 2: the stream of shard 1 lost its end/,
    );
    assert.is((await jsm.streams.info(shardStream(1))).state.messages, 1);
  });
});

test('a change that was abandoned is ended by the next command; one that was taken over is left alone (SHARD-1)', async () => {
  await withScene(async (scene) => {
    const { options, jsm, settings, takes } = scene;
    await scene.worker(true);
    const begun = { shards: 2, epoch: 1, changing: { to: 5, by: 'nobody', beat: 7 } };
    await settings.put(shardsKey, formatShardSetting(begun));
    await jsm.streams.update(shardStream(0), { subjects: [parkedSubject(0)] });
    const { setting } = await settledShards(options);
    assert.equal(setting, { shards: 2, epoch: 2 });
    assert.equal(await scene.subjects(), [shardSubjects(0, 2), shardSubjects(1, 2)]);
    // Given up after the number was written: it is finished, not undone.
    await settings.put(shardsKey, formatShardSetting({ ...begun, epoch: 3, changing: { ...begun.changing, to: 2 } }));
    await jsm.streams.update(shardStream(1), { subjects: [parkedSubject(1)] });
    assert.equal((await settledShards(options)).setting, { shards: 2, epoch: 3 });
    assert.ok(await takes(batchSubject(1, 'acme', 3)));

    const stolen = formatShardSetting({ shards: 2, epoch: 9, changing: { to: 2, by: 'another', beat: 1 } });
    const changing = failure(changeShards(options, 3));
    const parked = [parkedSubject(0), parkedSubject(1)];
    await until('the log is drained', async () => String(await scene.subjects()) === String(parked));
    await settings.put(shardsKey, stolen);
    assert.match(await changing, /another command has taken this change over/);
    assert.is((await settings.get(shardsKey))?.string(), stolen);
    assert.equal(await scene.subjects(), parked);
  });
});

test('a shard whose stream was made again is shown as stopped, and accepted by its number', async () => {
  await withScene(async ({ options: { jsm, store }, settings, loaded, options, worker }) => {
    const look = { jsm, store, settings };
    await worker(true);
    assert.is((await shardStatus(look, 1, { shards: 2, epoch: 1 })).stopped, undefined);
    assert.match(await failure(acceptShard(look, 1)), /does not wait to be accepted/);
    loaded.set(1, { others: [{ generation: 'old', hi: 12 }] });
    assert.match(
      (await shardStatus(look, 1, { shards: 2, epoch: 1 })).stopped ?? '',
      /the stream was made again: .* old \(loaded up to 12\)/,
    );
    assert.match(await failure(changeShards(options, 3)), /Shard 1 is not loaded: the stream was made again/);
    const { generation, others } = await acceptShard(look, 1);
    assert.equal(others, ['old']);
    assert.is((await settings.get(acceptKey(1)))?.string(), generation);
    assert.is((await shardStatus(look, 1, { shards: 2, epoch: 1 })).stopped, undefined);
    loaded.set(0, { block: 3, hi: 99 });
    assert.match((await shardStatus(look, 0, { shards: 2, epoch: 1 })).stopped ?? '', /went backwards/);
    assert.match(await failure(acceptShard(look, 0)), /Accepting does not help shard/);
  });
});

test.run();

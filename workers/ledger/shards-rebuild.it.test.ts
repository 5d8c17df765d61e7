/** `sluice shards rebuild`: the number of shards from the streams, on a real log. */
import { type JetStreamManager, jetstreamManager } from '@nats-io/jetstream';
import { type KV, Kvm } from '@nats-io/kv';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ensureLog } from '../../lib/log-streams.js';
import { silentLogger } from '../../lib/logger.js';
import { readShardSetting } from '../../lib/shard-number.js';
import { formatShardSetting, shardsKey } from '../../lib/shard-setting.js';
import { parkedSubject, settingsBucket, shardStream, shardSubjects } from '../../lib/subjects.js';
import { type TestNats, withNats } from '../../lib/testing/nats.js';
import { type Rebuilt, rebuildShards } from './shards-rebuild.js';

const log = { shards: 2, replicas: 1, maxBytes: 1024 ** 2 };

interface Scene {
  readonly nats: TestNats;
  readonly jsm: JetStreamManager;
  readonly settings: () => Promise<KV>;
  rebuild(wanted?: number): Promise<Rebuilt>;
}

const withScene = (use: (scene: Scene) => Promise<void>): Promise<void> =>
  withNats(async (nats) => {
    await ensureLog(nats.nc, log);
    const jsm = await jetstreamManager(nats.nc);
    await use({
      nats,
      jsm,
      settings: () => new Kvm(nats.nc).open(settingsBucket),
      rebuild: (wanted = 0) => rebuildShards({ nc: nats.nc, jsm, wanted, logger: silentLogger }),
    });
  });

const failure = (call: Promise<unknown>): Promise<string> => call.then(() => 'no error', String);

test('a number that was edited, a lost key and a lost bucket are written again; gateways and workers go on with it', async () => {
  await withScene(async ({ nats, jsm, settings, rebuild }) => {
    assert.equal(await rebuild(), { setting: { shards: 2, epoch: 1 }, written: false, opened: [] });
    const breaks = [
      async () => (await settings()).put(shardsKey, '7'),
      async () => (await settings()).put(shardsKey, 'seven'),
      async () => (await settings()).delete(shardsKey),
      async () => jsm.streams.delete(`KV_${settingsBucket}`),
    ];
    for (const damage of breaks) {
      await damage();
      assert.match(
        await failure(rebuild(4)),
        /streams say that there are 2 shards\. To have 4, rebuild without --set first/,
      );
      assert.equal(await rebuild(), { setting: { shards: 2, epoch: 1 }, written: true, opened: [] });
      assert.equal(await readShardSetting(nats.nc), { shards: 2, epoch: 1 });
      assert.equal(await ensureLog(nats.nc, log), { shards: 2, epoch: 1 });
    }
  });
});

test('the newest epoch counts; a stream that was left aside listens again, and one that is not used any more stays aside', async () => {
  await withScene(async ({ nats, jsm, settings, rebuild }) => {
    await jsm.streams.update(shardStream(0), { subjects: [shardSubjects(0, 5)] });
    await jsm.streams.add({ name: shardStream(2), subjects: [shardSubjects(2, 5)], discard: 'new' });
    await jsm.streams.update(shardStream(1), { subjects: [parkedSubject(1)] });
    await jsm.streams.add({ name: shardStream(3), subjects: [parkedSubject(3)], discard: 'new' });
    await (await settings()).put(shardsKey, formatShardSetting({ shards: 2, epoch: 1 }).replace('2', '9'));
    assert.equal(await rebuild(), { setting: { shards: 3, epoch: 5 }, written: true, opened: ['EV_1'] });
    assert.equal((await jsm.streams.info(shardStream(1))).config.subjects, [shardSubjects(1, 5)]);
    assert.equal((await jsm.streams.info(shardStream(3))).config.subjects, [parkedSubject(3)]);
    assert.equal(await ensureLog(nats.nc, log), { shards: 3, epoch: 5 });
    // The setting is right, and a stream lost its subjects.
    await jsm.streams.update(shardStream(1), { subjects: [shardSubjects(1, 4)] });
    assert.match(await failure(ensureLog(nats.nc, log)), /EV_1 does not listen to ev\.1-5\.>: `sluice shards rebuild`/);
    assert.equal(await rebuild(), { setting: { shards: 3, epoch: 5 }, written: false, opened: ['EV_1'] });
  });
});

test('when no stream listens the number may be chosen, in an epoch that never was; streams of others are not touched', async () => {
  await withScene(async ({ nats, jsm, settings, rebuild }) => {
    for (const shard of [0, 1]) await jsm.streams.update(shardStream(shard), { subjects: [parkedSubject(shard)] });
    await (await settings()).delete(shardsKey);
    const { setting, opened } = await rebuild(1);
    assert.equal([setting.shards, opened], [1, ['EV_0']]);
    assert.ok(setting.epoch > 1_700_000_000);
    assert.equal(await ensureLog(nats.nc, log), setting);

    await jsm.streams.delete(shardStream(0));
    await jsm.streams.delete(shardStream(1));
    await (await settings()).delete(shardsKey);
    assert.match(await failure(rebuild()), /There is no stream of a shard/);
    await jsm.streams.add({ name: shardStream(0), subjects: ['orders.>'] });
    assert.match(await failure(rebuild()), /No stream EV_… has subjects of a shard/);
    assert.match(await failure(ensureLog(nats.nc, log)), /is lost.*Remove the streams if they are not Sluice's/);
  });
});

test.run();

/** A number of shards that was edited by hand, or lost, is taken up neither by gateways nor by workers. */
import { jetstreamManager } from '@nats-io/jetstream';
import { Kvm } from '@nats-io/kv';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ensureLog } from './log-streams.js';
import { readShardSetting, shardStreams } from './shard-number.js';
import { formatShardSetting, shardsKey } from './shard-setting.js';
import { settingsBucket } from './subjects.js';
import { withNats } from './testing/nats.js';

const options = { shards: 2, replicas: 1, maxBytes: 1024 ** 2 };
const failure = (call: Promise<unknown>): Promise<string> => call.then(() => 'no error', String);

test('smaller, larger, zero, garbage, of another epoch, deleted, or with its bucket: refused by all, and no stream is made', async () => {
  await withNats(async ({ nc }) => {
    assert.equal(await ensureLog(nc, options), { shards: 2, epoch: 1 });
    const jsm = await jetstreamManager(nc);
    const kv = await new Kvm(nc).open(settingsBucket);
    const right = (await kv.get(shardsKey))?.string() ?? '';
    const streams = async (): Promise<number[]> => (await shardStreams(jsm)).map(({ shard }) => shard);
    for (const edited of [
      '1',
      '3',
      '0',
      '-2',
      '2.5',
      ' 2',
      '',
      'two',
      '{"shards":3,"epoch":1}',
      '{"shards":2,"epoch":7}',
      right.replace('"shards":2', '"shards":3'),
      right.replace('"epoch":1', '"epoch":2'),
      formatShardSetting({ shards: 5, epoch: 1 }).replace('"check"', '"cheque"'),
    ]) {
      await kv.put(shardsKey, edited);
      for (const refused of [await failure(ensureLog(nc, options)), await failure(readShardSetting(nc))]) {
        assert.match(refused, /The number of shards was edited by hand: .*`sluice shards rebuild`/, edited);
        assert.not.match(refused, /put back|nats kv/);
      }
      assert.equal(await streams(), [0, 1]);
    }
    await kv.put(shardsKey, right);
    assert.equal(await ensureLog(nc, options), { shards: 2, epoch: 1 });
    const lost = /The number of shards is lost .*EV_0, EV_1.*`sluice shards rebuild`/;
    await kv.delete(shardsKey);
    for (const refused of [await failure(ensureLog(nc, options)), await failure(readShardSetting(nc))]) {
      assert.match(refused, lost);
    }
    await jsm.streams.delete(`KV_${settingsBucket}`);
    assert.match(await failure(readShardSetting(nc)), lost);
    assert.match(await failure(ensureLog(nc, { ...options, shards: 4 })), lost);
    assert.equal(await streams(), [0, 1]);
  });
});

test("an older version's setting is taken up when the streams agree, and gets its check", async () => {
  await withNats(async ({ nc }) => {
    await ensureLog(nc, options);
    const kv = await new Kvm(nc).open(settingsBucket);
    const checked = (await kv.get(shardsKey))?.string() ?? '';
    for (const older of ['2', '{"shards":2,"epoch":1}']) {
      await kv.put(shardsKey, older);
      assert.equal(await readShardSetting(nc), { shards: 2, epoch: 1 });
      assert.equal(await ensureLog(nc, { ...options, shards: 9 }), { shards: 2, epoch: 1 });
      assert.is((await kv.get(shardsKey))?.string(), checked);
    }
  });
});

test.run();

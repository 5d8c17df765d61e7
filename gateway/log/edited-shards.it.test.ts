/** A gateway whose number of shards is edited by hand takes no batches, says why, and goes on when it is put right. */
import { Kvm } from '@nats-io/kv';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { silentLogger } from '../../lib/logger.js';
import { formatShardSetting, shardsKey } from '../../lib/shard-setting.js';
import { settingsBucket } from '../../lib/subjects.js';
import { withNats } from '../../lib/testing/nats.js';
import { until } from '../../lib/testing/until.js';
import { watchLog } from './log-connection.js';

test('an edited number is not followed, a lost one is missed, and the right one is taken up again', async () => {
  await withNats(async ({ nc }) => {
    const log = watchLog({
      nats: Promise.resolve(nc),
      config: { shards: 2, replicas: 1, shardMaxBytes: 1024 ** 2 },
      logger: silentLogger,
      minPayload: 1024,
      onConnected: () => undefined,
      onDisconnected: () => undefined,
      onStream: () => undefined,
    });
    try {
      await until('ready', () => log.ready);
      const kv = await new Kvm(nc).open(settingsBucket);
      for (const damage of [() => kv.put(shardsKey, '3'), () => kv.put(shardsKey, '1'), () => kv.delete(shardsKey)]) {
        await damage();
        await until('the gateway refuses', () => !log.ready);
        await until('it says why', () => /sluice shards rebuild/.test(log.reason ?? ''));
        assert.is(log.shards, 2);
        await kv.put(shardsKey, formatShardSetting({ shards: 2, epoch: 1 }));
        await until('it goes on', () => log.ready);
      }
    } finally {
      log.close();
    }
  });
});

test.run();

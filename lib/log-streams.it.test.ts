import { jetstreamManager } from '@nats-io/jetstream';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UsageError } from './errors.js';
import { ensureShards, generationOf } from './log-streams.js';
import { readShards } from './shard-number.js';
import { withNats } from './testing/nats.js';

const options = { shards: 3, replicas: 1, maxBytes: 1024 ** 2 };

test('the first call makes the streams, later calls keep their number and settings', async () => {
  await withNats(async ({ nc }) => {
    assert.is(await readShards(nc), undefined);
    assert.is(await ensureShards(nc, options), 3);
    assert.is(await readShards(nc), 3);
    assert.is(await ensureShards(nc, { shards: 8, replicas: 1, maxBytes: 5 * 1024 ** 2 }), 3);
    const jsm = await jetstreamManager(nc);
    for (const name of ['EV_0', 'EV_1', 'EV_2']) {
      const { config } = await jsm.streams.info(name);
      assert.is(config.discard, 'new');
      assert.is(config.retention, 'limits');
      assert.is(config.storage, 'file');
      assert.is(config.max_bytes, 1024 ** 2);
      assert.is(config.max_age, 0);
      assert.is(config.duplicate_window, 100_000_000);
      assert.equal(config.subjects, [`ev.${name.slice(3)}.>`]);
    }
  });
});

test('gateways that start at once agree on one number', async () => {
  await withNats(async ({ nc }) => {
    const counts = await Promise.all([1, 2, 3, 4, 5].map((shards) => ensureShards(nc, { ...options, shards })));
    assert.is(new Set(counts).size, 1, counts.join());
    assert.is(await readShards(nc), counts[0]);
  });
});

test('a missing stream is made again', async () => {
  await withNats(async ({ nc }) => {
    await ensureShards(nc, options);
    const jsm = await jetstreamManager(nc);
    await jsm.streams.delete('EV_1');
    await ensureShards(nc, options);
    assert.is((await jsm.streams.info('EV_1')).config.discard, 'new');
  });
});

test('a stream that could lose events is refused by name and setting', async () => {
  await withNats(async ({ nc }) => {
    await ensureShards(nc, options);
    const jsm = await jetstreamManager(nc);
    await jsm.streams.delete('EV_0');
    await jsm.streams.add({ name: 'EV_0', subjects: ['ev.0.>'], discard: 'old' });
    const message = await ensureShards(nc, options).then(
      () => 'no error',
      (error: unknown) => (error instanceof UsageError ? error.message : String(error)),
    );
    assert.match(message, /EV_0 has discard "old", but must have "new"/);
  });
});

test('a stream keeps its generation over restarts and changes of its settings, and the description of its operator', async () => {
  await withNats(async (nats) => {
    const jsm = await jetstreamManager(nats.nc);
    const restart = async (): Promise<void> => {
      nats.process().kill('SIGTERM');
      await nats.restart();
      for (let i = 0; i < 100; i++) {
        if (await jsm.streams.info('EV_0').catch(() => undefined)) return;
      }
      throw new Error('the log does not answer');
    };
    await ensureShards(nats.nc, options);
    const generation = generationOf(await jsm.streams.info('EV_0'));
    await jsm.streams.update('EV_0', { description: 'orders of the shop' });
    await ensureShards(nats.nc, options);
    await restart();
    await jsm.streams.update('EV_0', { max_bytes: 2 * 1024 ** 2 });
    await restart();
    const info = await jsm.streams.info('EV_0');
    assert.is(generationOf(info), generation);
    assert.is(info.config.description, `orders of the shop generation ${generation}`);
    await jsm.streams.delete('EV_0');
    await ensureShards(nats.nc, options);
    assert.is.not(generationOf(await jsm.streams.info('EV_0')), generation);
  });
});

test.run();

/**
 * More ways to a log that is not the one that was loaded, beside lost-log.it.test.ts: a stream removed, purged, restored from a snapshot,
 * sealed.
 */
import { jetstream } from '@nats-io/jetstream';
import { Kvm } from '@nats-io/kv';
import { createInbox, type NatsConnection } from '@nats-io/nats-core';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ensureLog } from '../../lib/log-streams.js';
import { shardsKey } from '../../lib/shard-setting.js';
import { batchSubject, keptStream, settingsBucket, shardStream } from '../../lib/subjects.js';
import { createRandom } from '../../lib/testing/batches.js';
import { endSharedClickHouse, log, stream, withScene } from '../testing/lost-log-scene.js';
import { storedPayload } from '../testing/payloads.js';

test.after(endSharedClickHouse);

test('a stream that was removed and made again is a fault until it is accepted or mended; a mend that was interrupted is finished', async () => {
  await withScene(async (scene) => {
    const { nats, jsm, publish, stored, loaded } = scene;
    await publish('a', 5);
    await loaded(50);
    await jsm.streams.delete(stream);
    await ensureLog(nats.nc, log);
    await publish('b', 5);
    assert.match((await scene.audit()).faults, /^0 1-5 \[\] the stream was made again: .*sluice shards accept/);
    const waits = await scene.where('b-1');
    assert.is(waits.state, 'in flight');
    assert.match(waits.stopped ?? '', /the stream was made again/);
    await scene.accept(0);
    await loaded(100);
    assert.equal(await scene.audit(), { faults: '', difference: 0 });

    // Messages that are stored already, in a stream of another making, beside new ones.
    const random = createRandom(5);
    const js = jetstream(nats.nc);
    const copies = [0, 1, 2].map((i) => storedPayload(random, { tenant: 'acme', batchId: `x-${i}`, events: 10 }));
    for (const copy of copies) await js.publish(batchSubject(0, 'acme'), copy);
    await loaded(130);
    await jsm.streams.delete(stream);
    await ensureLog(nats.nc, log);
    for (const copy of copies) await js.publish(batchSubject(0, 'acme'), copy);
    await publish('c', 2);
    // As if the mend had been killed after it had set the stream aside and kept a part.
    await jsm.streams.update(stream, { subjects: ['sluice.parked.0'] });
    await jsm.streams.add({ name: keptStream(0), subjects: ['kept.0.>'], allow_direct: true });
    await js.publish('kept.0.acme', copies[0] as Uint8Array);
    const interrupted = await scene.shards();
    assert.match(interrupted, /KEPT_0 holds 1 messages of a mend that was interrupted: `sluice shards mend 0`/);
    assert.match(interrupted, /^0: The stream EV_0 is set aside/m);
    assert.match((await scene.audit()).faults, /^undefined .* the stream KEPT_0 holds 1 messages/m);
    assert.is(await scene.mend(0), 6);
    await loaded(150);
    await publish('d', 1);
    await loaded(160);
    assert.equal(await stored(), [160, 160], 'what was stored is left out');
    assert.equal(await scene.audit(), { faults: '', difference: 0 });
  });
});

test('a stream that was restored from an older snapshot is seen and mended', async () => {
  await withScene(async (scene) => {
    const { nats, jsm, publish, stored, loaded } = scene;
    await publish('a', 6);
    await loaded(60);
    const snapshot = await snapshotOf(nats.nc, stream);
    await publish('b', 6);
    await loaded(120);
    await jsm.streams.delete(stream);
    await restore(nats.nc, stream, snapshot);
    await publish('c', 3);
    assert.match((await scene.audit()).faults, /the stream (went backwards|was made again)/);
    assert.match(await scene.shards(), /^0: the stream/);
    await scene.mend(0);
    await loaded(150);
    assert.equal(await stored(), [150, 150]);
    assert.equal(await scene.audit(), { faults: '', difference: 0 });
  });
});

test('loaded messages may be purged; an edited number is a fault, and loading goes on; a stream beyond the number of shards, and a sealed one, are shown', async () => {
  await withScene(async (scene) => {
    const { nats, jsm, publish, loaded, run } = scene;
    await publish('a', 5);
    await loaded(50);
    await jsm.streams.purge(stream);
    assert.equal(await scene.audit(), { faults: '', difference: 0 });

    const settings = await new Kvm(nats.nc).open(settingsBucket);
    await settings.put(shardsKey, '3');
    assert.match((await scene.audit()).faults, /^undefined .* The number of shards was edited by hand/);
    await publish('c', 1);
    await loaded(60);
    await jsm.streams.delete(`KV_${settingsBucket}`);
    assert.match((await scene.audit()).faults, /^undefined .* The number of shards is lost .*EV_0/);
    const lost = await run('shards');
    assert.is(lost.code, 2, lost.err);
    assert.match(lost.out, /\n0 +EV_0 [^\n]*\nThe number of shards is lost .*`sluice shards rebuild`/);
    const rebuilt = await run('shards', 'rebuild');
    assert.is(rebuilt.code, 0, rebuilt.err);
    assert.match(rebuilt.err, /There are 1 shards: written again from the streams/);

    await jsm.streams.add({ name: shardStream(1), subjects: ['ev.1.>'], discard: 'new', allow_direct: true });
    await publish('b', 5, 1);
    assert.match((await scene.audit()).faults, /^1 1-5 \[\] there are 1 shards .* no worker loads this stream/);
    const shown = await run('shards');
    assert.is(shown.code, 2, shown.err);
    assert.match(shown.out, /\n1 +EV_1 .* 5 +stopped\nshard 1 is not loaded: there are 1 shards/);
    assert.is(await scene.mend(1), 5);
    await loaded(110);
    assert.equal(await scene.audit(), { faults: '', difference: 0 });
    assert.is(await scene.shards(), '');

    await jsm.streams.update(stream, { sealed: true } as never);
    assert.match(await scene.shards(), /^0: The stream EV_0 is sealed .*nats stream rm EV_0/);
    assert.match(await ensureLog(nats.nc, log).then(() => 'no error', String), /EV_0 is sealed/);
  });
});

/** What `nats stream backup` keeps. */
interface Snapshot {
  readonly config: unknown;
  readonly state: unknown;
  readonly chunks: readonly Uint8Array[];
}

async function snapshotOf(nc: NatsConnection, name: string): Promise<Snapshot> {
  const inbox = createInbox();
  const chunks: Uint8Array[] = [];
  const delivered = nc.subscribe(inbox);
  const all = (async () => {
    for await (const message of delivered) {
      if (message.data.length === 0) break;
      chunks.push(message.data.slice());
      message.respond();
    }
  })();
  const question = JSON.stringify({ deliver_subject: inbox, no_consumers: true });
  const answer = await nc.request(`$JS.API.STREAM.SNAPSHOT.${name}`, question, { timeout: 10_000 });
  await all;
  const { config, state } = answer.json<{ config: unknown; state: unknown }>();
  return { config, state, chunks };
}

async function restore(nc: NatsConnection, name: string, { config, state, chunks }: Snapshot): Promise<void> {
  const begun = await nc.request(`$JS.API.STREAM.RESTORE.${name}`, JSON.stringify({ config, state }), {
    timeout: 10_000,
  });
  const { deliver_subject: to } = begun.json<{ deliver_subject: string }>();
  for (const chunk of chunks) await nc.request(to, chunk, { timeout: 10_000 });
  const ended = await nc.request(to, '', { timeout: 10_000 });
  assert.is(ended.json<{ error?: unknown }>().error, undefined);
}

test.run();

/**
 * A log that is not the one that was loaded: an older copy of its folder put back. `audit`, `where` and `shards` say so with one voice, and
 * `shards mend` gets into ClickHouse, once, what was acknowledged since. lost-log.long.test.ts has more ways.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { keptStream } from '../../lib/subjects.js';
import { endSharedClickHouse, isThere, log, stream, withScene } from '../testing/lost-log-scene.js';

test.after(endSharedClickHouse);

test('an older copy of the log put back: audit, where and shards name the shard, and mend loads what came since, once', async () => {
  await withScene(async (scene) => {
    const { nats, jsm, publish, stored, loaded, run } = scene;
    await publish('a', 20);
    await loaded(200);
    await nats.keepCopy();
    await publish('b', 30);
    await loaded(500);
    await nats.rollBack();
    // Acknowledged, and with the sequences of messages that were loaded.
    await publish('c', 20);

    const backwards = await run('audit');
    assert.is(backwards.code, 1, backwards.out + backwards.err);
    assert.match(backwards.out, /FAULT shard 0, .*: the stream went backwards: its last message is 40, .* up to 50/);
    assert.match(backwards.out, /sluice shards mend/);
    assert.match(backwards.out, /FAULT shard 0, messages 21 to 40 \[\+200\]: .* not the ones that were loaded/);
    assert.match(backwards.out, /difference 200: 2 faults\n$/);
    assert.match(await scene.shards(), /^0: the stream went backwards/);
    const whereIs = await run('where', '--tenant', 'acme', 'c-7');
    assert.match(whereIs.out, /not in ClickHouse: the log lost its end.*\n {2}shard 0 is not loaded: the stream went/);
    // Of an event that is nowhere, every way that it can have gone is named.
    assert.match((await run('where', 'gone-1')).out, /the log lost it before it was loaded/);

    // As long as before, and longer.
    await publish('d', 20);
    const replaced = await scene.audit();
    assert.match(replaced.faults, /the stream lost its end and went on/);
    assert.match(replaced.faults, /^0 21-50 \[300\] /m);
    assert.match(await scene.shards(), /^0: the stream lost its end and went on/);
    const ahead = await scene.where('d-19');
    assert.is(ahead.state, 'in flight');
    assert.match(ahead.stopped ?? '', /lost its end/);

    const mended = await run('shards', 'mend', '0');
    assert.is(mended.code, 0, mended.err);
    assert.match(mended.err, /40 messages were published again/);
    await loaded(900);
    nats.process().kill('SIGTERM');
    await nats.restart();
    await publish('e', 1);
    await loaded(910);
    assert.equal(await stored(), [910, 910]);
    assert.equal(await scene.audit(), { faults: '', difference: 0 });
    assert.is(await scene.shards(), '');
    assert.not.ok(await isThere(jsm, keptStream(0)));
    assert.is((await jsm.streams.info(stream)).config.max_bytes, log.maxBytes);
    assert.match(await scene.mend(0).then(String, String), /Shard 0 needs no mending/);
  });
});

test.run();

/**
 * Ways in which a shard could stand still, on a real stream and the real engine: it goes on without a restart, or says within its
 * patience why it cannot.
 */
import { spawn } from 'node:child_process';
import { create } from '@bufbuild/protobuf';
import { jetstreamManager } from '@nats-io/jetstream';
import { Kvm } from '@nats-io/kv';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { EventBatchSchema } from '#gen/sluice/event/v1/event_pb.js';
import { testEnvironment } from '../../lib/config/index.js';
import { formatShardSetting, shardsKey } from '../../lib/shard-setting.js';
import { settingsBucket, shardStream } from '../../lib/subjects.js';
import { createRandom, encodeBatch, makeBatch } from '../../lib/testing/batches.js';
import { programFlags, programPath } from '../../lib/testing/program.js';
import { until } from '../../lib/testing/until.js';
import type { ClickHouse } from '../clickhouse/client.js';
import { eventsTable } from '../clickhouse/connect.js';
import type { InsertStatement } from '../clickhouse/schema/index.js';
import { shownStatus } from '../ledger/shard-states.js';
import { storedPayload } from '../testing/payloads.js';
import { createSharedEngines, type Engines, type ShardScene } from '../testing/shard-scene.js';
import { createClickHouseBlockStore } from './block-store.js';
import { batchIdIn, eachFrame } from './frames.js';
import { askShardWaits, serveShardWaits, waitOf } from './shard-waits.js';

const random = createRandom(31);
const engines = createSharedEngines();
test.after(() => engines.end());
const on = (name: string, run: (engines: Engines) => Promise<void>): void =>
  void test(name, async () => run(await engines.use()));
const target = eventsTable('sluice');

let batches = 0;
/** A batch whose events are named after it. */
function batch(count: number, name = `b${++batches}`): { readonly id: string; readonly payload: Uint8Array } {
  const made = makeBatch(random, count).events;
  made.forEach((event, i) => {
    event.eventId = `${name}.${i}`;
  });
  const bytes = encodeBatch(create(EventBatchSchema, { events: made }));
  return { id: name, payload: storedPayload(random, { tenant: 'acme', batchId: name, events: count, bytes }) };
}
/** A type that no contract has. */
const badEvent = Uint8Array.of(0x0a, 5, 0x0a, 1, 0x78, 0x10, 99);
const bad = (name: string): Uint8Array =>
  storedPayload(random, { tenant: 'acme', batchId: name, events: 1, bytes: badEvent });

/** Each event of these batches is stored, once. */
async function assertStored(shard: ShardScene, events: number): Promise<void> {
  const stored = await shard.events();
  assert.is(stored.size, events);
  assert.ok([...stored.values()].every((n) => n === 1));
}

/** A store whose blocks and trials are changed on their way to the real engine. */
const changed = (clickhouse: ClickHouse, change: (statement: InsertStatement) => InsertStatement) =>
  createClickHouseBlockStore(
    { ...clickhouse, insertBlock: (statement, id, body) => clickhouse.insertBlock(change(statement), id, body) },
    target,
  );

on(
  'a block that is too large for the memory of a query is cut smaller until it passes, and grows again',
  async ({ scene, clickhouse }) => {
    const shard = await scene();
    let sent = 0;
    for (let i = 0; i < 48; i++) {
      await shard.publish(batch(400).payload);
      sent += 400;
    }
    const sizes: number[] = [];
    // As much as some thousand rows need: a setting that a user's profile may have. (First in this file: others change the table.)
    const most = changed(clickhouse, ({ query, settings }) => ({
      query,
      settings: { ...settings, max_memory_usage: 23 * 1024 ** 2, max_untracked_memory: 1 },
    }));
    await shard.load({
      store: {
        ...most,
        insert(of, place, block) {
          sizes.push(block.rows);
          return most.insert(of, place, block);
        },
      },
    });
    await assertStored(shard, sent);
    const blocks = await shard.blocks();
    assert.ok(blocks.length > 1 && blocks.length < 48, `${blocks.map(({ rows }) => rows)} after ${sizes}`);
    assert.ok(sizes[0] === sent && (sizes[1] ?? sent) <= sent / 2, sizes.join());
  },
);

on(
  'a column that is dropped under a running worker is added again, and the shard goes on',
  async ({ scene, clickhouse }) => {
    const shard = await scene();
    const loader = shard.start();
    await shard.publish(batch(5).payload);
    await until('the first block', () => shard.committed() === 1);
    let sent = 5;
    // One that blocks are written to, one that look-ups read, one that is neither; an index; and a column of the operator's own.
    for (const alter of [
      'DROP COLUMN client',
      'DROP COLUMN _hi_at',
      'DROP COLUMN ad_creative',
      'DROP INDEX by_time',
      'ADD COLUMN note String',
      'DROP PROJECTION blocks',
    ]) {
      await clickhouse.command(`ALTER TABLE sluice.events ${alter}`).catch((error: Error) => {
        if (!/ad_creative/.test(alter)) throw error;
      });
      await shard.publish(batch(5).payload);
      sent += 5;
      const since = performance.now();
      await until(`it goes on after ${alter}`, async () => (await shard.events()).size === sent);
      assert.ok(performance.now() - since < 15_000, `${alter}: ${performance.now() - since} ms`);
    }
    await loader.stop(5_000);
    await assertStored(shard, sent);
    await clickhouse.command('ALTER TABLE sluice.events DROP COLUMN note');
  },
);

on(
  'a table that is away raises an alarm with the reason; the shard goes on when it is back',
  async ({ scene, clickhouse, nats }) => {
    const shard = await scene();
    await clickhouse.command('RENAME TABLE sluice.events TO sluice.away');
    let back = false;
    const comeBack = async (): Promise<void> => {
      if (!back) await clickhouse.command('RENAME TABLE sluice.away TO sluice.events');
      back = true;
    };
    try {
      await shard.publish(batch(5).payload);
      const loader = shard.start({ standstillMs: 1_000, hintMs: 100 });
      const served = serveShardWaits(nats.nc, () => [{ shard: shard.shard, wait: loader.wait() }]);
      await until('the alarm', () => shard.seen.standing);
      assert.match(loader.wait()?.reason ?? '', /UNKNOWN_TABLE/);
      const asked = await askShardWaits(nats.nc);
      assert.match(asked.loaded.get(shard.shard)?.wait?.reason ?? '', /UNKNOWN_TABLE/);
      await comeBack();
      await until('it goes on', () => shard.committed() === 1);
      await until('the alarm is over', () => !shard.seen.standing && loader.wait() === undefined);
      served.close();
      await loader.stop(5_000);
    } finally {
      await comeBack();
    }
    await assertStored(shard, 5);
  },
);

on(
  'an unlisted error costs only the batch that causes it; one that the batches do not cause is an alarm',
  async ({ scene, clickhouse }) => {
    const shard = await scene();
    const good = Array.from({ length: 30 }, () => batch(3));
    const odd = batch(2, 'odd');
    await shard.publish(...good.slice(0, 15).map(({ payload }) => payload), odd.payload);
    await shard.publish(...good.slice(15).map(({ payload }) => payload));
    // FUNCTION_THROW_IF_VALUE_IS_NON_ZERO, which stands for any number that no list has.
    const throwing = changed(clickhouse, ({ query, settings }) => ({
      query: query.replace('reinterpretAsUInt128(', "throwIf(batch_id = 'odd') + reinterpretAsUInt128("),
      settings,
    }));
    await shard.load({ store: throwing });
    await assertStored(shard, 90);
    const letters = await shard.letters();
    assert.equal(
      letters.map(({ batchId, events }) => [batchId, events]),
      [['odd', 2]],
    );
    assert.match(letters[0]?.reason ?? '', /395/);

    // A rule of the operator's own refuses a row that the contract has no objection to. No batch is blamed.
    const other = await scene();
    await clickhouse.command("ALTER TABLE sluice.events ADD CONSTRAINT mine CHECK batch_id != 'refused-by-rule'");
    try {
      await other.publish(batch(3).payload, batch(1, 'refused-by-rule').payload);
      const loader = other.start({ standstillMs: 1_000, hintMs: 100 });
      await until('the alarm', () => other.seen.standing && other.seen.stuck);
      assert.match(loader.wait()?.reason ?? '', /VIOLATED_CONSTRAINT/);
      assert.equal([await other.blocks(), await other.letters()], [[], []]);
      await clickhouse.command('ALTER TABLE sluice.events DROP CONSTRAINT mine');
      await until('it goes on', () => other.committed() === 1);
      await loader.stop(5_000);
      await assertStored(other, 4);
    } finally {
      await clickhouse.command('ALTER TABLE sluice.events DROP CONSTRAINT IF EXISTS mine');
    }
  },
);

on('the search for bad batches goes on where a dead worker left it', async ({ scene }) => {
  const shard = await scene();
  const ids = (messages: readonly Uint8Array[]): string[] =>
    messages.flatMap((bytes) => {
      const found: string[] = [];
      eachFrame(bytes, (frame) => void found.push(batchIdIn(bytes, frame)));
      return found;
    });
  const good = Array.from({ length: 60 }, () => batch(2));
  await shard.publish(...good.slice(0, 20).map(({ payload }) => payload), bad('bad-1'));
  await shard.publish(...good.slice(20, 40).map(({ payload }) => payload), bad('bad-2'));
  await shard.publish(...good.slice(40).map(({ payload }) => payload), bad('bad-3'));
  for (const [life, found] of [['bad-1'], ['bad-1', 'bad-2']].entries()) {
    let died = false;
    const dying = {
      ...shard.store,
      async trial(messages: readonly Uint8Array[]): Promise<string | undefined> {
        if (died || (await shard.letters()).length > life) {
          died = true;
          throw new Error('killed');
        }
        const known = ids(messages).filter((id) => found.slice(0, -1).includes(id));
        assert.equal(known, [], 'what was found is not looked for again');
        return shard.store.trial(messages);
      },
    };
    const loader = shard.start({ store: dying });
    await until(`life ${life} has found one`, () => died);
    await loader.stop(0);
    assert.equal(
      (await shard.letters()).map(({ batchId }) => batchId),
      found,
    );
    assert.equal(await shard.blocks(), []);
  }
  await shard.load();
  await assertStored(shard, 120);
  assert.equal(
    (await shard.letters()).map(({ batchId }) => batchId),
    ['bad-1', 'bad-2', 'bad-3'],
  );
  assert.equal(await shard.blocks(), [{ block: 1, lo: 1, hi: 3, accepted: 120, duplicate: 0, dead: 3, rows: 120 }]);
});

on(
  'a materialized view that refuses rows is named and counted, and holds up nothing',
  async ({ scene, clickhouse }) => {
    const shard = await scene();
    await clickhouse.command(
      'CREATE MATERIALIZED VIEW sluice.numbers_of ENGINE = MergeTree ORDER BY n AS SELECT toInt64(event_id) AS n FROM sluice.events',
    );
    try {
      for (let i = 0; i < 3; i++) {
        await shard.publish(batch(4).payload);
        await shard.load();
      }
      assert.equal(shard.seen.storedAnyway, [6, 6, 6]);
      await assertStored(shard, 12);
      assert.equal(await shard.letters(), []);
    } finally {
      await clickhouse.command('DROP TABLE sluice.numbers_of');
    }
  },
);

/** `sluice shards`, on its own. */
function sluiceShards(natsUrl: string, clickhouseUrl: string): Promise<{ out: string; code: number | null }> {
  const main = programPath('workers/ledger/shards-main.ts');
  const flags = ['--nats-url', natsUrl, '--clickhouse-url', clickhouseUrl, '--log-level', 'error'];
  const child = spawn(process.execPath, [...programFlags, main, ...flags], { env: testEnvironment() });
  let out = '';
  const more = (chunk: unknown): void => {
    out += String(chunk);
  };
  child.stdout.on('data', more);
  child.stderr.on('data', more);
  return new Promise((resolve) => child.once('close', (code) => resolve({ out, code })));
}

on('`sluice shards` says why a shard waits, and its exit code says so', async ({ scene, nats, engine }) => {
  const shard = await scene();
  await shard.publish(batch(3).payload);
  const settings = await new Kvm(nats.nc).create(settingsBucket);
  await settings.put(shardsKey, formatShardSetting({ shards: shard.shard + 1, epoch: 1 }));
  const alone = await sluiceShards(nats.url, engine.url);
  assert.match(alone.out, new RegExp(`shard ${shard.shard} waits: no worker answers`));
  assert.is(alone.code, 2);
  const all = Array.from({ length: shard.shard + 1 }, (_, of) => ({ shard: of }));
  const moving = serveShardWaits(nats.nc, () => all);
  const fine = await sluiceShards(nats.url, engine.url);
  assert.is(fine.code, 0, fine.out);
  moving.close();
  const wait = { seconds: 34, reason: 'storing a block fails: ClickHouse 497 ACCESS_DENIED' };
  const standing = serveShardWaits(nats.nc, () =>
    all.map((one) => (one.shard === shard.shard ? { ...one, wait } : one)),
  );
  const waits = await sluiceShards(nats.url, engine.url);
  standing.close();
  assert.match(waits.out, /waits\nshard \d+ waits: it stands still for 34 s: storing a block fails: ClickHouse 497/);
  assert.is(waits.code, 2);
});

on(
  'a table that is away is a finding of `sluice shards`, beside what the log holds',
  async ({ scene, clickhouse, nats, engine }) => {
    const shard = await scene();
    await shard.publish(batch(3).payload);
    const settings = await new Kvm(nats.nc).create(settingsBucket);
    await settings.put(shardsKey, formatShardSetting({ shards: shard.shard + 1, epoch: 1 }));
    const starting = serveShardWaits(nats.nc, () => ({ starting: 'column app_build is UInt64' }));
    await clickhouse.command('RENAME TABLE sluice.events TO sluice.away');
    try {
      const { out, code } = await sluiceShards(nats.url, engine.url);
      assert.match(out, new RegExp(`\\n${shard.shard} +${shardStream(shard.shard)} .* \\? +\\? +waits\\n`));
      assert.match(out, /ClickHouse does not say what of it is loaded: ClickHouse 60 UNKNOWN_TABLE/);
      assert.match(out, /waits: no worker loads it: one waits itself: column app_build is UInt64\n/);
      assert.is(code, 2);
    } finally {
      await clickhouse.command('RENAME TABLE sluice.away TO sluice.events');
      starting.close();
    }
  },
);

on('ClickHouse that answers nothing does not keep the state of the log from who looks', async ({ scene, nats }) => {
  const shard = await scene();
  await shard.publish(batch(3).payload);
  const jsm = await jetstreamManager(nats.nc);
  const never = { lastBlock: () => new Promise<never>(() => undefined) };
  const look = { jsm, store: never, settings: undefined };
  const status = await shownStatus(look, shard.shard, { shards: shard.shard + 1, epoch: 1 }, 50);
  assert.match(status.unknown ?? '', /does not answer/);
  assert.ok(status.messages > 0 && status.lag === status.messages);
});

test('what a worker said of a shard before it was mended or accepted is not said again', () => {
  const wait = { seconds: 12, reason: 'it is not loaded: `sluice shards mend 0`', halted: true };
  const workers = { loaded: new Map([[0, { shard: 0, wait }]]), starting: undefined };
  assert.match(
    waitOf({ shard: 0, lag: 3, stopped: undefined }, workers) ?? '',
    /^it may be loaded, and its worker looks/,
  );
  assert.match(waitOf({ shard: 0, lag: 3, stopped: 'it went backwards' }, workers) ?? '', /mend 0/);
});

test.run();

/** LOAD-5 on a real stream and the real engine: what was sent twice is stored once, and nothing of it is missing. */
import { create } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Event, EventBatchSchema } from '#gen/sluice/event/v1/event_pb.js';
import { createRandom, encodeBatch, makeBatch } from '../../lib/testing/batches.js';
import { until } from '../../lib/testing/until.js';
import { type BatchToStore, storedPayload } from '../testing/payloads.js';
import { createSharedEngines, type Engines, type ShardScene } from '../testing/shard-scene.js';
import { fingerprintOfIds } from './fingerprint.js';

const random = createRandom(5);
let batches = 0;

/** A batch of events named after it; `pick` takes some of them. */
function batch(events: number): {
  id: string;
  names: string[];
  copy(attempt: number, pick?: readonly number[]): Uint8Array;
} {
  const id = `batch-${++batches}`;
  const all: Event[] = makeBatch(random, events).events.map((event, i) =>
    Object.assign(event, { eventId: `${id}.${i}` }),
  );
  return {
    id,
    names: all.map(({ eventId }) => eventId),
    copy(attempt, pick) {
      const chosen = pick === undefined ? all : pick.map((i) => all[i] as Event);
      const stored: BatchToStore = {
        tenant: 'acme',
        batchId: id,
        attempt,
        events: chosen.length,
        bytes: encodeBatch(create(EventBatchSchema, { events: chosen })),
      };
      return storedPayload(random, stored);
    },
  };
}

async function assertOnce(scene: ShardScene, names: readonly string[]): Promise<void> {
  const events = await scene.events();
  assert.equal(
    [...events].filter(([, n]) => n !== 1),
    [],
  );
  assert.equal([...events.keys()].sort(), [...names].sort());
}

const sums = async (scene: ShardScene) =>
  (await scene.blocks()).reduce(
    (sum, { accepted, duplicate, rows }) => ({
      accepted: sum.accepted + accepted,
      duplicate: sum.duplicate + duplicate,
      rows: sum.rows + rows,
    }),
    { accepted: 0, duplicate: 0, rows: 0 },
  );

const engines = createSharedEngines();
test.after(() => engines.end());

/** A test on the engines of this file. */
const on = (name: string, run: (engines: Engines) => Promise<void>): void =>
  void test(name, async () => run(await engines.use()));

on('a whole batch again, in the block, in the next one, and after another worker took over', async ({ scene }) => {
  const shard = await scene();
  const [a, b, c] = [batch(20), batch(30), batch(40)];
  await shard.publish(a.copy(1), b.copy(1));
  await shard.publish(a.copy(2));
  await shard.load();
  await shard.publish(c.copy(1));
  await shard.publish(b.copy(2), a.copy(3));
  await shard.load();
  await shard.publish(c.copy(0), batch(1).copy(1));
  await shard.load();
  await assertOnce(shard, [...a.names, ...b.names, ...c.names, `batch-${batches}.0`]);
  assert.equal(await sums(shard), { accepted: 91, duplicate: 20 + 50 + 40, rows: 91 });
});

on(
  'the first copy comes after the second: in the block, and to a worker that never saw the second',
  async ({ scene }) => {
    const shard = await scene();
    const [a, b, c] = [batch(20), batch(30), batch(5)];
    await shard.publish(a.copy(2));
    await shard.publish(a.copy(1), b.copy(2));
    await shard.load();
    // Another worker: it knows of b by ClickHouse alone.
    await shard.publish(b.copy(1), c.copy(1));
    await shard.load();
    await assertOnce(shard, [...a.names, ...b.names, ...c.names]);
    assert.equal(await sums(shard), { accepted: 55, duplicate: 50, rows: 55 });
  },
);

on('only the events that are missing of a batch are added, by event_id', async ({ scene }) => {
  const shard = await scene();
  const [a, b] = [batch(6), batch(4)];
  await shard.publish(a.copy(1, [0, 2]), b.copy(2, [1]));
  await shard.publish(b.copy(3, [0, 1, 2]), b.copy(4));
  await shard.load();
  const before = batch(2);
  await shard.publish(before.copy(1), a.copy(2, [0, 1, 2, 3]), a.copy(3), before.copy(2));
  await shard.load();
  await assertOnce(shard, [...a.names, ...b.names, ...before.names]);
  assert.equal(await sums(shard), { accepted: 12, duplicate: 1 + 3 + 2 + 4 + 2, rows: 12 });
  // What is cut out of a message leaves its neighbours as they were.
  assert.is((await shard.letters()).length, 0);
});

on(
  'an id that is used again keeps all its events, as many as a batch may have, with short names and with long ones',
  async ({ scene }) => {
    for (const nameOf of [(i: number) => `e${i}`, (i: number) => `${'long-'.repeat(11)}${i}`]) {
      const shard = await scene();
      const batchId = `used-again-${shard.shard}`;
      const events = makeBatch(random, 10_000).events;
      const copy = (attempt: number, first: number): Uint8Array => {
        for (const [i, event] of events.entries()) Object.assign(event, { eventId: nameOf(first + i) });
        const bytes = encodeBatch(create(EventBatchSchema, { events }));
        return storedPayload(random, { tenant: 'acme', batchId, attempt, events: events.length, bytes });
      };
      await shard.publish(copy(1, 0));
      await shard.load();
      await shard.publish(copy(0, 5_000));
      await shard.publish(copy(2, 20_000));
      await shard.publish(copy(2, 5_000));
      await shard.load();
      const range = (from: number, to: number): string[] =>
        Array.from({ length: to - from }, (_, i) => nameOf(from + i));
      await assertOnce(shard, [...range(0, 15_000), ...range(20_000, 30_000)]);
      assert.equal(await sums(shard), { accepted: 25_000, duplicate: 15_000, rows: 25_000 });
      // As when far more is stored under the id than the copies have: then ids are sent instead of read.
      const eventIds = [...range(0, 16_000)];
      const [counts] = await shard.store.eventCounts([{ tenant: 'acme', batchId, eventIds }]);
      assert.equal(
        [...(counts ?? [])].sort(),
        range(0, 15_000)
          .map((id) => [id, 1])
          .sort(),
      );
    }
  },
);

on('the fingerprint of a batch is the same in ClickHouse and here', async ({ scene, clickhouse }) => {
  const shard = await scene();
  const ids = [
    'a',
    'ab',
    'abc',
    'abcd',
    'abcde',
    '',
    'run1-1',
    'run1-1',
    'x'.repeat(63),
    '0f8fad5b-d9cb-469f-a165-70867728950e',
  ];
  const { events } = makeBatch(random, ids.length);
  for (const [i, event] of events.entries()) Object.assign(event, { eventId: ids[i] });
  const bytes = encodeBatch(create(EventBatchSchema, { events }));
  await shard.publish(
    storedPayload(random, { tenant: 'acme', batchId: 'print', attempt: 1, events: ids.length, bytes }),
  );
  await shard.load();
  const [print] = await shard.store.fingerprints([{ tenant: 'acme', batchId: 'print' }]);
  assert.equal(print, fingerprintOfIds(ids));
  const odd = { tenant: 'acme', batchId: 'print', eventIds: ['ab', "'; DROP", '\\', '\0', 'run1-1'] };
  assert.equal([...((await shard.store.eventCounts([odd]))[0] ?? [])].sort(), [
    ['ab', 1],
    ['run1-1', 2],
  ]);
  assert.equal(await clickhouse.rows('SELECT 1 AS one'), [{ one: 1 }]);
});

on('a copy that lies on another shard is found, since the number of shards may change', async ({ scene }) => {
  const [one, two] = [await scene(), await scene()];
  const [a, b] = [batch(3), batch(3)];
  await one.publish(a.copy(1));
  await one.load();
  await two.publish(a.copy(2), b.copy(1));
  await two.load();
  await assertOnce(one, a.names);
  await assertOnce(two, b.names);
});

on(
  'blocks of copies alone are deferred: committed, but neither written nor trimmed, and read again after a crash',
  async ({ scene, jsm }) => {
    const shard = await scene();
    const [a, b] = [batch(10), batch(5)];
    await shard.publish(a.copy(1));
    await shard.load({ replayMs: 0 });
    for (let attempt = 2; attempt < 6; attempt++) await shard.publish(a.copy(attempt));
    const loader = shard.start({ replayMs: 0 });
    await until('committed', () => shard.committed() === 5);
    await new Promise((resolve) => setTimeout(resolve, 500));
    assert.equal(await shard.blocks(), [{ block: 1, lo: 1, hi: 1, accepted: 10, duplicate: 0, dead: 0, rows: 10 }]);
    assert.is((await jsm.streams.info(`EV_${shard.shard}`)).state.messages, 4);
    await loader.stop(0);
    const again = shard.start({ replayMs: 0 });
    await until('committed by another', () => shard.committed() === 5);
    await shard.publish(b.copy(1));
    await until('stored', () => shard.committed() === 6);
    await until('trimmed', async () => (await jsm.streams.info(`EV_${shard.shard}`)).state.messages === 0);
    await again.stop(5_000);
    assert.equal((await shard.blocks())[1], { block: 2, lo: 2, hi: 6, accepted: 5, duplicate: 40, dead: 0, rows: 5 });
    await assertOnce(shard, [...a.names, ...b.names]);
  },
);

on(
  'a log full of copies is trimmed with the help of a tombstone, so that it does not fill up',
  async ({ scene, jsm }) => {
    const shard = await scene(1024 ** 2);
    const big = batch(300);
    await shard.publish(big.copy(1));
    const loader = shard.start({ replayMs: 0 });
    const size = big.copy(2).length;
    const copies = Math.ceil((3 * 1024 ** 2) / size);
    for (let attempt = 2; attempt < 2 + copies; attempt++) {
      const payload = big.copy(attempt);
      // Full for a moment.
      await until('published', () => shard.publish(payload).then(Boolean, () => false));
    }
    const last = batch(1);
    await shard.publish(last.copy(1));
    await until('all committed', () => shard.committed() === copies + 2);
    await loader.stop(5_000);
    const blocks = await shard.blocks();
    const tombs = blocks.filter(({ rows }) => rows === 0);
    assert.ok(tombs.length > 0 && tombs.every(({ accepted, duplicate }) => accepted === 0 && duplicate > 0));
    blocks.forEach((block, i) => {
      assert.is(block.lo, (blocks[i - 1]?.hi ?? 0) + 1);
    });
    assert.ok((await jsm.streams.info(`EV_${shard.shard}`)).state.bytes < 1024 ** 2);
    await assertOnce(shard, [...big.names, ...last.names]);
    assert.is((await sums(shard)).duplicate, 300 * copies);
  },
);

on('what the set of retries is read by skips the granules without one', async ({ scene, clickhouse }) => {
  const shard = await scene();
  // Three granules of 8,192 rows, with one retried batch among them.
  for (let i = 0; i < 50; i++) await shard.publish(batch(500).copy(i === 25 ? 2 : 1));
  await shard.load();
  const explain = async (where: string): Promise<string> =>
    (
      await clickhouse.rows<{ explain: string }>(
        `EXPLAIN indexes = 1 SELECT DISTINCT batch_id FROM sluice.events WHERE ${where}`,
      )
    )
      .map((row) => row.explain)
      .join('\n');
  const [rows] = await clickhouse.rows<{ n: string }>(
    `SELECT toString(count()) AS n FROM sluice.events WHERE _shard = ${shard.shard}`,
  );
  assert.is(Number(rows?.n), 25_000);
  const since = "received_at >= toDateTime('2020-01-01 00:00:00', 'UTC')";
  const plan = await explain(`_attempt != 1 AND ${since} AND _shard = ${shard.shard}`);
  const granules = /Name: by_attempt[\s\S]*?Granules: (\d+)\/(\d+)/.exec(plan);
  assert.ok(Number(granules?.[1]) < Number(granules?.[2]), plan);
  assert.match(
    await explain("received_at >= toDateTime('2100-01-01 00:00:00', 'UTC')"),
    /Name: by_arrival[\s\S]*?Parts: 0\//,
  );
  const found = await shard.store.retriedSince(Date.now() - 3_600_000, 1_000);
  assert.ok(found.some(({ batchId }) => batchId === `batch-${batches - 24}`));
  assert.not.ok(found.some(({ batchId }) => batchId === `batch-${batches}`));
});

test.run();

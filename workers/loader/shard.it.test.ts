/**
 * The loader of a shard on a real stream. ClickHouse here is a table in memory that keeps LOAD-1 and LOAD-2, so that it can be
 * told to fail; the real engine has its turn in load.it.test.ts.
 */
import { create, toBinary } from '@bufbuild/protobuf';
import { type JetStreamManager, jetstream, jetstreamManager } from '@nats-io/jetstream';
import { pino } from 'pino';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { StoredBatchSchema } from '#gen/sluice/log/v1/log_pb.js';
import { createDeadLetters } from '../../lib/dead-letters.js';
import { ensureShards } from '../../lib/log-streams.js';
import { silentLogger } from '../../lib/logger.js';
import { shardStream } from '../../lib/subjects.js';
import { type TestNats, withNats } from '../../lib/testing/nats.js';
import { until } from '../../lib/testing/until.js';
import { createByteBudget } from '../reader/budget.js';
import { createBufferPool } from '../reader/buffer-pool.js';
import { type SeenMetrics, seeingMetrics } from '../testing/seen-metrics.js';
import type { Block } from './block.js';
import type { BlockStore } from './block-store.js';
import { noEvents } from './fingerprint.js';
import type { InsertFailure } from './loader.js';
import { type ShardLoader, type ShardLoaderOptions, startShardLoader } from './shard.js';

interface MemoryRow {
  readonly generation: string;
  readonly day: string;
  readonly block: number;
  readonly content: Block;
}

interface MemoryBlockStore extends BlockStore {
  readonly table: MemoryRow[];
  /** What the next INSERTs do before they store anything. */
  failure: InsertFailure | undefined;
}

function createMemoryBlockStore(): MemoryBlockStore {
  const table: MemoryRow[] = [];
  const own = (generation: string): MemoryRow[] => table.filter((row) => row.generation === generation);
  return {
    table,
    failure: undefined,
    async lastBlock(_, generation) {
      const rows = own(generation);
      return {
        block: Math.max(0, ...rows.map((row) => row.block)),
        hi: Math.max(0, ...rows.map((row) => row.content.hi)),
        hiAtMs: rows.at(-1)?.content.lastTimeMs ?? 0,
        others:
          rows.length > 0 ? [] : table.map((row) => ({ generation: row.generation, hi: row.content.hi })).slice(-1),
      };
    },
    async readBack(_, place, day) {
      const row = own(place.generation).find((other) => other.block === place.block && other.day === day);
      return row && { lo: row.content.lo, hi: row.content.hi };
    },
    async insert(_, place, content) {
      if (this.failure !== undefined) throw new Error(this.failure);
      if (!own(place.generation).some((row) => row.block === place.block && row.day === content.day)) {
        table.push({ generation: place.generation, day: content.day, block: place.block, content });
      }
    },
    fingerprints: async (batches) => batches.map(() => noEvents),
    eventCounts: async (questions) => questions.map(() => new Map()),
    async retriedSince() {
      return [];
    },
    async trial() {
      return undefined;
    },
    classify(error) {
      return error instanceof Error && error.message === 'content' ? 'content' : 'transient';
    },
    onRecovered: () => () => undefined,
  };
}

function gate(): { readonly passed: Promise<void>; open(): void } {
  let open = (): void => undefined;
  const passed = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { passed, open: () => open() };
}

interface Scene {
  readonly nats: TestNats;
  readonly jsm: JetStreamManager;
  readonly clickhouse: MemoryBlockStore;
  readonly seen: SeenMetrics;
  readonly accept: Set<string>;
  publish(count: number): Promise<void>;
  start(more?: Partial<ShardLoaderOptions>): ShardLoader;
}

const payload = (rows: number): Uint8Array => {
  // Metadata alone, with the count, and one empty event: all that the loader looks at.
  const meta = toBinary(StoredBatchSchema, create(StoredBatchSchema, { tenant: 'acme', eventCount: rows }));
  return Uint8Array.of(meta.length + 2, ...meta, 0x0a, 0);
};

async function withScene(use: (scene: Scene) => Promise<void>): Promise<void> {
  await withNats(async (nats) => {
    const jsm = await jetstreamManager(nats.nc);
    const clickhouse = createMemoryBlockStore();
    const { seen, metrics } = seeingMetrics();
    const accept = new Set<string>();
    const loaders: ShardLoader[] = [];
    await ensureShards(nats.nc, { shards: 1, replicas: 1, maxBytes: 1024 ** 2 });
    try {
      await use({
        nats,
        jsm,
        clickhouse,
        seen,
        accept,
        async publish(count) {
          const js = jetstream(nats.nc);
          for (let i = 0; i < count; i++) await js.publish('ev.0.acme', payload(10));
        },
        start(more = {}) {
          const loader = startShardLoader({
            nc: nats.nc,
            jsm,
            shard: 0,
            store: clickhouse,
            limits: { rows: 100, bytes: 1024 ** 2, delayMs: 50 },
            budget: createByteBudget(64 * 1024 ** 2),
            buffers: createBufferPool(64 * 1024 ** 2),
            deadLetters: createDeadLetters({ nc: nats.nc, maxBytes: 1024 ** 2 }),
            replayMs: 3_600_000,
            metrics,
            logger: silentLogger,
            accepted: async (_, generation) => accept.has(generation),
            roundMs: 100,
            stoppedMs: 100,
            ...more,
          });
          loaders.push(loader);
          return loader;
        },
      });
    } finally {
      await Promise.all(loaders.map((loader) => loader.stop(0)));
    }
  });
}

/** Every message of 1…count is in exactly one block. */
function loadedOnce(clickhouse: MemoryBlockStore, count: number): boolean {
  let next = 1;
  for (const row of [...clickhouse.table].sort((a, b) => a.content.lo - b.content.lo)) {
    if (row.content.lo !== next) return false;
    next = row.content.hi + 1;
  }
  return next === count + 1;
}

test('a full stream becomes blocks of the row limit, numbered and without holes; the rest follows by age', async () => {
  await withScene(async ({ publish, start, clickhouse, seen }) => {
    await publish(25);
    start();
    await until('all loaded', () => loadedOnce(clickhouse, 25));
    assert.equal(
      clickhouse.table.map((row) => [row.block, row.content.rows, row.content.reason]),
      [
        [1, 100, 'rows'],
        [2, 100, 'rows'],
        [3, 50, 'delay'],
      ],
    );
    await until('measured', () => seen.depth === 0 && seen.lagMs === 0);
  });
});

test('a drain stores what is gathered', async () => {
  await withScene(async ({ publish, start, clickhouse }) => {
    const loader = start({ limits: { rows: 1_000, bytes: 1024 ** 2, delayMs: 60_000 } });
    await publish(3);
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.is(clickhouse.table.length, 0);
    await loader.stop(5_000);
    assert.is(clickhouse.table[0]?.content.reason, 'drain');
    assert.ok(loadedOnce(clickhouse, 3));
  });
});

test('a loader that is asked to stop leaves after the block at hand, though messages keep coming', async () => {
  await withScene(async ({ publish, start, clickhouse }) => {
    const { insert } = clickhouse;
    clickhouse.insert = async (...block) => {
      await new Promise((resolve) => setTimeout(resolve, 50));
      await insert.apply(clickhouse, block);
    };
    const loader = start();
    let over = false;
    const publishing = (async () => {
      while (!over) await publish(20);
    })();
    await until('some blocks', () => clickhouse.table.length > 3);
    const before = clickhouse.table.length;
    const stopped = loader.stop(60_000);
    await until('it has left, or goes on', () => {
      void stopped.then(() => {
        over = true;
      });
      return over || clickhouse.table.length > before + 5;
    });
    over = true;
    await publishing;
    await stopped;
    assert.ok(clickhouse.table.length <= before + 3, `${clickhouse.table.length - before} more blocks`);
  });
});

test('two loaders of one shard, by mistake, store each message once (LOAD-2)', async () => {
  await withScene(async ({ publish, start, clickhouse }) => {
    start();
    start({ limits: { rows: 30, bytes: 1024 ** 2, delayMs: 20 } });
    for (let i = 0; i < 20; i++) await publish(10);
    await until('all loaded', () => loadedOnce(clickhouse, 200));
  });
});

test('ClickHouse that is down delays and loses nothing, and does not hold up a stop beyond its grace', async () => {
  await withScene(async ({ publish, start, clickhouse, seen }) => {
    clickhouse.failure = 'transient';
    const loader = start();
    await publish(5);
    await until('lag shows', () => seen.depth === 5 && seen.lagMs > 300);
    clickhouse.failure = undefined;
    await until('all loaded', () => loadedOnce(clickhouse, 5));
    clickhouse.failure = 'transient';
    await publish(1);
    await until('one is waiting', () => seen.depth === 1);
    const start0 = Date.now();
    await loader.stop(300);
    assert.ok(Date.now() - start0 < 3_000);
    assert.ok(loadedOnce(clickhouse, 5));
  });
});

test('content that ClickHouse refuses stops the shard loudly and is not skipped (LOAD-6)', async () => {
  await withScene(async ({ publish, start, clickhouse, seen }) => {
    clickhouse.failure = 'content';
    start();
    await publish(2);
    await until('the alarm is raised', () => seen.stuck);
    clickhouse.failure = undefined;
    await until('the same block gets through', () => loadedOnce(clickhouse, 2) && !seen.stuck);
  });
});

test('a stream made again stops the shard until it is accepted (LOAD-8)', async () => {
  await withScene(async ({ nats, jsm, publish, start, clickhouse, seen, accept }) => {
    start();
    await publish(5);
    await until('loaded', () => loadedOnce(clickhouse, 5));
    await jsm.streams.delete(shardStream(0));
    await ensureShards(nats.nc, { shards: 1, replicas: 1, maxBytes: 1024 ** 2 });
    await publish(3);
    await until('the shard is stopped', () => seen.stopped);
    assert.is(clickhouse.table.length, 1);
    const { created } = await jsm.streams.info(shardStream(0));
    accept.add(created.replace(/[-:]/g, ''));
    await until('the new stream is loaded', () => clickhouse.table.at(-1)?.content.hi === 3 && !seen.stopped);
  });
});

test('a stream that lost its end stops the shard (LOAD-8)', async () => {
  await withScene(async ({ jsm, publish, start, clickhouse, seen }) => {
    await publish(2);
    const generation = (await jsm.streams.info(shardStream(0))).created.replace(/[-:]/g, '');
    await clickhouse.insert(0, { generation, block: 7 }, { lo: 1, hi: 9, day: '2026-01-01' } as Block);
    start();
    await until('the shard is stopped', () => seen.stopped);
    await publish(1);
    assert.is(clickhouse.table.length, 1);
  });
});

test('loaded messages leave the stream after the replay window, and what is not loaded stays (LOAD-8)', async () => {
  await withScene(async ({ jsm, publish, start, clickhouse, seen }) => {
    start({ replayMs: 300 });
    await publish(20);
    await until('all trimmed', async () => (await jsm.streams.info(shardStream(0))).state.messages === 0);
    assert.ok(loadedOnce(clickhouse, 20));
    assert.ok(seen.trims > 0);
    clickhouse.failure = 'transient';
    await publish(10);
    await new Promise((resolve) => setTimeout(resolve, 800));
    assert.is((await jsm.streams.info(shardStream(0))).state.messages, 10);
    clickhouse.failure = undefined;
    await until('all loaded', () => loadedOnce(clickhouse, 30));
    assert.is(seen.gaps, 0);
  });
});

test('an eighth past half of max_bytes loaded messages leave at once, so that the stream never fills with them (LOAD-8)', async () => {
  await withScene(async ({ nats, jsm, start, clickhouse }) => {
    start();
    const js = jetstream(nats.nc);
    const big = Buffer.concat([payload(10), Uint8Array.of(0x80 | 0, 0x80 | 0, 0x02), new Uint8Array(32_768)]);
    for (let i = 0; i < 100; i++) {
      for (;;) {
        try {
          await js.publish('ev.0.acme', big);
          break;
        } catch {
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
      }
    }
    await until('all loaded', () => loadedOnce(clickhouse, 100));
    await until('small enough', async () => (await jsm.streams.info(shardStream(0))).state.bytes <= 660_000);
  });
});

test('bytes that a request without an answer may still be sending are not overwritten; those of answered ones are', async () => {
  await withScene(async ({ nats, start, clickhouse }) => {
    const given: { messages: readonly Uint8Array[]; copies: Buffer[]; failed: boolean }[] = [];
    const insert = clickhouse.insert.bind(clickhouse);
    clickhouse.insert = async (shard, place, block) => {
      const failed = given.length === 3;
      given.push({ messages: block.messages, copies: block.messages.map((bytes) => Buffer.from(bytes)), failed });
      if (failed) throw new Error('transient');
      await insert(shard, place, block);
    };
    start({ limits: { rows: 1, bytes: 1024 ** 2, delayMs: 50 }, replayMs: 0 });
    const js = jetstream(nats.nc);
    for (let i = 1; i <= 100; i++) {
      // Batches of one small field each and no event, which the loader counts as nothing.
      const filler = Buffer.alloc(60_000, Uint8Array.of(2, 0x40, i));
      const big = Buffer.concat([payload(1), filler]);
      // The stream may be full for a moment.
      await until('published', () => js.publish('ev.0.acme', big).then(Boolean, () => false));
      await until('loaded', () => loadedOnce(clickhouse, i));
    }
    const same = given.map(({ messages, copies }) => messages.every((bytes, i) => copies[i]!.equals(bytes)));
    const failed = given.findIndex((one) => one.failed);
    assert.is(failed, 3);
    assert.ok(same[failed]);
    // Else this test would show nothing: memory is used again.
    assert.ok(same.filter((kept) => !kept).length > 20);
  });
});

/** The log loses power: of `count` messages published by then it keeps `kept`, and goes on. Resolves when it takes more. */
async function losePower({ nats, jsm, publish }: Scene, kept: number, count: number, clickhouse: MemoryBlockStore) {
  await publish(kept);
  await until('loaded', () => loadedOnce(clickhouse, kept));
  await nats.keepCopy();
  await until('back', () =>
    publish(1).then(
      () => true,
      () => false,
    ),
  );
  const { last_seq: last } = (await jsm.streams.info(shardStream(0))).state;
  await publish(count - last);
  await until('loaded', () => loadedOnce(clickhouse, count));
  await nats.rollBack();
  await until('back', async () => (await jsm.streams.info(shardStream(0)).catch(() => undefined)) !== undefined);
  assert.is((await jsm.streams.info(shardStream(0))).state.last_seq, kept);
}

test('a log that lost its end stops the shard, and still when it is as long as before (LOAD-8)', async () => {
  await withScene(async (scene) => {
    const { jsm, publish, start, clickhouse, seen } = scene;
    const hints: number[] = [];
    const told = { hintMs: 50, onCommitted: (_: number, __: string, hi: number) => hints.push(hi) };
    const first = start(told);
    await losePower(scene, 10, 20, clickhouse);
    await publish(30);
    await until('the shard is stopped', () => seen.stopped);
    const heard = hints.length;
    await new Promise((resolve) => setTimeout(resolve, 400));
    assert.is(hints.length, heard);
    assert.ok(loadedOnce(clickhouse, 20));
    await first.stop(0);
    // Another worker has not seen anything of it.
    seen.stopped = false;
    start(told);
    await until('the shard is stopped', () => seen.stopped);
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.is(hints.length, heard);
    assert.ok(loadedOnce(clickhouse, 20));
    assert.is((await jsm.streams.info(shardStream(0))).state.last_seq, 40);
  });
});

test('what is committed is published again and again, but not while the connection to the log is lost', async () => {
  await withScene(async ({ nats, publish, start, clickhouse }) => {
    const hints: number[] = [];
    const loader = start({ hintMs: 50, onCommitted: (_, __, hi) => hints.push(hi) });
    await publish(10);
    await until('loaded', () => loadedOnce(clickhouse, 10));
    await until('told again', () => hints.filter((hi) => hi === 10).length > 5);
    nats.process().kill('SIGKILL');
    await new Promise((resolve) => setTimeout(resolve, 300));
    const before = hints.length;
    await new Promise((resolve) => setTimeout(resolve, 300));
    assert.is(hints.length, before);
    await nats.restart();
    await until('told again', () => hints.length > before + 5);
    assert.is(hints.at(-1), 10);
    await loader.stop(1_000);
    const after = hints.length;
    await new Promise((resolve) => setTimeout(resolve, 200));
    assert.is(hints.length, after);
  });
});

test('rows that a user removes are named, and loaded again from what the log holds', async () => {
  await withScene(async ({ nats, publish, start, clickhouse }) => {
    const lines: { level: number; had?: number; has?: number; msg: string }[] = [];
    const logger = pino({ level: 'warn' }, { write: (line) => void lines.push(JSON.parse(line)) });
    const loader = start({ logger });
    await publish(20);
    await until('loaded', () => loadedOnce(clickhouse, 20));
    clickhouse.table.length = 0;
    nats.process().kill('SIGKILL');
    await nats.restart();
    await until('loaded again', () => loadedOnce(clickhouse, 20));
    await loader.stop(1_000);
    const told = lines.filter(({ msg }) => msg.includes('rows were removed'));
    assert.equal(
      told.map(({ had, has }) => [had, has]),
      [[20, 0]],
    );
  });
});

test('a connection to the log that is lost and back while a block is being stored is followed by a look at the log (LOAD-8)', async () => {
  await withScene(async ({ nats, publish, start, clickhouse }) => {
    const hints: number[] = [];
    const storable = gate();
    let storing = false;
    const { insert } = clickhouse;
    clickhouse.insert = async (...block) => {
      storing = true;
      await storable.passed;
      await insert.apply(clickhouse, block);
    };
    let looks = 0;
    const { lastBlock } = clickhouse;
    clickhouse.lastBlock = (...shard) => {
      looks++;
      return lastBlock.apply(clickhouse, shard);
    };
    start({ hintMs: 50, onCommitted: (_, __, hi) => hints.push(hi) });
    await publish(10);
    await until('a block is being stored', () => storing);
    nats.process().kill('SIGKILL');
    await nats.restart();
    await until('the log is back', () =>
      publish(10).then(
        () => true,
        () => false,
      ),
    );
    const before = looks;
    storable.open();
    await until('loaded', () => (clickhouse.table.at(-1)?.content.hi ?? 0) >= 20);
    await until('told again', () => (hints.at(-1) ?? 0) >= 20);
    assert.ok(looks > before);
  });
});

test('nothing leaves a log that was lost and is back before it was looked at again (LOAD-8)', async () => {
  await withScene(async ({ nats, jsm, publish, start, clickhouse, seen }) => {
    const gates = { insert: gate(), look: gate() };
    const { insert, lastBlock } = clickhouse;
    let storing = false;
    let looks = 0;
    clickhouse.insert = async (...block) => {
      storing = true;
      await gates.insert.passed;
      await insert.apply(clickhouse, block);
    };
    clickhouse.lastBlock = async (...shard) => {
      if (looks++ > 0) await gates.look.passed;
      return lastBlock.apply(clickhouse, shard);
    };
    start({ replayMs: 0, roundMs: 30 });
    await publish(10);
    await until('a block is being stored', () => storing);
    nats.process().kill('SIGKILL');
    await nats.restart();
    gates.insert.open();
    await until('the block is stored, and the log is to be looked at', () => clickhouse.table.length > 0 && looks > 1);
    try {
      // A round measures before it trims: of two, the first has done both.
      for (let round = 0; round < 2; round++) {
        seen.depth = -1;
        await until('a round', () => seen.depth >= 0);
      }
      assert.is(seen.trims, 0);
      assert.is((await jsm.streams.info(shardStream(0))).state.messages, 10);
    } finally {
      gates.look.open();
    }
    await until('trimmed', () => seen.trims > 0);
  });
});

test('messages removed by hand before they were loaded are counted, and the shard goes on', async () => {
  await withScene(async ({ jsm, publish, start, clickhouse, seen }) => {
    await publish(10);
    await jsm.streams.purge(shardStream(0), { seq: 5 });
    start();
    await until('the rest is loaded', () => clickhouse.table.at(-1)?.content.hi === 10);
    assert.is(seen.gaps, 4);
    assert.is(clickhouse.table[0]?.content.lo, 5);
  });
});

test.run();

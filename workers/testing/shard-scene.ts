/**
 * One shard's loader between a real stream and the real engine, for tests of what ends up in ClickHouse. A scene is used for many
 * tests: each begins with a shard of its own.
 */
import { type JetStreamManager, jetstream, jetstreamManager } from '@nats-io/jetstream';
import { clickhouseClientOptions, resolveOptions } from '../../lib/config/index.js';
import { createDeadLetters, type DeadLetter, deadLetterOf } from '../../lib/dead-letters.js';
import { generationOf } from '../../lib/log-streams.js';
import { silentLogger } from '../../lib/logger.js';
import { deadStream, shardStream, shardSubjects } from '../../lib/subjects.js';
import { type TestClickHouse, withClickHouse } from '../../lib/testing/clickhouse.js';
import { type TestNats, withNats } from '../../lib/testing/nats.js';
import { createShared, type Shared } from '../../lib/testing/shared.js';
import { until } from '../../lib/testing/until.js';
import { hourMs, MiB } from '../../lib/units.js';
import { type ClickHouse, createClickHouse } from '../clickhouse/client.js';
import { eventsTable } from '../clickhouse/connect.js';
import { createTableMender } from '../clickhouse/mend-table.js';
import { prepareTable } from '../clickhouse/prepare-table.js';
import { createStaleStatements } from '../clickhouse/stale-statement.js';
import { type BlockStore, createClickHouseBlockStore } from '../loader/block-store.js';
import { type ShardLoader, type ShardLoaderOptions, startShardLoader } from '../loader/shard.js';
import { createByteBudget } from '../reader/budget.js';
import { createBufferPool } from '../reader/buffer-pool.js';
import { type SeenMetrics, seeingMetrics } from './seen-metrics.js';

export interface StoredBlock {
  readonly block: number;
  readonly lo: number;
  readonly hi: number;
  readonly accepted: number;
  readonly duplicate: number;
  readonly dead: number;
  /** Events in it, without tombstones. */
  readonly rows: number;
}

export interface ShardScene {
  readonly shard: number;
  readonly store: BlockStore;
  /** What the instruments recorded. */
  readonly seen: SeenMetrics;
  /** What onCommitted got last. */
  readonly committed: () => number;
  /** One message of these payloads. @returns its sequence */
  publish(...payloads: readonly Uint8Array[]): Promise<number>;
  /** Starts a loader; blocks are cut 50 ms after their first message, or as `limits` say. */
  start(more?: Partial<ShardLoaderOptions>): ShardLoader;
  /** Loads what is in the stream, and stops. */
  load(more?: Partial<ShardLoaderOptions>): Promise<void>;
  blocks(): Promise<StoredBlock[]>;
  /** How often each event is stored, by event_id. */
  events(): Promise<Map<string, number>>;
  letters(): Promise<DeadLetter[]>;
  generation(): Promise<string>;
}

export interface Engines {
  readonly nats: TestNats;
  readonly jsm: JetStreamManager;
  readonly engine: TestClickHouse;
  readonly clickhouse: ClickHouse;
  /** A scene with a stream of its own, of so many bytes. */
  scene(maxBytes?: number): Promise<ShardScene>;
}

/** Runs `use` with a nats-server and an engine; ends loaders and servers, also after an error. */
export async function withEngines<T>(use: (engines: Engines) => Promise<T>): Promise<T> {
  return withNats((nats) =>
    withClickHouse(async (engine) => {
      const config = resolveOptions(clickhouseClientOptions, { clickhouseUrl: engine.url }, {});
      const clickhouse = createClickHouse(config, silentLogger);
      const target = eventsTable(config.clickhouseDatabase);
      const jsm = await jetstreamManager(nats.nc);
      const js = jetstream(nats.nc);
      const loaders: ShardLoader[] = [];
      await prepareTable(clickhouse, target);
      const mender = createTableMender({ prepare: () => prepareTable(clickhouse, target), logger: silentLogger });
      const store = createClickHouseBlockStore(clickhouse, target, {
        stale: createStaleStatements(clickhouse, { logger: silentLogger }),
        mender,
      });
      let shards = 0;
      const scene = async (maxBytes = 64 * MiB): Promise<ShardScene> => {
        const shard = shards++;
        const stream = shardStream(shard);
        await jsm.streams.add({ name: stream, subjects: [shardSubjects(shard)], discard: 'new', max_bytes: maxBytes });
        const { seen, metrics } = seeingMetrics();
        let committed = 0;
        const start = (more: Partial<ShardLoaderOptions> = {}): ShardLoader => {
          const loader = startShardLoader({
            nc: nats.nc,
            jsm,
            shard,
            store,
            limits: { rows: 200_000, bytes: 64 * MiB, delayMs: 50 },
            budget: createByteBudget(64 * MiB),
            buffers: createBufferPool(64 * MiB),
            deadLetters: createDeadLetters({ nc: nats.nc, maxBytes: 16 * MiB }),
            replayMs: hourMs,
            metrics,
            logger: silentLogger,
            accepted: async () => false,
            onCommitted: (_shard, _generation, hi) => {
              committed = hi;
            },
            roundMs: 100,
            stoppedMs: 100,
            ...more,
          });
          loaders.push(loader);
          return loader;
        };
        return {
          shard,
          store,
          seen,
          committed: () => committed,
          publish: async (...payloads) => (await js.publish(`ev.${shard}.acme`, Buffer.concat(payloads))).seq,
          start,
          async load(more) {
            const { last_seq: last } = (await jsm.streams.info(stream)).state;
            committed = 0;
            const loader = start(more);
            await until(`committed up to ${last}`, () => committed >= last);
            await loader.stop(10_000);
          },
          async blocks() {
            const rows = await clickhouse.rows<Record<keyof StoredBlock, string>>(
              'SELECT toString(_block) AS block, toString(any(_lo)) AS lo, toString(any(_hi)) AS hi, ' +
                'toString(any(_accepted)) AS accepted, toString(any(_duplicate)) AS duplicate, toString(any(_dead)) AS dead, ' +
                "toString(countIf(tenant != '')) AS rows FROM sluice.events WHERE _shard = {shard:UInt32} GROUP BY _block ORDER BY _block",
              { shard },
            );
            return rows.map(
              (row) =>
                Object.fromEntries(
                  Object.entries(row).map(([name, value]) => [name, Number(value)]),
                ) as unknown as StoredBlock,
            );
          },
          async events() {
            const rows = await clickhouse.rows<{ id: string; n: string }>(
              "SELECT event_id AS id, toString(count()) AS n FROM sluice.events WHERE _shard = {shard:UInt32} AND tenant != '' GROUP BY id",
              { shard },
            );
            return new Map(rows.map(({ id, n }) => [id, Number(n)]));
          },
          async letters() {
            const found: DeadLetter[] = [];
            const state = await jsm.streams.info(deadStream).then(
              (info) => info.state,
              () => undefined,
            );
            for (let seq = state?.first_seq ?? 1; seq <= (state?.last_seq ?? 0); seq++) {
              const message = await jsm.streams.getMessage(deadStream, { seq });
              const letter =
                message === null ? undefined : deadLetterOf({ headers: message.header, data: message.data });
              if (letter !== undefined && letter.shard === shard) found.push(letter);
            }
            return found;
          },
          generation: async () => generationOf(await jsm.streams.info(stream)),
        };
      };
      try {
        return await use({ nats, jsm, engine, clickhouse, scene });
      } finally {
        await Promise.all(loaders.map((loader) => loader.stop(0)));
        await clickhouse.close();
      }
    }),
  );
}

/** Engines for all tests of a file, since starting them takes longer than most tests: started by the first, ended by `end`. */
export const createSharedEngines = (): Shared<Engines> => createShared(withEngines);

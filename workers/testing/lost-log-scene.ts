import { type JetStreamManager, jetstream, jetstreamManager } from '@nats-io/jetstream';
import * as assert from 'uvu/assert';
import { clickhouseClientOptions, resolveOptions } from '../../lib/config/index.js';
import { ensureLog } from '../../lib/log-streams.js';
import { silentLogger } from '../../lib/logger.js';
import { readShardSetting } from '../../lib/shard-number.js';
import type { ShardSetting } from '../../lib/shard-setting.js';
import { batchSubject, shardStream } from '../../lib/subjects.js';
import { createRandom } from '../../lib/testing/batches.js';
import { type TestClickHouse, withClickHouse } from '../../lib/testing/clickhouse.js';
import { type TestNats, withNats } from '../../lib/testing/nats.js';
import { createShared } from '../../lib/testing/shared.js';
import { until } from '../../lib/testing/until.js';
import { createClickHouse } from '../clickhouse/client.js';
import { eventsTable } from '../clickhouse/connect.js';
import { audit } from '../ledger/audit.js';
import { createLedgerStore } from '../ledger/ledger-store.js';
import { mendShard } from '../ledger/shard-mend.js';
import { acceptShard, bucketIfThere, keptText, type LogLook, lookAtLog, shardStatus } from '../ledger/shard-states.js';
import { where } from '../ledger/where.js';
import { createClickHouseBlockStore } from '../loader/block-store.js';
import { readDeadLedger } from '../loader/dead-scan.js';
import { storedPayload } from './payloads.js';
import { type CommandEnd, runCommand } from './run-command.js';
import { startWorkerProcess } from './worker-process.js';

export const log = { shards: 1, replicas: 1, maxBytes: 64 * 1024 ** 2 };
export const eventsOfBatch = 10;
export const stream = shardStream(0);

export interface Scene {
  readonly nats: TestNats;
  readonly jsm: JetStreamManager;
  /** Publishes so many batches, `<name>-0` and on, as attempt 1. */
  publish(name: string, batches: number, shard?: number): Promise<void>;
  /** Rows, and event ids among them. */
  stored(): Promise<[number, number]>;
  /** Waits for so many rows. */
  loaded(events: number): Promise<unknown>;
  /** The faults of `sluice audit`, and its difference. */
  audit(): Promise<{ faults: string; difference: number }>;
  /** What `sluice shards` says is wrong: with each shard, and with a mend that was interrupted. */
  shards(): Promise<string>;
  /** State of the only copy of a batch in the log, and why its shard is not loaded. */
  where(id: string): Promise<{ state: string | undefined; stopped: string | undefined }>;
  mend(shard: number): Promise<number>;
  accept(shard: number): Promise<unknown>;
  /** A command as its own process. */
  run(main: 'audit' | 'shards' | 'where', ...args: string[]): Promise<CommandEnd>;
}

/** One engine for all scenes of a file; each scene has another database. */
const shared = createShared<TestClickHouse>(withClickHouse);

/** At the end of a file's tests. */
export const endSharedClickHouse = shared.end;

let scenes = 0;

/** A log of one shard with a worker that loads it, in a database of its own. */
export async function withScene(use: (scene: Scene) => Promise<void>): Promise<void> {
  const engine = await shared.use();
  await withNats(async (nats) => {
    const database = `lost_${++scenes}`;
    const addresses = { clickhouseUrl: engine.url, clickhouseDatabase: database };
    const clickhouse = createClickHouse(resolveOptions(clickhouseClientOptions, addresses, {}), silentLogger);
    await ensureLog(nats.nc, log);
    const jsm = await jetstreamManager(nats.nc);
    const js = jetstream(nats.nc);
    const random = createRandom(31);
    const target = eventsTable(database);
    const store = createClickHouseBlockStore(clickhouse, target);
    const ledger = createLedgerStore(clickhouse, target);
    const ofLog = { nc: nats.nc, jsm, store: ledger, progress: () => undefined, logger: silentLogger };
    const inLog = async () => (await lookAtLog(nats.nc, jsm, store)) as LogLook;
    const look = async () => ({ jsm, store, settings: await bucketIfThere(nats.nc) });
    const worker = await startWorkerProcess({ natsUrl: nats.url, ...addresses, blockDelay: '50ms' });
    const stored = async (): Promise<[number, number]> => {
      const [row] = await clickhouse.rows<{ n: string; ids: string }>(
        `SELECT toString(count()) AS n, toString(uniqExact(event_id)) AS ids FROM ${database}.events WHERE tenant != ''`,
      );
      return [Number(row?.n), Number(row?.ids)];
    };
    try {
      await use({
        nats,
        jsm,
        async publish(name, batches, shard = 0) {
          // The server may have been started again. (A flush that begins meanwhile may never end.)
          await until('the log answers', () => isThere(jsm, stream));
          for (let i = 0; i < batches; i++) {
            const payload = storedPayload(random, { tenant: 'acme', batchId: `${name}-${i}`, events: eventsOfBatch });
            await js.publish(batchSubject(shard, 'acme'), payload, { timeout: 10_000 });
          }
        },
        stored,
        async audit() {
          const found = await audit({
            ...ofLog,
            ...(await inLog()),
            dead: await readDeadLedger(ofLog),
            retention: false,
          });
          const faults = found.faults.map(
            ({ shard, lo, hi, difference, message }) => `${shard} ${lo}-${hi} [${difference ?? ''}] ${message}`,
          );
          return { faults: faults.join('\n'), difference: found.difference };
        },
        async shards() {
          const lines: string[] = await keptText(jsm);
          const number = await readShardSetting(nats.nc);
          for (const shard of (await inLog()).shards) {
            const { stopped, closed } = await shardStatus(await look(), shard, number);
            for (const why of [stopped, closed]) if (why !== undefined) lines.push(`${shard}: ${why}`);
          }
          return lines.join('\n');
        },
        async where(id) {
          const found = await where({ ...ofLog, ...(await inLog()), tenants: ['acme'], oneTenant: true }, id);
          assert.is(found.copies.length, 1);
          const [copy] = found.copies;
          return { state: copy?.state, stopped: copy?.stopped };
        },
        async mend(shard) {
          const number = (await readShardSetting(nats.nc)) as ShardSetting;
          const options = { ...ofLog, look: await look(), ledger, number, say: () => undefined };
          return (await mendShard(options, shard)).messages;
        },
        accept: async (shard) => acceptShard(await look(), shard),
        loaded: (events) => until(`${events} rows`, async () => (await stored())[0] >= events),
        run: (main, ...args) =>
          runCommand(`ledger/${main}-main.ts`, { natsUrl: nats.url, clickhouseUrl: engine.url, database }, args),
      });
    } finally {
      worker.child.kill('SIGKILL');
      await worker.exited;
      await clickhouse.close();
    }
  });
}

/** Whether the stream is there. */
export const isThere = (jsm: JetStreamManager, name: string): Promise<boolean> =>
  jsm.streams.info(name).then(
    () => true,
    () => false,
  );

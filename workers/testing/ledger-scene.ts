/**
 * A log, an engine and the commands that look into both (audit, where), for tests of the ledger. The engine is shared by the tests of a
 * file; each has a database of its own.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { type JetStreamManager, jetstreamManager } from '@nats-io/jetstream';
import { clickhouseClientOptions, resolveOptions, testEnvironment } from '../../lib/config/index.js';
import { ensureShards } from '../../lib/log-streams.js';
import { silentLogger } from '../../lib/logger.js';
import { type TestClickHouse, withClickHouse } from '../../lib/testing/clickhouse.js';
import { type TestNats, withNats } from '../../lib/testing/nats.js';
import { programFlags, programPath } from '../../lib/testing/program.js';
import { MiB } from '../../lib/units.js';
import { type ClickHouse, createClickHouse } from '../clickhouse/client.js';
import { eventsTable } from '../clickhouse/connect.js';
import { prepareTable } from '../clickhouse/prepare-table.js';
import type { TableTarget } from '../clickhouse/schema/index.js';
import { type Audit, audit } from '../ledger/audit.js';
import type { AuditOptions } from '../ledger/audit-options.js';
import { auditTenant, type TenantAudit } from '../ledger/audit-tenant.js';
import { createLedgerStore } from '../ledger/ledger-store.js';
import { type LogLook, lookAtLog } from '../ledger/shard-states.js';
import { type Whereabouts, where } from '../ledger/where.js';
import { createClickHouseBlockStore } from '../loader/block-store.js';
import { readDeadLedger } from '../loader/dead-scan.js';
import { startWorkerProcess, type WorkerProcess } from './worker-process.js';

export interface LedgerScene {
  readonly nats: TestNats;
  readonly engine: TestClickHouse;
  readonly clickhouse: ClickHouse;
  readonly jsm: JetStreamManager;
  readonly target: TableTarget;
  /** Its name. */
  readonly table: string;
  readonly audit: () => Promise<Audit>;
  readonly auditTenant: (tenant: string) => Promise<TenantAudit>;
  /** A statement of somebody who should not. */
  readonly tamper: (statement: string) => Promise<void>;
  readonly where: (id: string) => Promise<Whereabouts>;
  worker(): Promise<WorkerProcess>;
  /** A command, by its file from workers/, as ledger/audit-main.ts. */
  run(main: string, args: readonly string[]): Promise<{ code: number; out: string; err: string }>;
}

/** One engine for all of them; each test has a database of its own. */
let endEngine = (): void => {};
let engineEnded: Promise<void> = Promise.resolve();
let engine: Promise<TestClickHouse> | undefined;

function sharedClickHouse(): Promise<TestClickHouse> {
  engine ??= new Promise((resolve, reject) => {
    engineEnded = withClickHouse(async (engine) => {
      resolve(engine);
      await new Promise<void>((end) => {
        endEngine = end;
      });
    });
    engineEnded.catch(reject);
  });
  return engine;
}

/** At the end of a file's tests. */
export async function endScenes(): Promise<void> {
  endEngine();
  await engineEnded;
}

let scenes = 0;

export async function withScene(shards: number, use: (scene: LedgerScene) => Promise<void>): Promise<void> {
  const engine = await sharedClickHouse();
  await withNats(async (nats) => {
    const database = `ledger_${++scenes}`;
    const target = eventsTable(database);
    const clickhouse = createClickHouse(
      resolveOptions(clickhouseClientOptions, { clickhouseUrl: engine.url }, {}),
      silentLogger,
    );
    try {
      await prepareTable(clickhouse, target);
      await ensureShards(nats.nc, { shards, replicas: 1, maxBytes: 64 * MiB });
      const jsm = await jetstreamManager(nats.nc);
      const store = createLedgerStore(clickhouse, target);
      const options = async (tenant?: string): Promise<AuditOptions> => ({
        nc: nats.nc,
        jsm,
        store,
        ...((await lookAtLog(nats.nc, jsm, createClickHouseBlockStore(clickhouse, target))) as LogLook),
        dead: await readDeadLedger({ nc: nats.nc, jsm, tenant }),
        retention: false,
        progress: () => undefined,
        logger: silentLogger,
      });
      await use({
        nats,
        engine,
        clickhouse,
        jsm,
        target,
        table: `${database}.events`,
        audit: async () => audit(await options()),
        auditTenant: async (tenant) => auditTenant(await options(tenant), tenant),
        where: async (id) => where({ ...(await options()), tenants: ['acme'], oneTenant: true }, id),
        tamper: (statement) => clickhouse.command(statement, { settings: { mutations_sync: 2 } }),
        worker: () =>
          startWorkerProcess({
            natsUrl: nats.url,
            clickhouseUrl: engine.url,
            clickhouseDatabase: database,
            blockDelay: '50ms',
          }),
        async run(main, args) {
          const file = programPath(`workers/${main}`);
          const addresses = ['--nats-url', nats.url, '--clickhouse-url', engine.url];
          const child = spawn(
            process.execPath,
            [...programFlags, file, ...addresses, '--clickhouse-database', database, ...args],
            { stdio: ['ignore', 'pipe', 'pipe'], env: testEnvironment() },
          );
          let [out, err] = ['', ''];
          child.stdout.on('data', (chunk) => {
            out += String(chunk);
          });
          child.stderr.on('data', (chunk) => {
            err += String(chunk);
          });
          const [code] = await once(child, 'close');
          return { code: code as number, out, err };
        },
      });
    } finally {
      await clickhouse.close();
    }
  });
}

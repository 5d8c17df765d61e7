import { type JetStreamManager, jetstreamManager } from '@nats-io/jetstream';
import { clickhouseClientOptions, resolveOptions } from '../../lib/config/index.js';
import { ensureShards } from '../../lib/log-streams.js';
import { silentLogger } from '../../lib/logger.js';
import { type TestClickHouse, withClickHouse } from '../../lib/testing/clickhouse.js';
import { type TestNats, withNats } from '../../lib/testing/nats.js';
import { createShared } from '../../lib/testing/shared.js';
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
import { type CommandEnd, runCommand } from './run-command.js';
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
  run(main: string, args: readonly string[]): Promise<CommandEnd>;
}

/** One engine for all scenes of a file; each scene has another database. */
const shared = createShared<TestClickHouse>(withClickHouse);

/** At the end of a file's tests. */
export const endScenes = shared.end;

let scenes = 0;

export async function withScene(shards: number, use: (scene: LedgerScene) => Promise<void>): Promise<void> {
  const engine = await shared.use();
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
        run: (main, args) => runCommand(main, { natsUrl: nats.url, clickhouseUrl: engine.url, database }, args),
      });
    } finally {
      await clickhouse.close();
    }
  });
}

/**
 * The processes of a run: nats-server (or three: nats-nodes.ts), ClickHouse, gateways, workers, clients, with a proxy on each way between them.
 *
 *   clients ─▶ front proxy ─▶ gateways ─▶ proxy ─▶ nats-server ◀─ proxy ◀─ workers ─▶ proxy ─▶ ClickHouse
 *
 * Everything is on 127.0.0.1, on free ports, with its data in one temporary folder.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { type ClickHouseClient, ClickHouseLogLevel, createClient } from '@clickhouse/client';
import type { NatsConnection } from '@nats-io/transport-node';
import { nodeFlags, testEnvironment } from '../lib/config/index.js';
import { silentLogger } from '../lib/logger.js';
import { connectNats } from '../lib/nats.js';
import { addTenant } from '../lib/tenants.js';
import { freePort } from '../lib/testing/nats.js';
import { type Disk, mountDisk } from './disk.js';
import { type ClusterOptions, natsNodes, proxyEach } from './nats-nodes.js';
import { type ChaosProxy, startProxy } from './proxy.js';
import { type Death, type Role, type Slot, startSlot } from './slot.js';

export interface StackOptions {
  /** Data, logs. */
  readonly folder: string;
  /** The compiled project. */
  readonly build: string;
  readonly gateways: number;
  readonly workers: number;
  readonly shards: number;
  /** Three nats-servers with replicated streams; undefined: one, without. */
  readonly cluster: ClusterOptions | undefined;
  readonly onDeath: (death: Death) => void;
  readonly say: (line: string) => void;
  /** Their data are on disks that can be full. */
  readonly disks: readonly DiskName[];
  /** Arguments to node for gateways and workers. */
  readonly nodeArguments: readonly string[];
  /** Asked at each start of a gateway or worker: the failpoint to arm. */
  readonly arm: (role: Role) => string | undefined;
}

export interface Stack {
  readonly tenant: string;
  readonly shards: number;
  readonly key: string;
  /** Without a proxy, for the harness itself. */
  readonly nc: NatsConnection;
  readonly clickhouse: ClickHouseClient;
  readonly slots: readonly Slot[];
  slotsOf(role: Role): readonly Slot[];
  readonly proxies: Readonly<Record<LinkName, ChaosProxy>>;
  readonly disks: ReadonlyMap<DiskName, Disk>;
  /** What clients connect to. */
  readonly front: string;
  readonly folder: string;
  readonly build: string;
  readonly env: Readonly<Record<string, string>>;
  /** The log is a cluster. */
  readonly replicated: boolean;
  add(slot: Slot): void;
  /** Resolves when every nats-server is there again, with all of the log; also when the signal says stop. */
  logHealthy(stop: AbortSignal): Promise<void>;
  /** Ends every process. Disks stay when the data are to be looked at. */
  close(keepDisks: boolean): Promise<void>;
}

/** The ways between processes, by who connects to whom. */
export const links = ['client-gateway', 'gateway-nats', 'worker-nats', 'worker-clickhouse'] as const;
export type LinkName = (typeof links)[number];

/** Who has data. */
export type DiskName = 'nats' | 'clickhouse';

const tenant = 'chaos';
const shardMaxBytes = '64MiB';
/** Workers wait for a ClickHouse that is down, gateways for a NATS. */
const readyWithinMs = 60_000;

export async function startStack(options: StackOptions): Promise<Stack> {
  const { folder, build, shards, onDeath } = options;
  const env = testEnvironment();
  const slots: Slot[] = [];
  const proxies: Partial<Record<LinkName, ChaosProxy>> = {};
  const disks = new Map<DiskName, Disk>();
  let nc: NatsConnection | undefined;
  let clickhouse: ClickHouseClient | undefined;
  const close = async (keepDisks: boolean): Promise<void> => {
    await nc?.close();
    await clickhouse?.close();
    await Promise.all(slots.map((slot) => slot.close(slot.role === 'nats' ? 1_000 : 0)));
    await Promise.all(Object.values(proxies).map((proxy) => proxy.close()));
    if (!keepDisks) for (const disk of disks.values()) disk.close();
  };
  try {
    for (const name of ['logs', 'nats', 'clickhouse']) mkdirSync(join(folder, name), { recursive: true });
    for (const name of options.disks) {
      const disk = mountDisk(join(folder, name));
      if (typeof disk === 'string') options.say(`disk-full:${name} is left out: ${disk}`);
      else disks.set(name, disk);
    }
    const add = (name: string, role: Role, more: Pick<Parameters<typeof startSlot>[0], 'launch' | 'probe'>): Slot => {
      const slot = startSlot({
        name,
        role,
        cwd: build,
        env,
        logFile: join(folder, 'logs', `${name}.log`),
        readyWithinMs,
        onDeath,
        ...more,
      });
      slots.push(slot);
      return slot;
    };
    const common = ['--host', '127.0.0.1', '--metrics-port', '0', '--log-level', 'info'];

    const log = await natsNodes(join(folder, 'nats'), options.cluster);
    const nats = log.nodes.map(({ name, ...more }) => add(name, 'nats', more));
    const clickhousePort = await freePort();
    const warehouse = add('clickhouse', 'clickhouse', {
      launch: () => ({
        args: [
          'workers/embedded/main.js',
          ...['--clickhouse-port', String(clickhousePort), '--clickhouse-metrics-port', '0', '--log-level', 'warn'],
          ...['--clickhouse-data', join(folder, 'clickhouse')],
        ],
      }),
    });
    const gatewayNats = await proxyEach(log.ports);
    proxies['gateway-nats'] = gatewayNats;
    const workerNats = await proxyEach(log.ports);
    proxies['worker-nats'] = workerNats;
    proxies['worker-clickhouse'] = await startProxy(() => [clickhousePort]);
    await Promise.all([...nats, warehouse].map((slot) => slot.whenReady()));
    if (options.cluster !== undefined) await log.healthy(AbortSignal.timeout(readyWithinMs));
    const servers = log.ports.map((port) => `127.0.0.1:${port}`).join(',');
    nc = await connectNats({ servers, name: 'chaos', logger: silentLogger, timeoutMs: 10_000 });
    const { key } = await addTenant(nc, { tenant, note: 'made by npm run chaos' });
    clickhouse = createClient({
      url: `http://127.0.0.1:${clickhousePort}`,
      request_timeout: 120_000,
      log: { level: ClickHouseLogLevel.OFF },
    });

    const armed = (role: Role): { failpoint: string | undefined; flags: string[] } => {
      const failpoint = options.arm(role);
      return { failpoint, flags: failpoint === undefined ? [] : ['--failpoint', failpoint] };
    };
    const ports: number[] = [];
    for (let i = 0; i < options.gateways; i++) ports.push(await freePort());
    // The first alone: it makes streams and buckets (nats-server 2.9.10 was seen to crash when a bucket was read meanwhile).
    for (const [i, port] of ports.entries()) {
      const gateway = add(`gateway-${i + 1}`, 'gateway', {
        launch: () => {
          const { failpoint, flags } = armed('gateway');
          const own = [
            '--port',
            String(port),
            '--shards',
            String(shards),
            '--shard-max-bytes',
            shardMaxBytes,
            '--drain-grace',
            '3s',
            // The prober waits until the warehouse has its event.
            '--log-positions',
          ];
          const nats = ['--nats-url', gatewayNats.addresses, '--replicas', String(log.replicas)];
          return {
            failpoint,
            args: [
              ...nodeFlags.gateway,
              ...options.nodeArguments,
              'gateway/main.js',
              ...common,
              ...nats,
              ...own,
              ...flags,
            ],
          };
        },
      });
      await gateway.whenReady();
    }
    // Connections go to the gateways in turn, and to another one when the one whose turn it is cannot be reached.
    let turn = 0;
    proxies['client-gateway'] = await startProxy(() => {
      turn++;
      return ports.map((_, i) => ports[(i + turn) % ports.length] as number);
    });
    const workers = Array.from({ length: options.workers }, (_, i) =>
      add(`worker-${i + 1}`, 'worker', {
        launch: () => {
          const { failpoint, flags } = armed('worker');
          const ways = ['--nats-url', workerNats.addresses];
          const own = ['--clickhouse-url', `http://127.0.0.1:${proxies['worker-clickhouse']?.port}`];
          // Small blocks, and a log that is trimmed all the time: more happens in the time that there is.
          const small = ['--block-delay', '200ms', '--replay-window', '3s', '--clickhouse-timeout', '10s'];
          return {
            failpoint,
            args: [
              ...nodeFlags.worker,
              ...options.nodeArguments,
              'workers/main.js',
              ...common,
              ...ways,
              ...own,
              ...small,
              ...flags,
            ],
          };
        },
      }),
    );
    await Promise.all(workers.map((worker) => worker.whenReady()));
    return {
      tenant,
      shards,
      key,
      nc,
      clickhouse,
      slots,
      slotsOf: (role) => slots.filter((slot) => slot.role === role),
      disks,
      proxies: proxies as Record<LinkName, ChaosProxy>,
      front: `http://127.0.0.1:${proxies['client-gateway'].port}`,
      folder,
      build,
      env,
      add: (slot) => slots.push(slot),
      replicated: options.cluster !== undefined,
      logHealthy: log.healthy,
      close,
    };
  } catch (error) {
    await close(false);
    throw error;
  }
}

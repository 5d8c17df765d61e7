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
import { type ClusterOptions, type NatsNodes, natsNodes, proxyEach } from './nats-nodes.js';
import { type ChaosProxy, startProxy } from './proxy.js';
import { type Death, type Launch, type ProcessSlot, type Role, type SlotOptions, startSlot } from './slot.js';

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
  readonly slots: readonly ProcessSlot[];
  slotsOf(role: Role): readonly ProcessSlot[];
  readonly proxies: Readonly<Record<LinkName, ChaosProxy>>;
  readonly disks: ReadonlyMap<DiskName, Disk>;
  /** What clients connect to. */
  readonly front: string;
  readonly folder: string;
  readonly build: string;
  readonly env: Readonly<Record<string, string>>;
  /** The log is a cluster. */
  readonly replicated: boolean;
  add(slot: ProcessSlot): void;
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
  const parts = createParts(options);
  const { slots, proxies, disks } = parts;
  const { folder, build, shards } = options;
  try {
    for (const name of ['logs', 'nats', 'clickhouse']) mkdirSync(join(folder, name), { recursive: true });
    for (const name of options.disks) {
      const disk = mountDisk(join(folder, name));
      if (typeof disk === 'string') options.say(`disk-full:${name} is left out: ${disk}`);
      else disks.set(name, disk);
    }
    const stores = await startStores(options, parts);
    const ports = await startGateways(options, parts, stores);
    proxies['client-gateway'] = await frontProxy(ports);
    await startWorkers(options, parts, stores);
    const { nc, clickhouse, key, log } = stores;
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
      env: parts.env,
      add: (slot) => slots.push(slot),
      replicated: options.cluster !== undefined,
      logHealthy: log.healthy,
      close: parts.close,
    };
  } catch (error) {
    await parts.close(false);
    throw error;
  }
}

/** What has been started so far. */
interface Parts {
  readonly env: Readonly<Record<string, string>>;
  readonly slots: ProcessSlot[];
  readonly proxies: Partial<Record<LinkName, ChaosProxy>>;
  readonly disks: Map<DiskName, Disk>;
  /** Connections of the harness itself. */
  readonly connections: { close(): Promise<void> }[];
  add(name: string, role: Role, more: Pick<SlotOptions, 'launch' | 'probe'>): ProcessSlot;
  /** Ends all of it. */
  close(keepDisks: boolean): Promise<void>;
}

function createParts({ folder, build, onDeath }: StackOptions): Parts {
  const env = testEnvironment();
  const slots: ProcessSlot[] = [];
  const proxies: Partial<Record<LinkName, ChaosProxy>> = {};
  const disks = new Map<DiskName, Disk>();
  const connections: { close(): Promise<void> }[] = [];
  return {
    env,
    slots,
    proxies,
    disks,
    connections,
    add(name, role, more) {
      const logFile = join(folder, 'logs', `${name}.log`);
      const slot = startSlot({ name, role, cwd: build, env, logFile, readyWithinMs, onDeath, ...more });
      slots.push(slot);
      return slot;
    },
    async close(keepDisks) {
      for (const connection of connections) await connection.close();
      await Promise.all(slots.map((slot) => slot.close(slot.role === 'nats' ? 1_000 : 0)));
      await Promise.all(Object.values(proxies).map((proxy) => proxy.close()));
      if (!keepDisks) for (const disk of disks.values()) disk.close();
    },
  };
}

/** The log and ClickHouse, and the ways to them. */
interface Stores {
  readonly log: NatsNodes;
  readonly nc: NatsConnection;
  readonly clickhouse: ClickHouseClient;
  readonly key: string;
  /** Addresses of the proxies before the log's servers. */
  readonly gatewayNats: string;
  readonly workerNats: string;
  /** Of the proxy before ClickHouse. */
  readonly clickhousePort: number;
}

async function startStores(options: StackOptions, { add, proxies, connections }: Parts): Promise<Stores> {
  const { folder } = options;
  const log = await natsNodes(join(folder, 'nats'), options.cluster);
  const nats = log.nodes.map(({ name, ...more }) => add(name, 'nats', more));
  const port = await freePort();
  const server = add('clickhouse', 'clickhouse', {
    launch: () => ({
      args: [
        'workers/embedded/main.js',
        ...['--clickhouse-port', String(port), '--clickhouse-metrics-port', '0', '--log-level', 'warn'],
        ...['--clickhouse-data', join(folder, 'clickhouse')],
      ],
    }),
  });
  const gatewayNats = await proxyEach(log.ports);
  proxies['gateway-nats'] = gatewayNats;
  const workerNats = await proxyEach(log.ports);
  proxies['worker-nats'] = workerNats;
  const clickhouseProxy = await startProxy(() => [port]);
  proxies['worker-clickhouse'] = clickhouseProxy;
  await Promise.all([...nats, server].map((slot) => slot.whenReady()));
  if (options.cluster !== undefined) await log.healthy(AbortSignal.timeout(readyWithinMs));
  const servers = log.ports.map((port) => `127.0.0.1:${port}`).join(',');
  const nc = await connectNats({ servers, name: 'chaos', logger: silentLogger, timeoutMs: 10_000 });
  connections.push(nc);
  const { key } = await addTenant(nc, { tenant, note: 'made by npm run chaos' });
  const clickhouse = createClient({
    url: `http://127.0.0.1:${port}`,
    request_timeout: 120_000,
    log: { level: ClickHouseLogLevel.OFF },
  });
  connections.push(clickhouse);
  return {
    log,
    nc,
    clickhouse,
    key,
    gatewayNats: gatewayNats.addresses,
    workerNats: workerNats.addresses,
    clickhousePort: clickhouseProxy.port,
  };
}

/** How a gateway or a worker is started, each time with the failpoint that is due. */
function launchRole(options: StackOptions, role: 'gateway' | 'worker', flags: readonly string[]): Launch {
  const failpoint = options.arm(role);
  const common = ['--host', '127.0.0.1', '--metrics-port', '0', '--log-level', 'info'];
  const armed = failpoint === undefined ? [] : ['--failpoint', failpoint];
  const main = `${role === 'gateway' ? 'gateway' : 'workers'}/main.js`;
  return { failpoint, args: [...nodeFlags[role], ...options.nodeArguments, main, ...common, ...flags, ...armed] };
}

/** @returns the port of each */
async function startGateways(
  options: StackOptions,
  { add }: Parts,
  { log, gatewayNats }: Stores,
): Promise<readonly number[]> {
  const ports: number[] = [];
  for (let i = 0; i < options.gateways; i++) ports.push(await freePort());
  // The first alone: it makes streams and buckets (nats-server 2.9.10 was seen to crash when a bucket was read meanwhile).
  for (const [i, port] of ports.entries()) {
    const flags = [
      ...['--nats-url', gatewayNats, '--replicas', String(log.replicas)],
      ...['--port', String(port), '--shards', String(options.shards), '--shard-max-bytes', shardMaxBytes],
      ...['--drain-grace', '3s'],
      // The prober waits until ClickHouse has its event.
      '--log-positions',
    ];
    const gateway = add(`gateway-${i + 1}`, 'gateway', { launch: () => launchRole(options, 'gateway', flags) });
    await gateway.whenReady();
  }
  return ports;
}

/** Connections go to the gateways in turn, and to another one when the one whose turn it is cannot be reached. */
function frontProxy(ports: readonly number[]): Promise<ChaosProxy> {
  let turn = 0;
  return startProxy(() => {
    turn++;
    return ports.map((_, i) => ports[(i + turn) % ports.length] as number);
  });
}

async function startWorkers(options: StackOptions, { add }: Parts, stores: Stores): Promise<void> {
  const flags = [
    ...['--nats-url', stores.workerNats, '--clickhouse-url', `http://127.0.0.1:${stores.clickhousePort}`],
    // Small blocks, and a log that is trimmed all the time: more happens in the time that there is.
    ...['--block-delay', '200ms', '--replay-window', '3s', '--clickhouse-timeout', '10s'],
  ];
  const workers = Array.from({ length: options.workers }, (_, i) =>
    add(`worker-${i + 1}`, 'worker', { launch: () => launchRole(options, 'worker', flags) }),
  );
  await Promise.all(workers.map((worker) => worker.whenReady()));
}

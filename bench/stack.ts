/**
 * The servers that a case measures, each its own process, in a temporary folder, on free ports; gone at the end.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ClickHouseLogLevel, createClient } from '@clickhouse/client';
import { jetstreamManager } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/transport-node';
import { addTenant } from '../lib/tenants.js';
import { withNats } from '../lib/testing/nats.js';
import type { Pids } from '../lib/testing/process-use.js';
import { type Role, type RoleName, startRole } from '../lib/testing/role-process.js';
import { MiB } from '../lib/units.js';
import { untrimmedShardBytes } from './ceiling-streams.js';

export interface StackOptions {
  /** How many of each role; nats-server always runs. */
  readonly gateways: number;
  /** With workers there is an embedded ClickHouse too. */
  readonly workers: number;
  /** The workers wait for `startWorkers`. */
  readonly workersLater?: boolean;
  readonly shards: number;
  /** Size limit of a shard, e.g. `2GiB`. @default more than any run without a worker fills */
  readonly shardMaxBytes?: string;
  /** Extra flags by role, e.g. `--publish-window 64`. */
  readonly flags: Readonly<Partial<Record<RoleName, readonly string[]>>>;
  readonly telemetry: boolean;
  readonly profile: string | undefined;
}

/** What ClickHouse says of the events table. */
export interface Look {
  readonly events: number;
  /** Active parts. */
  readonly parts: number;
  /** Of active parts, on disk. */
  readonly bytes: number;
}

export interface BenchClickHouse {
  readonly url: string;
  count(): Promise<number>;
  look(): Promise<Look>;
  /** Rows of a query's answer; numbers may be text. */
  ask(query: string): Promise<Record<string, string>[]>;
}

export interface Stack {
  readonly natsUrl: string;
  /** A connection of the benchmark's own. */
  readonly nc: NatsConnection;
  /** `http://…` of the first gateway; '' without gateways. */
  readonly gatewayUrl: string;
  readonly tenant: string;
  readonly key: string;
  readonly pids: Pids;
  /** Undefined without workers. */
  readonly clickhouse: BenchClickHouse | undefined;
  /** Size of all shards in JetStream; undefined when there are none yet. */
  logMib(): Promise<number | undefined>;
  /** With `workersLater`: starts them. Their pids are in `pids` from then on. */
  startWorkers(): Promise<void>;
  /** Drains and ends them: nothing is stored any more. */
  stopWorkers(): Promise<void>;
  /** Rejects when a server ends on its own, or on SIGINT or SIGTERM; never resolves. */
  readonly failure: Promise<never>;
}

const tenant = 'bench';
/** The workers' database and table. */
export const eventsTable = 'sluice.events';

export async function withStack<T>(options: StackOptions, use: (stack: Stack) => Promise<T>): Promise<T> {
  return withNats(async (nats) => {
    const folder = await mkdtemp(join(tmpdir(), 'sluice-bench-'));
    const roles = startedRoles(folder, options);
    const common = ['--nats-url', nats.url, '--metrics-port', '0', '--log-level', 'warn'];
    const pids: Record<string, number[]> = { nats: [nats.process().pid ?? 0] };
    const start = async (role: RoleName, count: number, flags: readonly string[]): Promise<Role | undefined> => {
      const started: Role[] = [];
      for (let i = 0; i < count; i++) started.push(await roles.start(role, i, flags));
      if (count > 0) pids[role] = started.map(({ pid }) => pid);
      return started[0];
    };
    let clickhouse: OpenClickHouse | undefined;
    try {
      const key = options.gateways > 0 ? (await addTenant(nats.nc, { tenant })).key : '';
      const gateway = await start('gateway', options.gateways, [...common, ...gatewayFlags(options)]);
      if (options.workers > 0) clickhouse = openClickHouse(await start('clickhouse', 1, clickhouseFlags(folder)));
      const startWorkers = async (): Promise<void> => {
        if (clickhouse !== undefined)
          await start('worker', options.workers, [...common, '--clickhouse-url', clickhouse.url]);
      };
      if (options.workersLater !== true) await startWorkers();
      return await use({
        natsUrl: nats.url,
        nc: nats.nc,
        gatewayUrl: gateway === undefined ? '' : `http://127.0.0.1:${gateway.port}`,
        tenant,
        key,
        pids,
        clickhouse,
        logMib: () => logMib(nats.nc),
        startWorkers,
        stopWorkers: () => roles.close('worker'),
        failure: roles.failure,
      });
    } finally {
      await clickhouse?.close();
      await roles.close();
      await rm(folder, { recursive: true, force: true });
    }
  });
}

const gatewayFlags = ({ shards, shardMaxBytes }: StackOptions): string[] => [
  ...['--port', '0', '--shards', String(shards)],
  // All load comes from one address.
  ...['--max-connections-per-address', '0', '--new-connections-per-address', '0'],
  ...['--shard-max-bytes', shardMaxBytes ?? `${untrimmedShardBytes(shards)}`],
];

const clickhouseFlags = (folder: string): string[] => [
  ...['--clickhouse-port', '0', '--clickhouse-data', join(folder, 'clickhouse')],
  ...['--clickhouse-metrics-port', '0', '--log-level', 'warn'],
];

/** Processes that end together, also when a signal ends the run. */
function startedRoles(folder: string, { flags, telemetry, profile }: StackOptions) {
  const roles: Role[] = [];
  let fail: (error: unknown) => void = () => undefined;
  const failure = new Promise<never>((_, reject) => {
    fail = reject;
  });
  failure.catch(() => undefined);
  // A signal ends the run like an error does, so that what was started is ended too.
  const interrupt = (signal: string) => fail(new Error(`interrupted by ${signal}`));
  process.once('SIGTERM', interrupt).once('SIGINT', interrupt);
  return {
    failure,
    async start(role: RoleName, index: number, given: readonly string[]): Promise<Role> {
      const all = [...given, ...(flags[role] ?? [])];
      const started = await startRole(role, index, { flags: all, folder, telemetry, profile });
      roles.push(started);
      started.failure.catch(fail);
      return started;
    },
    /** In the reverse order of the start: a worker drains into a ClickHouse that still lives. @default all */
    async close(name?: RoleName): Promise<void> {
      if (name === undefined) process.off('SIGTERM', interrupt).off('SIGINT', interrupt);
      for (const role of [...roles].reverse()) if (name === undefined || role.name.startsWith(name)) await role.close();
    },
  };
}

async function logMib(nc: NatsConnection): Promise<number | undefined> {
  const jsm = await jetstreamManager(nc, { checkAPI: false });
  let bytes: number | undefined;
  for await (const { state } of jsm.streams.list('ev.>')) bytes = (bytes ?? 0) + state.bytes;
  return bytes === undefined ? undefined : bytes / MiB;
}

type OpenClickHouse = BenchClickHouse & { close(): Promise<void> };

function openClickHouse(role: Role | undefined): OpenClickHouse {
  const url = `http://127.0.0.1:${role?.port}`;
  const client = createClient({ url, request_timeout: 120_000, log: { level: ClickHouseLogLevel.ERROR } });
  const ask = async (query: string): Promise<Record<string, string>[]> => {
    const answer = await client.query({ query, format: 'JSONEachRow' });
    return await answer.json<Record<string, string>>();
  };
  const [database, table] = eventsTable.split('.');
  // Asked of the parts, so that it costs the same however many rows there are, and before a worker has made the table.
  const look = async (): Promise<Look> => {
    const [row] = await ask(
      `SELECT sum(rows) AS events, count() AS parts, sum(bytes_on_disk) AS bytes FROM system.parts ` +
        `WHERE active AND database = '${database}' AND table = '${table}'`,
    );
    return { events: Number(row?.events), parts: Number(row?.parts), bytes: Number(row?.bytes) };
  };
  return {
    url,
    ask,
    look,
    count: async () => (await look()).events,
    close: () => client.close(),
  };
}

/**
 * The servers that a case measures, each its own process, in a temporary folder, on free ports; gone at the end.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createClient } from '@clickhouse/client';
import type { NatsConnection } from '@nats-io/transport-node';
import { withNats } from '../lib/testing/nats.js';
import type { Pids } from './cpu.js';
import { type Role, type RoleName, startRole } from './roles.js';

export interface StackOptions {
  /** How many of each role; nats-server always runs. */
  readonly gateways: number;
  /** With workers there is an embedded ClickHouse too. */
  readonly workers: number;
  readonly shards: number;
  /** Extra flags by role, e.g. `--publish-window 64`. */
  readonly flags: Readonly<Partial<Record<RoleName, readonly string[]>>>;
  readonly telemetry: boolean;
  readonly profile: string | undefined;
}

export interface Stored {
  readonly events: number;
  readonly distinct: number;
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
  /** `http://…` of the embedded ClickHouse; '' without workers. */
  readonly clickhouseUrl: string;
  /** Events in ClickHouse; undefined without workers. */
  readonly warehouse: { count(): Promise<number>; check(): Promise<Stored> } | undefined;
  /** Rejects when a server ends on its own, or on SIGINT or SIGTERM; never resolves. */
  readonly failure: Promise<never>;
}

const tenant = 'bench';
/** Without a worker nothing is trimmed: a shard must hold a whole run. */
const shardMaxBytes = '24GiB';

export async function withStack<T>(options: StackOptions, use: (stack: Stack) => Promise<T>): Promise<T> {
  return withNats(async (nats) => {
    const folder = await mkdtemp(join(tmpdir(), 'sluice-bench-'));
    const roles: Role[] = [];
    const start = async (role: RoleName, index: number, flags: readonly string[]): Promise<Role> => {
      const { telemetry, profile } = options;
      const all = [...flags, ...(options.flags[role] ?? [])];
      const started = await startRole(role, index, { flags: all, folder, telemetry, profile });
      roles.push(started);
      return started;
    };
    const common = ['--nats-url', nats.url, '--metrics-port', '0', '--log-level', 'warn'];
    const pidsOf = (name: RoleName) => roles.filter((role) => role.name.startsWith(name)).map((role) => role.pid);
    let close = async (): Promise<void> => undefined;
    // A signal ends the run like an error does, so that what was started is ended too.
    let interrupt: (signal: string) => void = () => undefined;
    const interrupted = new Promise<never>((_, reject) => {
      interrupt = (signal) => reject(new Error(`interrupted by ${signal}`));
    });
    interrupted.catch(() => undefined);
    process.once('SIGTERM', interrupt).once('SIGINT', interrupt);
    try {
      const key =
        options.gateways > 0 ? (await (await import('../lib/tenants.js')).addTenant(nats.nc, { tenant })).key : '';
      for (let i = 0; i < options.gateways; i++) {
        await start('gateway', i, [
          ...common,
          ...['--port', '0', '--shards', String(options.shards), '--shard-max-bytes', shardMaxBytes],
        ]);
      }
      let warehouse: Stack['warehouse'];
      let clickhouseUrl = '';
      if (options.workers > 0) {
        const data = ['--clickhouse-port', '0', '--clickhouse-data', join(folder, 'clickhouse'), '--log-level', 'warn'];
        data.push('--clickhouse-metrics-port', '0');
        const clickhouse = await start('clickhouse', 0, data);
        const url = `http://127.0.0.1:${clickhouse.port}`;
        clickhouseUrl = url;
        for (let i = 0; i < options.workers; i++) await start('worker', i, [...common, '--clickhouse-url', url]);
        const opened = openWarehouse(url);
        warehouse = opened;
        close = opened.close;
      }
      const gateway = roles.find((role) => role.name.startsWith('gateway'));
      const pids: Record<string, number[]> = { nats: [nats.process().pid ?? 0] };
      for (const name of ['gateway', 'worker', 'clickhouse'] as const) {
        if (pidsOf(name).length > 0) pids[name] = pidsOf(name);
      }
      return await use({
        natsUrl: nats.url,
        nc: nats.nc,
        gatewayUrl: gateway === undefined ? '' : `http://127.0.0.1:${gateway.port}`,
        tenant,
        key,
        pids,
        clickhouseUrl,
        warehouse,
        failure: Promise.race([interrupted, ...roles.map((role) => role.failure)]),
      });
    } finally {
      process.off('SIGTERM', interrupt).off('SIGINT', interrupt);
      await close();
      // The reverse of the start: a worker drains into a ClickHouse that still lives.
      for (const role of roles.reverse()) await role.close();
      await rm(folder, { recursive: true, force: true });
    }
  });
}

function openWarehouse(url: string): NonNullable<Stack['warehouse']> & { close(): Promise<void> } {
  const client = createClient({ url, request_timeout: 120_000 });
  const row = async (query: string): Promise<Record<string, string>> => {
    const answer = await client.query({ query, format: 'JSONEachRow' });
    return (await answer.json<Record<string, string>>())[0] ?? {};
  };
  return {
    count: async () => Number((await row('SELECT count() AS events FROM sluice.events')).events),
    check: async () => {
      const { events, ids } = await row('SELECT count() AS events, uniqExact(event_id) AS ids FROM sluice.events');
      return { events: Number(events), distinct: Number(ids) };
    },
    close: () => client.close(),
  };
}

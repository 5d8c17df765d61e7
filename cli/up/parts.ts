/** The parts of a stack: where each listens, with which secrets, and how it is started. */
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { UpConfig } from '../../lib/config/index.js';
import { UsageError } from '../../lib/errors.js';
import { reachable, urlHost } from '../../lib/host.js';
import { secretIn } from '../../lib/secret-file.js';
import { nodeArguments, nodeEnvironment } from '../roles.js';
import { clickhousePasswordOf, natsCredentialsOf, type RunningStack } from '../stack-file.js';
import type { ChildOptions, SupervisedChild } from './child.js';
import { natsGreets, writeNatsConfig } from './nats-config.js';

export const demoTenant = 'demo';
export const readyWithinMs = 60_000;
/** Of the stack's nats-server. */
const natsUser = 'sluice';

/** Where the parts of a stack are reached, and where their secrets lie. */
export interface Places {
  /** The host of all parts, as URLs have it. */
  readonly host: string;
  /** The data folder. */
  readonly data: string;
  readonly nats: string;
  readonly clickhouse: string;
  readonly gateway: string;
  readonly natsCredentials: string;
  readonly clickhousePasswordFile: string;
}

/** Starts one part. `args` are arguments to node. */
export type Start = (
  name: string,
  args: readonly string[],
  more: Pick<ChildOptions, 'env' | 'probe' | 'mayWait' | 'endWithinMs'>,
) => SupervisedChild;

export function placesOf(config: UpConfig, data: string): Places {
  const host = urlHost(reachable(config.host));
  return {
    host,
    data,
    nats: `${host}:${config.natsPort}`,
    clickhouse: `http://${host}:${config.clickhousePort}`,
    gateway: `http://${host}:${config.port}`,
    natsCredentials: natsCredentialsOf(data),
    clickhousePasswordFile: clickhousePasswordOf(data),
  };
}

/** What other commands read of a stack that runs. */
export function describeStack(config: UpConfig, places: Places, children: readonly SupervisedChild[]): RunningStack {
  const { gateway, clickhouse, clickhousePasswordFile, nats, natsCredentials } = places;
  const metrics = (port: number): string => `http://${places.host}:${port}/metrics`;
  return {
    pid: process.pid,
    gateway,
    clickhouse,
    clickhousePasswordFile,
    nats,
    natsCredentials,
    metrics: {
      gateway: metrics(config.gatewayMetricsPort),
      clickhouse: metrics(config.clickhouseMetricsPort),
      ...Object.fromEntries(
        Array.from({ length: config.workers }, (_, i) => [`worker-${i + 1}`, metrics(config.workerMetricsPort + i)]),
      ),
    },
    pids: Object.fromEntries(children.map((child) => [child.name, child.pid ?? 0])),
    tenant: demoTenant,
  };
}

/** A user of the stack's nats-server. */
export interface Login {
  readonly user: string;
  readonly password: string;
}

/**
 * Makes the secrets of NATS and ClickHouse when there are none. @returns the login of NATS
 * @throws UsageError one of them is not what it should be
 */
export function makeSecrets({ natsCredentials, clickhousePasswordFile }: Places): Login {
  const login = loginOf(secretIn(natsCredentials, `${natsUser}:`), natsCredentials);
  secretIn(clickhousePasswordFile);
  return login;
}

/** @throws UsageError the file was edited to something else */
function loginOf(text: string, file: string): Login {
  const colon = text.indexOf(':');
  if (colon < 1 || colon === text.length - 1)
    throw new UsageError(
      `${file} does not hold a line \`user:password\`: remove it, and the next start makes a new one.`,
    );
  return { user: text.slice(0, colon), password: text.slice(colon + 1) };
}

/** Starts nats-server and ClickHouse. */
export function startStores(
  start: Start,
  config: UpConfig,
  { data, clickhousePasswordFile }: Places,
  { natsServer, login }: { readonly natsServer: string; readonly login: Login },
): SupervisedChild[] {
  const { host } = config;
  const natsConfig = writeNatsConfig({
    folder: join(data, 'nats'),
    host,
    port: config.natsPort,
    monitorPort: config.natsMonitorPort || undefined,
    login,
  });
  const tether = fileURLToPath(new URL('./tether.mjs', import.meta.url));
  return [
    start('nats', [tether, natsServer, '-c', natsConfig], {
      probe: (ended) => natsGreets(reachable(host), config.natsPort, readyWithinMs, ended),
      endWithinMs: 15_000,
    }),
    start(
      'clickhouse',
      nodeArguments('clickhouse', [
        ...commonFlags(config),
        ...['--clickhouse-port', String(config.clickhousePort), '--clickhouse-data', join(data, 'clickhouse')],
        ...['--clickhouse-metrics-port', String(config.clickhouseMetricsPort)],
        ...['--clickhouse-password-file', clickhousePasswordFile],
      ]),
      { endWithinMs: 30_000 },
    ),
  ];
}

export function startGateway(start: Start, config: UpConfig, places: Places): SupervisedChild {
  const flags = [
    ...['--port', config.port, '--metrics-port', config.gatewayMetricsPort, '--shards', config.shards],
    ...['--reflection', config.reflection],
  ].map(String);
  return start('gateway', nodeArguments('gateway', [...roleFlags(config, places), ...flags]), {
    env: nodeEnvironment('gateway'),
    // Without it the workers go on loading what is in the log.
    mayWait: true,
    endWithinMs: 20_000,
  });
}

export function startWorkers(start: Start, config: UpConfig, places: Places): SupervisedChild[] {
  return Array.from({ length: config.workers }, (_, i) => {
    const flags = [
      ...['--clickhouse-url', places.clickhouse, '--metrics-port', String(config.workerMetricsPort + i)],
      // Whatever user and password the environment has: they are of another ClickHouse.
      ...['--clickhouse-user=default', '--clickhouse-password='],
      ...['--clickhouse-password-file', places.clickhousePasswordFile],
    ];
    return start(
      config.workers === 1 ? 'worker' : `worker-${i + 1}`,
      nodeArguments('worker', [...roleFlags(config, places), ...flags]),
      // Without them the gateway goes on taking events into the log.
      { mayWait: true, endWithinMs: 20_000 },
    );
  });
}

const commonFlags = ({ host, logLevel }: UpConfig): string[] => ['--host', host, '--log-level', logLevel];

/** Of gateways and workers. */
const roleFlags = (config: UpConfig, { nats, natsCredentials }: Places): string[] => [
  ...commonFlags(config),
  ...['--nats-url', nats, '--nats-credentials', natsCredentials],
  ...['--trace-ratio', String(config.traceRatio), '--otlp-url', config.otlpUrl],
];

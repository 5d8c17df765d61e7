/**
 * Every setting of every role.
 *
 *   argv.ts      a command line
 *   options.ts   what an option is; flags, variables, resolution, typos
 *   allocator.ts the memory allocator of a process
 *   index.ts     the tables
 */
import { maxShards } from '../shard-setting.js';
import { allocatorVariables, jemallocPath } from './allocator.js';
import { type OptionTable, option, type Values } from './options.js';

export { parseArgv } from './argv.js';
export {
  flagOf,
  type OptionSpec,
  type OptionTable,
  option,
  refuseUnknownVariables,
  resolveOptions,
  searchPath,
  telemetryDisabled,
  testEnvironment,
  threadPoolSize,
  type Values,
  variableOf,
} from './options.js';

import { hourMs, KiB, MiB } from '../units.js';

/** How any role reaches NATS. */
export const natsClientOptions = {
  natsUrl: option.string(
    '127.0.0.1:4222',
    'Comma-separated addresses of NATS. nats://user:password@host:port logs in; as a flag it shows in `ps`.',
  ),
  natsCredentials: option.string(
    '',
    'File with the credentials for NATS: a line `user:password`, a token, an nkey seed, or a .creds file. Read at each connect.',
  ),
  natsTlsCa: option.string(
    '',
    "PEM file of the authority that signed NATS's certificate; it makes TLS required. Empty: TLS if an address begins with tls:// or the server requires it, checked against the system's authorities.",
  ),
  natsTlsCert: option.string('', 'PEM file of the client certificate for NATS; needs natsTlsKey.'),
  natsTlsKey: option.string('', 'PEM file of the key of natsTlsCert. The TLS files are read at each connect.'),
  natsTlsFirst: option.bool(false, 'Start TLS before the server speaks, for its setting handshake_first.'),
} satisfies OptionTable;

/** Settings that every role has. */
export const commonOptions = {
  host: option.string('127.0.0.1', 'Address to listen on.', { needed: true }),
  logLevel: option.string('info', 'Least severe log level shown.', {
    choices: ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'],
  }),
  ...natsClientOptions,
  traceRatio: option.float(0.01, 'Share of requests to trace when the caller does not decide.', { min: 0, max: 1 }),
  otlpUrl: option.string('', 'OTLP/HTTP collector for traces, e.g. http://127.0.0.1:4318/v1/traces; empty: no export.'),
} satisfies OptionTable;

/** For tests of what a death at the worst moment does. */
const failpointOption = {
  failpoint: option.string(
    '',
    'For tests: the process kills itself at this failpoint. `name@n` is its n-th passing, `name@n:freeze` freezes the process. The names are below.',
  ),
} satisfies OptionTable;

/** `sluice gateway`. */
export const gatewayOptions = {
  ...commonOptions,
  port: option.int(7070, 'Port for gRPC, gRPC-Web, Connect and HTTP; 0 picks a free one.', { min: 0, max: 65535 }),
  metricsPort: option.int(7071, 'Port of the Prometheus endpoint /metrics; 0 picks a free one.', {
    min: 0,
    max: 65535,
  }),
  processes: option.int(
    1,
    'Gateway processes behind the port. Each has its own copy of these limits, and its /metrics at metricsPort, metricsPort + 1 … (0: free ports).',
    { min: 1, max: 64 },
  ),
  shards: option.int(2, 'Shards to create when the installation has none. Later the number in the log counts.', {
    min: 1,
    max: maxShards,
  }),
  replicas: option.int(1, 'JetStream replicas of each shard when it is created.', { min: 1, max: 5 }),
  shardMaxBytes: option.bytes(
    2048 * MiB,
    'Largest size of a shard. A full shard refuses batches with a delay, and drops none.',
    {
      min: MiB,
    },
  ),
  maxBatchBytes: option.bytes(MiB, 'Largest encoded batch, in bytes.', { min: 1024, max: 8 * MiB }),
  maxBatchEvents: option.int(10_000, 'Most events in a batch.', { min: 1, max: 1_000_000 }),
  maxBytesInFlight: option.bytes(24 * MiB, 'Most bytes of batches held for all callers until the log has them.', {
    min: MiB,
  }),
  maxTenantBytesInFlight: option.bytes(16 * MiB, 'Most bytes of batches held for one tenant.', { min: MiB }),
  maxStreamBytesInFlight: option.bytes(
    8 * MiB,
    'Most bytes of batches held for one stream; beyond it the gateway stops reading.',
    {
      min: MiB,
    },
  ),
  maxStreamsPerKey: option.int(1_000, 'Most open PublishStream calls of one key; the gateway refuses more.', {
    min: 1,
    max: 1_000_000,
  }),
  maxStreams: option.int(
    5_000,
    'Most open PublishStream calls of all keys. A twentieth of them may use JSON, gzip, or another form than plain Protobuf over HTTP/2.',
    { min: 1, max: 1_000_000 },
  ),
  maxUnfinishedBytes: option.bytes(
    24 * MiB,
    'Most bytes of unfinished requests of all callers. Beyond it the gateway pauses reading; beyond twice that it refuses.',
    { min: MiB },
  ),
  maxTenantUnfinishedBytes: option.bytes(16 * MiB, 'The same for one tenant.', { min: MiB }),
  publishWindow: option.int(32, 'Most publishes to JetStream in flight per connection.', { min: 1, max: 1024 }),
  publishTimeout: option.ms(5_000, 'How long a publish waits for its ack before its outcome counts as unknown.', {
    min: 100,
  }),
  hedgeDelay: option.ms(
    0,
    'Send a message without an ack after this time once more over a second connection, marked as a retry; at most one in twenty. 0: never.',
    { min: 0, max: 5_000 },
  ),
  coalesceBytes: option.bytes(128 * KiB, 'Group commit: publish a group at this size at the latest.', { min: 1024 }),
  coalesceDelay: option.ms(3, 'Group commit: publish a group after this time at the latest.', { min: 0, max: 1000 }),
  maxHeld: option.ms(
    600_000,
    'A gateway that was paused does not publish a batch that it held for longer than this. It treats a batch that was sent longer ago as a possible retry.',
    { min: 1_000, max: 600_000 },
  ),
  stallAfter: option.ms(
    300_000,
    'A gateway that was paused for longer than this treats batches that arrive on older connections as possible retries.',
    { min: 100, max: 300_000 },
  ),
  trustedProxies: option.list(
    [],
    'Addresses or networks (10.0.0.0/8) of your proxies, comma-separated. The gateway reads the address of a client from their X-Forwarded-For and Forwarded, and does not limit their connections.',
  ),
  corsOrigins: option.list([], 'Origins that browsers may call from, comma-separated; "*" allows all.'),
  tlsCert: option.string('', 'PEM file of the certificate chain. With tlsKey it turns TLS on.'),
  tlsKey: option.string('', 'PEM file of the private key. The gateway reloads all three TLS files when they change.'),
  tlsClientCa: option.string(
    '',
    'PEM file of authorities. Clients then need a certificate that one of them signed, in addition to their key. Empty: they need none.',
  ),
  drainGrace: option.ms(10_000, 'How long a drain waits for work in flight.', { min: 0 }),
  maxConnectionAge: option.ms(30 * 60_000, 'The gateway asks connections to reconnect at about this age (±10 %).', {
    min: 1_000,
  }),
  hotPath: option.bool(
    true,
    "Serve binary Publish and PublishStream over HTTP/2 by the gateway's own handler. false: by the RPC library, with the same answers.",
  ),
  reflection: option.string(
    'key',
    'Who may read the contract by gRPC reflection (grpcurl, buf curl, Postman). `open`: every caller; `key`: callers with a key; `off`: no caller.',
    { choices: ['open', 'key', 'off'] },
  ),
  maxConnections: option.int(
    10_000,
    'Most connections. Beyond it the gateway closes the one that is idle for longest; when all have open calls, it refuses new ones.',
    { min: 1, max: 1_000_000 },
  ),
  maxConnectionsPerAddress: option.int(
    256,
    'Most connections of an IPv4 address or an IPv6 /64, by the same rule. trustedProxies have no limit. 0: no limit.',
    { min: 0, max: 1_000_000 },
  ),
  newConnectionsPerAddress: option.int(
    50,
    'New connections a second of an IPv4 address or an IPv6 /64; a burst may use four seconds of them. The gateway refuses more. trustedProxies have no limit. 0: no limit.',
    { min: 0, max: 100_000 },
  ),
  logPositions: option.bool(
    false,
    'Return the position of each batch in the log (stream, shard, sequence). It shows every tenant how much all tenants send.',
  ),
  storeClientAddress: option.bool(false, "Store the client's IP address with each batch."),
  storeUserAgent: option.bool(false, "Store the client's user agent with each batch."),
  ...failpointOption,
} satisfies OptionTable;

/** How any role reaches ClickHouse. */
export const clickhouseClientOptions = {
  clickhouseUrl: option.string('http://127.0.0.1:8123', 'ClickHouse, or `sluice clickhouse`, over HTTP.'),
  clickhouseUser: option.string('default', 'ClickHouse user.'),
  clickhousePassword: option.string('', 'ClickHouse password; as a flag it shows in `ps`.'),
  clickhousePasswordFile: option.string('', 'File with the ClickHouse password, in place of clickhousePassword.'),
  clickhouseTlsCa: option.string(
    '',
    "PEM file of the authority that signed ClickHouse's certificate, for an https:// address. Empty: the system's authorities.",
  ),
  clickhouseDatabase: option.string('sluice', 'Database of the events table. Workers create it when it is missing.'),
  clickhouseEngine: option.string(
    'MergeTree',
    'Engine of the events table. ReplicatedMergeTree takes path and replica from the macros "shard" and "replica" of the server. A worker loads into the server that its URL names: give each worker the URL of one replica, not of a balancer. All workers of an installation use replicas of one ClickHouse shard.',
    { choices: ['MergeTree', 'ReplicatedMergeTree'] },
  ),
  clickhouseCompression: option.bool(true, 'Ask for compressed answers, and compress requests where that saves time.'),
  clickhousePoolSize: option.int(8, 'Most connections to ClickHouse.', { min: 1, max: 256 }),
  clickhousePoolWait: option.ms(30_000, 'How long a statement waits for a free connection.', { min: 1 }),
  clickhouseKeepAlive: option.ms(8_000, "How long to keep an idle connection; less than the server's own limit.", {
    min: 0,
  }),
  clickhouseTimeout: option.ms(60_000, 'How long a statement may take.', { min: 1_000 }),
} satisfies OptionTable;

/** `sluice worker`. */
export const workerOptions = {
  ...commonOptions,
  ...clickhouseClientOptions,
  metricsPort: option.int(7081, 'Port of the Prometheus endpoint /metrics; 0 picks a free one.', {
    min: 0,
    max: 65535,
  }),
  blockRows: option.int(200_000, 'Most rows of a block (one batch may exceed it).', { min: 1, max: 1_000_000 }),
  blockBytes: option.bytes(64 * MiB, 'Most bytes of a block.', { min: 64 * KiB }),
  blockDelay: option.ms(1_000, 'The worker completes a block at this age at the latest.', { min: 1 }),
  maxBytesHeld: option.bytes(
    96 * MiB,
    'Most bytes of messages held for all shards, both read ahead and being stored.',
    {
      min: MiB,
    },
  ),
  deadLetterBytes: option.bytes(
    256 * MiB,
    'Largest size of the stream of dead letters, set when it is made. When it is full, shards with another dead letter stop.',
    { min: MiB },
  ),
  retentionDays: option.int(0, 'Days of events to keep; 0 keeps all.', { min: 0 }),
  replayWindow: option.ms(
    hourMs,
    'How long loaded messages stay in the log for other readers. They use at most half of the log.',
    { min: 0 },
  ),
  ...failpointOption,
} satisfies OptionTable;

/** `sluice clickhouse`, the embedded server. */
export const embeddedOptions = {
  host: commonOptions.host,
  logLevel: commonOptions.logLevel,
  clickhousePort: option.int(8123, 'Port of the HTTP interface; 0 picks a free one.', { min: 0, max: 65535 }),
  clickhouseData: option.string('sluice-data/clickhouse', 'Folder of the data. One process at a time may use it.', {
    needed: true,
  }),
  clickhousePasswordFile: option.string(
    '',
    'File with the password of the user `default`. Empty: no password, so every user of the machine may send statements.',
  ),
  clickhouseMetricsPort: option.int(8124, 'Port of the Prometheus endpoint /metrics; 0 picks a free one.', {
    min: 0,
    max: 65535,
  }),
} satisfies OptionTable;

/** `sluice erase`. */
export const eraseOptions = {
  ...commonOptions,
  ...clickhouseClientOptions,
  tenant: option.string('', 'The tenant of the user.'),
  userId: option.string('', 'The user_id of the events to delete.'),
  eraseWait: option.ms(60_000, 'How long to wait for the workers to load what is in the log.', { min: 0 }),
} satisfies OptionTable;

/** `sluice setup`. */
export const setupOptions = {
  ...natsClientOptions,
  logLevel: option.string('warn', commonOptions.logLevel.help, { choices: commonOptions.logLevel.choices ?? [] }),
  shards: gatewayOptions.shards,
  replicas: gatewayOptions.replicas,
  shardMaxBytes: gatewayOptions.shardMaxBytes,
  deadLetterBytes: workerOptions.deadLetterBytes,
} satisfies OptionTable;

/** Commands that look into log and ClickHouse. */
const lookOptions = {
  ...natsClientOptions,
  logLevel: option.string('warn', commonOptions.logLevel.help, { choices: commonOptions.logLevel.choices ?? [] }),
  ...clickhouseClientOptions,
  clickhouseTimeout: option.ms(600_000, clickhouseClientOptions.clickhouseTimeout.help, { min: 1_000 }),
  json: option.bool(false, 'Print one JSON line instead of text.'),
} satisfies OptionTable;

/** `sluice audit`. */
export const auditOptions = {
  ...lookOptions,
  tenant: option.string('', 'Audit each batch of this tenant that the log still has. Empty: all shards, by block.'),
  retentionDays: workerOptions.retentionDays,
} satisfies OptionTable;

/** `sluice shards`. */
export const shardsOptions = {
  ...lookOptions,
  set: option.int(
    0,
    'Change the number of shards to this. The command drains the log first; gateways take no batches until it ends. 0: only show the shards.',
    {
      min: 0,
      max: maxShards,
    },
  ),
  drainTimeout: option.ms(10 * 60_000, 'How long the drain may take before the command restores the old number.', {
    min: 1_000,
  }),
} satisfies OptionTable;

/** `sluice where`. */
export const whereOptions = {
  ...lookOptions,
  tenant: option.string('', 'The tenant of the event or batch. Empty: any tenant.'),
  day: option.string(
    '',
    'Look for an event only among those stored on this day, YYYY-MM-DD. Empty: on all days, newest first.',
  ),
} satisfies OptionTable;

/** `sluice up`: everything on one machine. Variables of the roles reach the roles. */
export const upOptions = {
  host: commonOptions.host,
  logLevel: commonOptions.logLevel,
  traceRatio: commonOptions.traceRatio,
  otlpUrl: commonOptions.otlpUrl,
  data: option.string('sluice-data', 'Folder of all data. One `up` at a time may use it.', { needed: true }),
  workers: option.int(1, 'Number of workers.', { min: 1, max: 64 }),
  shards: gatewayOptions.shards,
  reflection: option.string('open', gatewayOptions.reflection.help, {
    choices: gatewayOptions.reflection.choices ?? [],
  }),
  port: option.int(7070, 'Port of the gateway: gRPC, gRPC-Web, Connect and HTTP.', { min: 1, max: 65535 }),
  gatewayMetricsPort: option.int(7071, "Port of the gateway's /metrics.", { min: 1, max: 65535 }),
  workerMetricsPort: option.int(7081, "Port of the first worker's /metrics; the next workers use the next ports.", {
    min: 1,
    max: 65000,
  }),
  clickhousePort: option.int(8123, 'Port of the embedded ClickHouse (HTTP).', { min: 1, max: 65535 }),
  clickhouseMetricsPort: embeddedOptions.clickhouseMetricsPort,
  natsPort: option.int(4222, 'Port of nats-server.', { min: 1, max: 65535 }),
  natsMonitorPort: option.int(
    0,
    "Port of nats-server's monitoring pages. Every user and every web page on this machine can read them. 0: off.",
    { min: 0, max: 65535 },
  ),
} satisfies OptionTable;

/** Commands that look for a running stack: its folder, and addresses that win over what is found there. */
export const stackOptions = {
  data: upOptions.data,
  natsUrl: option.string('', 'Address of NATS. Empty: that of the stack in the data folder, or else 127.0.0.1:4222.'),
  natsCredentials: natsClientOptions.natsCredentials,
  natsTlsCa: natsClientOptions.natsTlsCa,
  natsTlsCert: natsClientOptions.natsTlsCert,
  natsTlsKey: natsClientOptions.natsTlsKey,
  natsTlsFirst: natsClientOptions.natsTlsFirst,
  clickhouseUrl: option.string(
    '',
    'Address of ClickHouse. Empty: that of the stack in the data folder, or else http://127.0.0.1:8123.',
  ),
  clickhouseUser: clickhouseClientOptions.clickhouseUser,
  clickhousePassword: clickhouseClientOptions.clickhousePassword,
  clickhousePasswordFile: clickhouseClientOptions.clickhousePasswordFile,
  clickhouseTlsCa: clickhouseClientOptions.clickhouseTlsCa,
  clickhouseDatabase: clickhouseClientOptions.clickhouseDatabase,
} satisfies OptionTable;

/** Every table, by the command that it belongs to. */
export const allOptions: Readonly<Record<string, OptionTable>> = {
  up: upOptions,
  gateway: gatewayOptions,
  worker: workerOptions,
  clickhouse: embeddedOptions,
  setup: setupOptions,
  erase: eraseOptions,
  audit: auditOptions,
  shards: shardsOptions,
  where: whereOptions,
  'query, tenant': stackOptions,
};

/**
 * Flags for node, by role. The gateway's young generation is kept small: with V8's own choice (16 MiB a half) it holds more dead
 * request buffers, which cost 25 MiB at full load and bring nothing (1.49M against 1.46M events/s, within the noise).
 * `--expose-gc` lets it collect earlier than V8 does while memory is short (gateway/early-collection.ts). `--heap-growing-percent=25` does the same all
 * the time, and doubles the gateway's CPU (0.35 against 0.73 CPU-s per million events).
 * The worker's garbage is small too, since messages lie in memory of their own: 2 MiB a half is 12 MiB less at rest and 30 MiB
 * less at full load, for the same CPU.
 */
export const nodeFlags: Readonly<Record<'gateway' | 'worker' | 'clickhouse', readonly string[]>> = {
  gateway: ['--max-semi-space-size=4', '--expose-gc'],
  worker: ['--max-semi-space-size=2'],
  clickhouse: [],
};

/** What a process of the role is started with. This process's environment wins: `LD_PRELOAD=` keeps the C library's own malloc. */
export const environmentOf = (role: keyof typeof nodeFlags): NodeJS.ProcessEnv => ({
  ...(role === 'gateway' ? allocatorVariables(process.platform === 'linux' ? jemallocPath() : undefined) : {}),
  ...process.env,
});

export type GatewayConfig = Values<typeof gatewayOptions>;
export type WorkerConfig = Values<typeof workerOptions>;
export type EmbeddedConfig = Values<typeof embeddedOptions>;
export type ClickHouseClientConfig = Values<typeof clickhouseClientOptions>;
export type UpConfig = Values<typeof upOptions>;
export type NatsClientConfig = Values<typeof natsClientOptions>;
export type SetupConfig = Values<typeof setupOptions>;
export type StackConfig = Values<typeof stackOptions>;

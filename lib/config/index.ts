/**
 * Every setting of every role.
 *
 *   argv.ts      a command line
 *   options.ts   what an option is; flags, variables, resolution, typos
 *   index.ts     the tables
 */
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

const MiB = 1024 ** 2;

/** How any role reaches NATS. */
export const natsClientOptions = {
  natsUrl: option.string(
    '127.0.0.1:4222',
    'Comma-separated addresses of NATS; nats://user:password@host:port logs in, and shows in `ps` when given as a flag.',
  ),
  natsCredentials: option.string(
    '',
    'File with what NATS asks for at a log-in: a line `user:password`, a token, an nkey seed, or a .creds file; read at each connect.',
  ),
  natsTlsCa: option.string(
    '',
    "PEM file of the authority that signed NATS's certificate; it makes TLS a must. Empty: TLS only if an address begins with tls:// or the server wants it, checked against the system's authorities.",
  ),
  natsTlsCert: option.string('', 'PEM file of the certificate that is shown to NATS; with natsTlsKey.'),
  natsTlsKey: option.string('', 'PEM file of its key. The TLS files are read at each connect.'),
  natsTlsFirst: option.bool(false, 'TLS before the first word of the server: for its setting handshake_first.'),
} satisfies OptionTable;

/** Settings that every role has. */
export const commonOptions = {
  host: option.string('127.0.0.1', 'Address that servers listen on.', { needed: true }),
  logLevel: option.string('info', 'Least severe log level shown.', {
    choices: ['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent'],
  }),
  ...natsClientOptions,
  traceRatio: option.float(0.01, 'Share of requests that are traced when the caller does not say.', { min: 0, max: 1 }),
  otlpUrl: option.string('', 'OTLP/HTTP collector for traces, e.g. http://127.0.0.1:4318/v1/traces; empty: no export.'),
} satisfies OptionTable;

/** For tests of what a death at the worst moment does. */
const failpointOption = {
  failpoint: option.string(
    '',
    'For tests: the process kills itself at this named place, `name` or `name@n` for its n-th passing, or freezes with `name@n:freeze`; the names are below.',
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
    'Gateway processes behind the port; each has all of these limits to itself, and its /metrics at metricsPort, metricsPort + 1 … (0: free ones).',
    { min: 1, max: 64 },
  ),
  shards: option.int(2, 'Shards to create when the installation has none yet; afterwards the log knows.', {
    min: 1,
    max: 1024,
  }),
  replicas: option.int(1, 'JetStream replicas of each shard when it is created.', { min: 1, max: 5 }),
  shardMaxBytes: option.bytes(2048 * MiB, 'Most bytes a shard keeps; full means "slow down", never "drop".', {
    min: MiB,
  }),
  maxBatchBytes: option.bytes(MiB, 'Most bytes of an encoded batch.', { min: 1024, max: 8 * MiB }),
  maxBatchEvents: option.int(10_000, 'Most events in a batch.', { min: 1, max: 1_000_000 }),
  maxBytesInFlight: option.bytes(24 * MiB, 'Most bytes held for all callers until the log has them.', { min: MiB }),
  maxTenantBytesInFlight: option.bytes(16 * MiB, 'Most bytes held for one tenant.', { min: MiB }),
  maxStreamBytesInFlight: option.bytes(8 * MiB, 'Most bytes held for one stream; past it the gateway stops reading.', {
    min: MiB,
  }),
  maxStreamsPerKey: option.int(1_000, 'Most open PublishStream calls of one key; further ones are refused.', {
    min: 1,
    max: 1_000_000,
  }),
  maxStreams: option.int(
    5_000,
    'Most open PublishStream calls of all keys; a twentieth of them may take another form than plain Protobuf over HTTP/2 (JSON, gzip).',
    { min: 1, max: 1_000_000 },
  ),
  maxUnfinishedBytes: option.bytes(
    24 * MiB,
    'Most bytes of requests that are not whole yet, of all callers; past it the gateway pauses reading, past twice that it refuses.',
    { min: MiB },
  ),
  maxTenantUnfinishedBytes: option.bytes(16 * MiB, 'The same for one tenant.', { min: MiB }),
  publishWindow: option.int(32, 'Most publishes to JetStream in flight per connection.', { min: 1, max: 1024 }),
  publishTimeout: option.ms(5_000, 'How long a publish waits for its ack before its outcome counts as unknown.', {
    min: 100,
  }),
  hedgeDelay: option.ms(
    0,
    'A message without an ack after so long is sent once more over a second connection, marked as a retry; at most one in twenty. 0: never.',
    { min: 0, max: 5_000 },
  ),
  coalesceBytes: option.bytes(128 * 1024, 'Group commit: publish a group at this size at the latest.', { min: 1024 }),
  coalesceDelay: option.ms(3, 'Group commit: publish a group after this time at the latest.', { min: 0, max: 1000 }),
  maxHeld: option.ms(
    600_000,
    'A batch that the gateway has held for longer, because it stood still, is not published; a batch that was sent longer ago is checked like one sent again.',
    { min: 1_000, max: 600_000 },
  ),
  stallAfter: option.ms(
    300_000,
    'After standing still for longer, the gateway has what comes on connections of before checked like batches sent again.',
    { min: 100, max: 300_000 },
  ),
  trustedProxies: option.list(
    [],
    'Addresses or networks (10.0.0.0/8) of proxies, comma-separated: from these, X-Forwarded-For and Forwarded say where a client is, and they have no limits of connections.',
  ),
  corsOrigins: option.list([], 'Origins that browsers may call from, comma-separated; "*" allows all.'),
  tlsCert: option.string('', 'PEM file of the certificate chain; with tlsKey it turns TLS on.'),
  tlsKey: option.string('', 'PEM file of the private key. All three TLS files are read again when they change.'),
  tlsClientCa: option.string(
    '',
    'PEM file of authorities: clients must show a certificate that one of them signed, besides their key; empty: they need none.',
  ),
  drainGrace: option.ms(10_000, 'How long a drain waits for work in flight.', { min: 0 }),
  maxConnectionAge: option.ms(30 * 60_000, 'Connections are asked to reconnect at about this age (±10 %).', {
    min: 1_000,
  }),
  hotPath: option.bool(
    true,
    "Binary Publish and PublishStream over HTTP/2 by the gateway's own handler; false: by the RPC library, with the same answers.",
  ),
  reflection: option.string(
    'key',
    'Who may read the contract by gRPC reflection (grpcurl, buf curl, Postman): `open` everybody, `key` callers with a key, `off` nobody.',
    { choices: ['open', 'key', 'off'] },
  ),
  maxConnections: option.int(
    10_000,
    'Most connections; beyond them the one that is idle for longest makes room, and newcomers are refused when all have open calls.',
    { min: 1, max: 1_000_000 },
  ),
  maxConnectionsPerAddress: option.int(
    256,
    'Most connections of an IPv4 address or an IPv6 /64, in the same way; trustedProxies have no limit. 0: no limit.',
    { min: 0, max: 1_000_000 },
  ),
  newConnectionsPerAddress: option.int(
    50,
    'New connections a second of an IPv4 address or an IPv6 /64, with four seconds of them at once; further ones are refused; trustedProxies have no limit. 0: no limit.',
    { min: 0, max: 100_000 },
  ),
  logPositions: option.bool(
    false,
    'Tell callers where the log has their batches (stream, shard, sequence). It shows every tenant how much all of them send.',
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
    "PEM file of the authority that signed ClickHouse's certificate, for an https:// address; empty: the system's authorities.",
  ),
  clickhouseDatabase: option.string('sluice', 'Database of the events table; created when missing.'),
  clickhouseEngine: option.string(
    'MergeTree',
    'Engine of the events table. ReplicatedMergeTree takes path and replica from the macros "shard" and "replica" of the server, and a worker loads its shards into the one server that its URL names: give each worker the URL of one replica, not of a balancer, and the workers of one installation replicas of one ClickHouse shard.',
    { choices: ['MergeTree', 'ReplicatedMergeTree'] },
  ),
  clickhouseCompression: option.bool(true, 'Ask for compressed answers, and compress requests where it pays.'),
  clickhousePoolSize: option.int(8, 'Most connections to ClickHouse.', { min: 1, max: 256 }),
  clickhousePoolWait: option.ms(30_000, 'How long a statement waits for a free connection.', { min: 1 }),
  clickhouseKeepAlive: option.ms(8_000, "How long an idle connection is kept; below the server's own limit.", {
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
  blockRows: option.int(200_000, 'Rows of a block at the most (one batch may overshoot).', { min: 1, max: 1_000_000 }),
  blockBytes: option.bytes(64 * MiB, 'Bytes of a block at the most.', { min: 64 * 1024 }),
  blockDelay: option.ms(1_000, 'A block is cut at this age at the latest.', { min: 1 }),
  maxBytesHeld: option.bytes(96 * MiB, 'Most bytes of messages held for all shards: read ahead and being stored.', {
    min: MiB,
  }),
  deadLetterBytes: option.bytes(
    256 * MiB,
    'Most bytes of the dead letters, when their stream is made; a full one stops the shards that have another letter.',
    { min: MiB },
  ),
  retentionDays: option.int(0, 'Days of events to keep; 0 keeps all.', { min: 0 }),
  replayWindow: option.ms(
    3_600_000,
    'How long loaded messages stay in the log for other readers (at most half of it).',
    { min: 0 },
  ),
  ...failpointOption,
} satisfies OptionTable;

/** `sluice clickhouse`, the embedded server. */
export const embeddedOptions = {
  host: commonOptions.host,
  logLevel: commonOptions.logLevel,
  clickhousePort: option.int(8123, 'Port of the HTTP interface; 0 picks a free one.', { min: 0, max: 65535 }),
  clickhouseData: option.string('sluice-data/clickhouse', 'Folder of the data; one process at a time.', {
    needed: true,
  }),
  clickhousePasswordFile: option.string(
    '',
    'File with the password that clients must show as the user `default`; empty: none, then every user of the machine may send statements.',
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
  tenant: option.string('', 'Whose user it is.'),
  userId: option.string('', 'The user_id of the events to delete.'),
  eraseWait: option.ms(60_000, 'How long to wait until the workers have loaded what is in the log.', { min: 0 }),
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

/** Commands that look into log and warehouse. */
const lookOptions = {
  ...natsClientOptions,
  logLevel: option.string('warn', commonOptions.logLevel.help, { choices: commonOptions.logLevel.choices ?? [] }),
  ...clickhouseClientOptions,
  clickhouseTimeout: option.ms(600_000, clickhouseClientOptions.clickhouseTimeout.help, { min: 1_000 }),
  json: option.bool(false, 'One JSON line instead of text.'),
} satisfies OptionTable;

/** `sluice audit`. */
export const auditOptions = {
  ...lookOptions,
  tenant: option.string(
    '',
    'Audit the batches of this tenant that the log still has, one by one; empty: all shards, by block.',
  ),
  retentionDays: workerOptions.retentionDays,
} satisfies OptionTable;

/** `sluice shards`. */
export const shardsOptions = {
  ...lookOptions,
  set: option.int(
    0,
    'Change the number of shards to this: the log is drained first, and takes no batches until it is done; 0 shows them.',
    {
      min: 0,
      max: 1024,
    },
  ),
  drainTimeout: option.ms(10 * 60_000, 'How long the drain may take before the old number is taken up again.', {
    min: 1_000,
  }),
} satisfies OptionTable;

/** `sluice where`. */
export const whereOptions = {
  ...lookOptions,
  tenant: option.string('', 'Whose event or batch it is; empty: of anybody.'),
  day: option.string(
    '',
    'Look for an event only among those stored on this day, YYYY-MM-DD; empty: on all days, newest first.',
  ),
} satisfies OptionTable;

/** `sluice up`: everything on one machine. Variables of the roles reach the roles. */
export const upOptions = {
  host: commonOptions.host,
  logLevel: commonOptions.logLevel,
  traceRatio: commonOptions.traceRatio,
  otlpUrl: commonOptions.otlpUrl,
  data: option.string('sluice-data', 'Folder of all data; one `up` at a time.', { needed: true }),
  workers: option.int(1, 'Number of workers.', { min: 1, max: 64 }),
  shards: gatewayOptions.shards,
  reflection: option.string('open', gatewayOptions.reflection.help, {
    choices: gatewayOptions.reflection.choices ?? [],
  }),
  port: option.int(7070, 'Port of the gateway: gRPC, gRPC-Web, Connect and HTTP.', { min: 1, max: 65535 }),
  gatewayMetricsPort: option.int(7071, "Port of the gateway's /metrics.", { min: 1, max: 65535 }),
  workerMetricsPort: option.int(7081, "Port of the first worker's /metrics; the others count on from it.", {
    min: 1,
    max: 65000,
  }),
  clickhousePort: option.int(8123, 'Port of the embedded ClickHouse (HTTP).', { min: 1, max: 65535 }),
  clickhouseMetricsPort: embeddedOptions.clickhouseMetricsPort,
  natsPort: option.int(4222, 'Port of nats-server.', { min: 1, max: 65535 }),
  natsMonitorPort: option.int(
    0,
    "Port of nats-server's monitoring pages, which every user and every web page on this machine can read; 0: none.",
    { min: 0, max: 65535 },
  ),
} satisfies OptionTable;

/** Commands that look for a running stack: its folder, and addresses that win over what is found there. */
export const stackOptions = {
  data: upOptions.data,
  natsUrl: option.string('', 'Address of NATS; empty: that of the stack in the data folder, else 127.0.0.1:4222.'),
  natsCredentials: natsClientOptions.natsCredentials,
  natsTlsCa: natsClientOptions.natsTlsCa,
  natsTlsCert: natsClientOptions.natsTlsCert,
  natsTlsKey: natsClientOptions.natsTlsKey,
  natsTlsFirst: natsClientOptions.natsTlsFirst,
  clickhouseUrl: option.string(
    '',
    'ClickHouse; empty: that of the stack in the data folder, else http://127.0.0.1:8123.',
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

export type GatewayConfig = Values<typeof gatewayOptions>;
export type WorkerConfig = Values<typeof workerOptions>;
export type EmbeddedConfig = Values<typeof embeddedOptions>;
export type ClickHouseClientConfig = Values<typeof clickhouseClientOptions>;
export type UpConfig = Values<typeof upOptions>;
export type NatsClientConfig = Values<typeof natsClientOptions>;
export type SetupConfig = Values<typeof setupOptions>;
export type StackConfig = Values<typeof stackOptions>;

/**
 * The streams of the log: one per shard, and the setting that says how many there are.
 *
 * The number of shards is written once, by the first gateway of an installation, because a batch's shard is computed from
 * it: a retry must land where the first send went (docs/design.md, section 4). Later gateways read it and ignore their
 * own option.
 */
import { JetStreamApiError, type JetStreamManager, jetstreamManager, type StreamInfo } from '@nats-io/jetstream';
import { Kvm } from '@nats-io/kv';
import type { NatsConnection } from '@nats-io/transport-node';
import { openBucket } from './buckets.js';
import { UsageError } from './errors.js';
import type { Log } from './log.js';
import { replicatesFrom, replicatesSafely } from './nats-version.js';
import { settingsBucket, shardStream, shardSubjects } from './subjects.js';

export interface ShardOptions {
  /** Shards of a new installation; one that exists keeps its number. */
  readonly shards: number;
  /** JetStream replicas of streams and buckets that are created. */
  readonly replicas: number;
  /** Most bytes of a stream that is created. */
  readonly maxBytes: number;
  /** Told of each stream, as it was found or made. */
  readonly onStream?: (shard: number, info: StreamInfo) => void;
  readonly log?: Log;
}

/** Identity of a stream, for the `_stream` column: the moment it was made. */
export const generationOf = (info: StreamInfo): string => info.created.replace(/[-:]/g, '');

const shardsKey = 'shards';
const maxShards = 1024;

/** JetStream's error numbers that are told apart here. */
const streamNotFound = 10059;
const streamNameInUse = 10058;
const wrongLastSequence = 10071;
const accountFull = 10002;
const storageFull = 10047;

/**
 * Makes sure that the installation knows its number of shards and that each shard has its stream. May be called by many
 * gateways at once, and again at any time.
 * @returns the number of shards of the installation.
 * @throws UsageError when a stream of that name exists with settings that could lose events.
 */
export async function ensureShards(nc: NatsConnection, options: ShardOptions): Promise<number> {
  refuseReplicas(nc, 'This gateway is to use', options.replicas);
  const shards = await settleShards(nc, options);
  const jsm = await jetstreamManager(nc, { checkAPI: false });
  for (let shard = 0; shard < shards; shard++) {
    const { name, num_replicas: has } = (await ensureStream(jsm, shard, options)).config;
    refuseReplicas(nc, `The stream ${name} has`, has);
    // Replicas of streams are the operator's to change: it moves all of their messages.
    if (has < options.replicas) {
      options.log?.warn(
        { stream: name, has, wanted: options.replicas },
        `the stream has fewer replicas than --replicas says: nats stream edit ${name} --replicas ${options.replicas}`,
      );
    }
  }
  return shards;
}

/** @throws UsageError when the connected server's replicas are not to be trusted (lib/nats-version.ts) */
function refuseReplicas(nc: NatsConnection, subject: string, replicas: number): void {
  const version = nc.info?.version;
  if (replicas <= 1 || version === undefined || replicatesSafely(version)) return;
  throw new UsageError(
    `${subject} ${replicas} replicas, and nats-server ${version} has lost acknowledged messages of replicated streams when its ` +
      `nodes were killed: upgrade all nodes to ${replicatesFrom} or newer, or use one replica.`,
  );
}

/** The number of shards of the installation, or undefined when no gateway has ever started. */
export async function readShards(nc: NatsConnection): Promise<number | undefined> {
  const kv = await new Kvm(nc).open(settingsBucket);
  try {
    const entry = await kv.get(shardsKey);
    return entry === null ? undefined : parseShards(entry.string());
  } catch (error) {
    if (isApiError(error, streamNotFound)) return undefined;
    throw error;
  }
}

async function settleShards(nc: NatsConnection, options: ShardOptions): Promise<number> {
  const kv = await openBucket(nc, settingsBucket, {
    replicas: options.replicas,
    onFewer: (bucket, has, error) =>
      options.log?.warn({ bucket, has, error: String(error) }, 'the bucket has fewer replicas'),
    history: 1,
  });
  const known = await kv.get(shardsKey);
  if (known !== null) return parseShards(known.string());
  try {
    await kv.create(shardsKey, String(options.shards));
    return options.shards;
  } catch (error) {
    // Another gateway was first.
    if (!isApiError(error, wrongLastSequence)) throw error;
    const winner = await kv.get(shardsKey);
    if (winner === null) throw error;
    return parseShards(winner.string());
  }
}

function parseShards(text: string): number {
  const shards = Number(text);
  if (!Number.isInteger(shards) || shards < 1 || shards > maxShards) {
    throw new UsageError(
      `The key "${shardsKey}" of the bucket ${settingsBucket} holds "${text.slice(0, 40)}", which is no number of shards: put back the number of EV_ streams.`,
    );
  }
  return shards;
}

async function ensureStream(jsm: JetStreamManager, shard: number, options: ShardOptions): Promise<StreamInfo> {
  const name = shardStream(shard);
  try {
    const info = verified(await jsm.streams.info(name), shard);
    options.onStream?.(shard, info);
    return info;
  } catch (error) {
    if (!isApiError(error, streamNotFound)) throw error;
  }
  try {
    const made = await jsm.streams.add({
      name,
      subjects: [shardSubjects(shard)],
      retention: 'limits',
      // Full means "slow down", never "drop the oldest".
      discard: 'new',
      storage: 'file',
      max_bytes: options.maxBytes,
      num_replicas: options.replicas,
      // Nothing relies on it (it forgets on restart), so it may be as short as JetStream allows: 100 ms, in ns.
      duplicate_window: 100_000_000,
      // Readers may fetch from any replica.
      allow_direct: true,
    });
    options.onStream?.(shard, made);
    return made;
  } catch (error) {
    // JetStream sets a stream's max_bytes aside when it is made, so that streams cannot outgrow the disk later.
    if (isApiError(error, storageFull) || isApiError(error, accountFull)) {
      throw new UsageError(
        `The stream ${name} of ${Math.ceil(options.maxBytes / 1024 ** 2)} MiB does not fit the room that JetStream may use: raise max_file_store in the configuration of nats-server (and the disk), or lower --shard-max-bytes.`,
      );
    }
    // Another gateway created it meanwhile, with other limits.
    if (!isApiError(error, streamNameInUse)) throw error;
    const info = verified(await jsm.streams.info(name), shard);
    options.onStream?.(shard, info);
    return info;
  }
}

/** Only what correctness rests on. Size and replicas belong to the operator, who may have changed them. */
function verified(info: StreamInfo, shard: number): StreamInfo {
  const { config } = info;
  const wanted = { retention: 'limits', discard: 'new', storage: 'file' } as const;
  for (const [setting, value] of Object.entries(wanted)) {
    const actual = config[setting as keyof typeof wanted];
    if (actual !== value) {
      throw new UsageError(
        `The stream ${config.name} has ${setting} "${actual}", but must have "${value}" so that no accepted event is lost: change it with \`nats stream edit\`, or remove the stream if it is not Sluice's.`,
      );
    }
  }
  if (config.max_age !== 0) {
    throw new UsageError(
      `The stream ${config.name} drops messages by age (max_age), loaded or not: set its max_age to 0.`,
    );
  }
  if (!config.subjects?.includes(shardSubjects(shard))) {
    throw new UsageError(
      `The stream ${config.name} does not listen to ${shardSubjects(shard)}: add this subject, or remove the stream if it is not Sluice's.`,
    );
  }
  return info;
}

const isApiError = (error: unknown, code: number): boolean => error instanceof JetStreamApiError && error.code === code;

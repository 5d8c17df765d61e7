/**
 * The streams of the log: one per shard, and the setting that says how many there are.
 *
 * The number of shards is written by the first gateway of an installation, because a batch's shard is computed from it: a
 * retry must land where the first send went (docs/design.md, section 4). Later gateways read it and ignore their own option;
 * it is changed by `sluice shards` alone, which drains first (workers/shards.ts).
 */
import {
  JetStreamApiError,
  type JetStreamManager,
  jetstreamManager,
  type StreamConfig,
  type StreamInfo,
} from '@nats-io/jetstream';
import { Kvm } from '@nats-io/kv';
import type { NatsConnection } from '@nats-io/transport-node';
import { openBucket } from './buckets.js';
import { UsageError } from './errors.js';
import type { Log } from './log.js';
import { replicatesFrom, replicatesSafely } from './nats-version.js';
import { changeText, parseShardSetting, type ShardSetting, shardsKey } from './shard-setting.js';
import { parkedSubject, settingsBucket, shardStream, shardSubjects } from './subjects.js';

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

/** While no leader is elected nobody answers; asking again soon is worth more than patience. */
const answerMs = 2_500;

/** JetStream's error numbers that are told apart here. */
const streamNotFound = 10059;
const streamNameInUse = 10058;
const wrongLastSequence = 10071;
const accountFull = 10002;
const storageFull = 10047;

/**
 * Makes sure that the installation knows its number of shards and that each shard has its stream. May be called by many
 * gateways at once, and again at any time.
 * @throws UsageError when a stream of that name exists with settings that could lose events.
 * @throws Error while the number is being changed.
 */
export async function ensureLog(nc: NatsConnection, options: ShardOptions): Promise<ShardSetting> {
  refuseReplicas(nc, 'This gateway is to use', options.replicas);
  const setting = await settleShards(nc, options);
  if (setting.changing !== undefined) throw new Error(changeText(setting));
  const jsm = await jetstreamManager(nc, { checkAPI: false, timeout: answerMs });
  for (let shard = 0; shard < setting.shards; shard++) {
    const { name, num_replicas: has } = (await ensureStream(jsm, shard, setting.epoch, options)).config;
    refuseReplicas(nc, `The stream ${name} has`, has);
    // Replicas of streams are the operator's to change: it moves all of their messages.
    if (has < options.replicas) {
      options.log?.warn(
        { stream: name, has, wanted: options.replicas },
        `the stream has fewer replicas than --replicas says: nats stream edit ${name} --replicas ${options.replicas}`,
      );
    }
  }
  return setting;
}

/** {@link ensureLog}, for those who want the number alone. */
export const ensureShards = async (nc: NatsConnection, options: ShardOptions): Promise<number> =>
  (await ensureLog(nc, options)).shards;

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
export const readShards = async (nc: NatsConnection): Promise<number | undefined> =>
  (await readShardSetting(nc))?.shards;

/** The setting as it is now, or undefined when no gateway has ever started. */
export async function readShardSetting(nc: NatsConnection): Promise<ShardSetting | undefined> {
  const kv = await new Kvm(nc).open(settingsBucket);
  try {
    const entry = await kv.get(shardsKey);
    return entry === null ? undefined : parseShardSetting(entry.string());
  } catch (error) {
    if (isApiError(error, streamNotFound)) return undefined;
    throw error;
  }
}

/**
 * Looks at the setting again and again: a watch can be lost with a server without a word, and a second is soon enough.
 * @returns ends it
 */
export function followShards(nc: NatsConnection, log: Log, onSetting: (setting: ShardSetting) => void): () => void {
  let timer: NodeJS.Timeout | undefined;
  let closed = false;
  const look = async (): Promise<void> => {
    try {
      const setting = await readShardSetting(nc);
      if (setting !== undefined && !closed) onSetting(setting);
    } catch (error) {
      // NATS is away, or the setting cannot be read: the last one holds.
      log.debug({ error: String(error) }, 'cannot look at the number of shards');
    }
    if (!closed && !nc.isClosed()) timer = setTimeout(() => void look(), followMs).unref();
  };
  timer = setTimeout(() => void look(), followMs).unref();
  return () => {
    closed = true;
    clearTimeout(timer);
  };
}

const followMs = 1_000;

async function settleShards(nc: NatsConnection, options: ShardOptions): Promise<ShardSetting> {
  const kv = await openBucket(nc, settingsBucket, {
    replicas: options.replicas,
    onFewer: (bucket, has, error) =>
      options.log?.warn({ bucket, has, error: String(error) }, 'the bucket has fewer replicas'),
    history: 1,
  });
  const known = await kv.get(shardsKey);
  if (known !== null) return parseShardSetting(known.string());
  try {
    await kv.create(shardsKey, String(options.shards));
    return { shards: options.shards, epoch: 1 };
  } catch (error) {
    // Another gateway was first.
    if (!isApiError(error, wrongLastSequence)) throw error;
    const winner = await kv.get(shardsKey);
    if (winner === null) throw error;
    return parseShardSetting(winner.string());
  }
}

async function ensureStream(
  jsm: JetStreamManager,
  shard: number,
  epoch: number,
  options: ShardOptions,
): Promise<StreamInfo> {
  const name = shardStream(shard);
  try {
    const info = verified(await jsm.streams.info(name), shard, epoch);
    options.onStream?.(shard, info);
    return info;
  } catch (error) {
    if (!isApiError(error, streamNotFound)) throw error;
  }
  try {
    const made = await jsm.streams.add(streamConfig(shard, shardSubjects(shard, epoch), options));
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
    const info = verified(await jsm.streams.info(name), shard, epoch);
    options.onStream?.(shard, info);
    return info;
  }
}

/** A shard's stream as it is made. */
export const streamConfig = (
  shard: number,
  subject: string,
  { maxBytes, replicas }: Pick<ShardOptions, 'maxBytes' | 'replicas'>,
) =>
  ({
    name: shardStream(shard),
    subjects: [subject],
    retention: 'limits',
    // Full means "slow down", never "drop the oldest".
    discard: 'new',
    storage: 'file',
    max_bytes: maxBytes,
    num_replicas: replicas,
    // Nothing relies on it (it forgets on restart), so it may be as short as JetStream allows: 100 ms, in ns.
    duplicate_window: 100_000_000,
    // Readers may fetch from any replica.
    allow_direct: true,
  }) as const satisfies Partial<StreamConfig>;

/** Only what correctness rests on. Size and replicas belong to the operator, who may have changed them. */
function verified(info: StreamInfo, shard: number, epoch: number): StreamInfo {
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
  if (config.subjects?.includes(parkedSubject(shard))) {
    throw new Error(`the stream ${config.name} is set aside: the number of shards was changed a moment ago`);
  }
  if (!config.subjects?.includes(shardSubjects(shard, epoch))) {
    throw new UsageError(
      `The stream ${config.name} does not listen to ${shardSubjects(shard, epoch)}: add this subject, or remove the stream if it is not Sluice's.`,
    );
  }
  return info;
}

const isApiError = (error: unknown, code: number): boolean => error instanceof JetStreamApiError && error.code === code;

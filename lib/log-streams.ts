/**
 * Makes the streams of the log, one per shard, and checks them before use. shard-number.ts says how many there are.
 */
import { type JetStreamManager, jetstreamManager, type StreamConfig, type StreamInfo } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/transport-node';
import { UsageError } from './errors.js';
import { isJetStreamError, isStreamMissing } from './jetstream-errors.js';
import type { Logger } from './logger.js';
import { replicatesFrom, replicatesSafely } from './nats-version.js';
import { settleShards } from './shard-number.js';
import { changeText, type ShardSetting } from './shard-setting.js';
import { parkedSubject, shardStream, shardSubjects } from './subjects.js';
import { MiB } from './units.js';

export interface ShardOptions {
  /** Shards of a new installation; one that exists keeps its number. */
  readonly shards: number;
  /** JetStream replicas of streams and buckets that are created. */
  readonly replicas: number;
  /** Most bytes of a stream that is created. */
  readonly maxBytes: number;
  /** Called for each stream that was found or made. */
  readonly onStream?: (shard: number, info: StreamInfo) => void;
  readonly logger?: Logger;
}

/**
 * Identity of a stream, for the `_stream` column: the moment it was made. The stream's description keeps it, because a single
 * nats-server (2.9.10; mended in August 2026) tells another moment after a restart, a change of the stream's settings and one
 * more restart.
 */
export const generationOf = (info: Pick<StreamInfo, 'created' | 'config'>): string =>
  pinnedPattern.exec(info.config.description ?? '')?.[1] ?? info.created.replace(/[-:]/g, '');

const pinnedPattern = /\bgeneration (\d{8}T\d{6}(?:\.\d+)?Z)/;

/** The description that keeps the generation, after what an operator wrote there. Goes along with every change of settings. */
export function pinned(info: Pick<StreamInfo, 'created' | 'config'>): { readonly description: string } {
  const { description = '' } = info.config;
  if (pinnedPattern.test(description)) return { description };
  return { description: `${description === '' ? '' : `${description} `}generation ${generationOf(info)}` };
}

/** While no leader is elected no server answers; asking again soon is worth more than patience. */
const answerMs = 2_500;

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
      options.logger?.warn(
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

/** Makes sure that a shard's stream is there, and looks at it. @throws UsageError when its settings could lose events */
export async function ensureStream(
  jsm: JetStreamManager,
  shard: number,
  epoch: number,
  options: ShardOptions,
): Promise<StreamInfo> {
  const name = shardStream(shard);
  try {
    const info = verified(await jsm.streams.info(name), shard, epoch);
    options.onStream?.(shard, info);
    await pin(jsm, info, options.logger);
    return info;
  } catch (error) {
    if (!isStreamMissing(error)) throw error;
  }
  try {
    const made = await jsm.streams.add(streamConfig(shard, shardSubjects(shard, epoch), options));
    await pin(jsm, made, options.logger);
    options.onStream?.(shard, made);
    return made;
  } catch (error) {
    // JetStream sets a stream's max_bytes aside when it is made, so that streams cannot outgrow the disk later.
    if (isJetStreamError(error, 'storageResourcesExceeded', 'accountResourcesExceeded')) {
      throw new UsageError(
        `The stream ${name} of ${Math.ceil(options.maxBytes / MiB)} MiB does not fit the room that JetStream may use: raise max_file_store in the configuration of nats-server (and the disk), or lower --shard-max-bytes.`,
      );
    }
    // Another gateway created it meanwhile, with other limits.
    if (!isJetStreamError(error, 'streamNameInUse')) throw error;
    const info = verified(await jsm.streams.info(name), shard, epoch);
    options.onStream?.(shard, info);
    return info;
  }
}

/** What cannot be written now is written the next time: the generation is the same until then. */
async function pin(jsm: JetStreamManager, info: StreamInfo, logger: Logger | undefined): Promise<void> {
  const { name, description: has } = info.config;
  const { description } = pinned(info);
  if (description === has) return;
  try {
    await jsm.streams.update(name, { description });
  } catch (error) {
    logger?.warn(
      { stream: name, error: String(error) },
      'cannot keep the generation of the stream in its description yet',
    );
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

function verified(info: StreamInfo, shard: number, epoch: number): StreamInfo {
  const problem = streamProblem(info, shard, epoch);
  if (problem !== undefined) throw new UsageError(problem);
  return info;
}

/**
 * Why gateways must not publish to this stream, and what to do; undefined when they may. Only what correctness rests on: size
 * and replicas belong to the operator, who may have changed them.
 */
export function streamProblem(
  { config }: Pick<StreamInfo, 'config'>,
  shard: number,
  epoch: number,
): string | undefined {
  const { name, subjects = [] } = config;
  const wanted = { retention: 'limits', discard: 'new', storage: 'file' } as const;
  for (const [setting, value] of Object.entries(wanted)) {
    const actual = config[setting as keyof typeof wanted];
    if (actual !== value) {
      return `The stream ${name} has ${setting} "${actual}", but must have "${value}" so that no accepted event is lost: change it with \`nats stream edit\`, or remove the stream if it is not Sluice's.`;
    }
  }
  if (config.max_age !== 0) {
    return `The stream ${name} drops messages by age (max_age), loaded or not: set its max_age to 0.`;
  }
  // Such a stream makes room by dropping the oldest message of the subject, whatever its discard policy.
  if (config.max_msgs_per_subject > 0) {
    return `The stream ${name} drops messages of a tenant beyond max_msgs_per_subject, loaded or not: set it to -1.`;
  }
  if (config.no_ack === true) {
    return `The stream ${name} acknowledges nothing (no_ack), so nothing can be accepted: set its no_ack to false.`;
  }
  if (config.sealed === true) {
    return (
      `The stream ${name} is sealed and takes no batches any more, which cannot be undone. Workers go on loading it. When ` +
      `\`sluice shards\` says that all of it is loaded: nats stream rm ${name}. Once a gateway has made it again (at the next batch for it, or when a gateway starts): sluice shards accept ${shard}.`
    );
  }
  if (subjects.includes(parkedSubject(shard))) {
    return (
      `The stream ${name} is set aside: a change of the number of shards or a repair is at work, or was interrupted ` +
      '(then run it again: `sluice shards` tells which).'
    );
  }
  if (!subjects.includes(shardSubjects(shard, epoch))) {
    return `The stream ${name} does not listen to ${shardSubjects(shard, epoch)}: \`sluice shards rebuild\` mends that. Remove the stream if it is not Sluice's.`;
  }
  return undefined;
}

/**
 * The number of shards of the installation: read, followed, and held against the streams.
 *
 * The first gateway writes it, because a batch's shard is computed from it: a retry must land where the first send went
 * (docs/architecture.md). Later gateways read it and ignore their own option. `sluice shards` alone changes it, and drains first
 * (workers/ledger/shards.ts). A number that was edited by hand is refused by gateways and workers alike: a gateway that took it
 * up would acknowledge events into streams that no worker loads.
 */
import { type JetStreamManager, jetstreamManager, type StreamInfo } from '@nats-io/jetstream';
import { type KV, type KvEntry, Kvm } from '@nats-io/kv';
import type { NatsConnection } from '@nats-io/nats-core';
import { openBucket } from './buckets.js';
import { UsageError } from './errors.js';
import { isJetStreamError, isStreamMissing } from './jetstream-errors.js';
import type { Logger } from './logger.js';
import { formatShardSetting, readSetting, rebuildAdvice, type ShardSetting, shardsKey } from './shard-setting.js';
import { epochOf, settingsBucket, shardOfStream } from './subjects.js';

const answerMs = 2_500;
const followMs = 1_000;

/** A stream EV_<shard>, of any maker. */
export interface ShardStream {
  readonly shard: number;
  readonly info: StreamInfo;
  /** Of the subjects that it listens to; undefined when they are none of a shard's. */
  readonly epoch: number | undefined;
}

/** All of them, by shard. */
export async function shardStreams(jsm: Pick<JetStreamManager, 'streams'>): Promise<ShardStream[]> {
  const found: ShardStream[] = [];
  for await (const info of jsm.streams.list()) {
    const shard = shardOfStream(info.config.name);
    if (shard !== undefined) found.push({ shard, info, epoch: epochOf(shard, info.config.subjects ?? []) });
  }
  return found.sort((a, b) => a.shard - b.shard);
}

/** The entry of the number; undefined when it, or its bucket, is not there. */
export async function shardsEntry(kv: KV): Promise<KvEntry | undefined> {
  try {
    const entry = await kv.get(shardsKey);
    return entry === null || entry.operation !== 'PUT' ? undefined : entry;
  } catch (error) {
    if (isStreamMissing(error)) return undefined;
    throw error;
  }
}

/**
 * The setting in this text, if it is to be believed.
 * @param text undefined when there is none
 * @returns undefined when there is neither a setting nor a stream: no gateway has ever started
 * @throws UsageError when it was edited by hand or lost
 */
export async function trustedSetting(
  jsm: Pick<JetStreamManager, 'streams'>,
  text: string | undefined,
): Promise<ShardSetting | undefined> {
  if (text === undefined) {
    const names = (await shardStreams(jsm)).map(({ info }) => info.config.name);
    if (names.length === 0) return undefined;
    throw new UsageError(
      `The number of shards is lost (the key "${shardsKey}" of the bucket ${settingsBucket}), but there are streams of shards ` +
        `(${names.slice(0, 8).join(', ')}${names.length > 8 ? ', …' : ''}): \`sluice shards rebuild\` writes it again from them. ` +
        "Remove the streams if they are not Sluice's.",
    );
  }
  const { checked, ...setting } = readSetting(text);
  if (checked || setting.changing !== undefined) return setting;
  const streams = await shardStreams(jsm);
  const listening = streams.filter(({ epoch }) => epoch === setting.epoch).map(({ shard }) => shard);
  if (streams.length === 0 || (listening.length === setting.shards && listening.at(-1) === setting.shards - 1)) {
    return setting;
  }
  throw new UsageError(
    `The number of shards was edited by hand: the setting says ${setting.shards} (epoch ${setting.epoch}), but the streams that listen ` +
      `are ${streamsText(streams)}. Gateways and workers do not take that up: ${rebuildAdvice}.`,
  );
}

function streamsText(streams: readonly ShardStream[]): string {
  const listening = streams.filter(({ epoch }) => epoch !== undefined).slice(0, 8);
  if (listening.length === 0) return 'none';
  return listening.map(({ info, epoch }) => `${info.config.name} (epoch ${epoch})`).join(', ');
}

/** The number of shards of the installation, or undefined when no gateway has ever started. @throws UsageError as below */
export const readShards = async (nc: NatsConnection): Promise<number | undefined> =>
  (await readShardSetting(nc))?.shards;

/**
 * The setting as it is now, or undefined when no gateway has ever started.
 * @throws UsageError when it was edited by hand or lost
 */
export async function readShardSetting(nc: NatsConnection): Promise<ShardSetting | undefined> {
  const kv = await new Kvm(nc).open(settingsBucket);
  const jsm = await jetstreamManager(nc, { checkAPI: false, timeout: answerMs });
  return await trustedSetting(jsm, (await shardsEntry(kv))?.string());
}

/**
 * Looks at the setting again and again: a watch can be lost with a server without a word, and a second is soon enough.
 * @param onRefused told in each look for as long as the setting is edited or lost
 * @returns ends it
 */
export function followShards(
  nc: NatsConnection,
  logger: Logger,
  onSetting: (setting: ShardSetting) => void,
  onRefused: (reason: string) => void = () => undefined,
): () => void {
  let timer: NodeJS.Timeout | undefined;
  let closed = false;
  const look = async (): Promise<void> => {
    try {
      const setting = await readShardSetting(nc);
      if (setting !== undefined && !closed) onSetting(setting);
    } catch (error) {
      if (error instanceof UsageError) {
        if (!closed) onRefused(error.message);
      } else {
        // NATS is away: the last one holds.
        logger.debug({ error: String(error) }, 'cannot look at the number of shards');
      }
    }
    if (!closed && !nc.isClosed()) timer = setTimeout(() => void look(), followMs).unref();
  };
  timer = setTimeout(() => void look(), followMs).unref();
  return () => {
    closed = true;
    clearTimeout(timer);
  };
}

export interface SettleOptions {
  /** Shards of a new installation. */
  readonly shards: number;
  readonly replicas: number;
  readonly logger?: Logger | undefined;
}

/**
 * The setting, written when there is none yet. May be called by many gateways at once.
 * @throws UsageError when it was edited by hand or lost
 */
export async function settleShards(nc: NatsConnection, options: SettleOptions): Promise<ShardSetting> {
  const kv = await openBucket(nc, settingsBucket, {
    replicas: options.replicas,
    onFewer: (bucket, has, error) =>
      options.logger?.warn({ bucket, has, error: String(error) }, 'the bucket has fewer replicas'),
    history: 1,
  });
  const jsm = await jetstreamManager(nc, { checkAPI: false, timeout: answerMs });
  const entry = await shardsEntry(kv);
  const known = await trustedSetting(jsm, entry?.string());
  if (known !== undefined && entry !== undefined) {
    if (known.changing === undefined && !readSetting(entry.string()).checked) await vouch(kv, known, entry.revision);
    return known;
  }
  const first = { shards: options.shards, epoch: 1 };
  try {
    await kv.create(shardsKey, formatShardSetting(first));
    return first;
  } catch (error) {
    // Another gateway was first.
    if (!isJetStreamError(error, 'wrongLastSequence')) throw error;
    const winner = await trustedSetting(jsm, (await shardsEntry(kv))?.string());
    if (winner === undefined) throw error;
    return winner;
  }
}

/** An older version's setting, which the streams agree with, gets the check. */
async function vouch(kv: KV, setting: ShardSetting, revision: number): Promise<void> {
  try {
    await kv.update(shardsKey, formatShardSetting(setting), revision);
  } catch (error) {
    // Another gateway did it, or a command changes the number.
    if (!isJetStreamError(error, 'wrongLastSequence')) throw error;
  }
}

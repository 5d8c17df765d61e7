/**
 * `sluice shards rebuild`: writes the number of shards again when it was edited by hand or lost, from the subjects that the
 * streams listen to, and lets streams that were left without their subjects listen again.
 *
 *   REBUILD-1  The streams that listen to subjects of the newest epoch say what the number is: a change opens them last (SHARD-6), and in order.
 *   REBUILD-2  When no stream listens, the log was drained (SHARD-3, SHARD-4), so any number is right. Its epoch must be one that never was: the
 *       seconds since 1970 are greater than any count.
 *   REBUILD-3  What was accepted of streams made again is in the same bucket, and lost with it: `sluice shards` shows what waits again.
 */
import type { JetStreamManager } from '@nats-io/jetstream';
import type { KV } from '@nats-io/kv';
import type { NatsConnection } from '@nats-io/nats-core';
import { openBucket } from '../../lib/buckets.js';
import { UsageError } from '../../lib/errors.js';
import type { Logger } from '../../lib/logger.js';
import { type ShardStream, shardStreams, shardsEntry, trustedSetting } from '../../lib/shard-number.js';
import { changeText, formatShardSetting, type ShardSetting, shardsKey } from '../../lib/shard-setting.js';
import { parkedSubject, settingsBucket, shardSubjects } from '../../lib/subjects.js';
import { relisten } from './shards.js';

export interface RebuildOptions {
  readonly nc: NatsConnection;
  readonly jsm: JetStreamManager;
  /** The number that is wanted when the streams do not say one; 0: as many as there are. */
  readonly wanted: number;
  readonly logger: Logger;
}

export interface Rebuilt {
  readonly setting: ShardSetting;
  /** The setting was written; otherwise it was right. */
  readonly written: boolean;
  /** Streams that listen again. */
  readonly opened: readonly string[];
}

/** @throws UsageError when the streams do not say the number, or the setting is right and another one is wanted */
export async function rebuildShards(options: RebuildOptions): Promise<Rebuilt> {
  const { nc, jsm, wanted, logger } = options;
  const streams = await shardStreams(jsm);
  if (streams.length === 0) throw new UsageError('There is no stream of a shard: nothing to rebuild the number from.');
  const kv = await openBucket(nc, settingsBucket, {
    replicas: Math.max(...streams.map(({ info }) => info.config.num_replicas)),
    onFewer: (bucket, has, error) =>
      logger.warn({ bucket, has, error: String(error) }, 'the bucket has fewer replicas'),
    history: 1,
  });
  const entry = await shardsEntry(kv);
  const trusted = await trustedSetting(jsm, entry?.string()).catch((error: unknown) => {
    if (error instanceof UsageError) return undefined;
    throw error;
  });
  if (trusted?.changing !== undefined) throw new UsageError(`Now ${changeText(trusted)}.`);
  const setting = trusted ?? numberFrom(streams, wanted);
  if (wanted > 0 && wanted !== setting.shards) {
    throw new UsageError(
      `The ${trusted === undefined ? 'streams' : 'setting and the streams'} say that there are ${setting.shards} shards. ` +
        `To have ${wanted}, rebuild without --set first, then \`sluice shards --set ${wanted}\`.`,
    );
  }
  if (trusted === undefined) await write(kv, setting, entry?.revision);
  return { setting, written: trusted === undefined, opened: await open(jsm, streams, setting) };
}

/** REBUILD-1, REBUILD-2. */
function numberFrom(streams: readonly ShardStream[], wanted: number): ShardSetting {
  const epoch = Math.max(...streams.map((stream) => stream.epoch ?? 0));
  if (epoch > 0) {
    const last = streams.findLast((stream) => stream.epoch === epoch);
    return { shards: (last?.shard ?? 0) + 1, epoch };
  }
  const parked = streams.filter(isParked);
  if (parked.length === 0) {
    throw new UsageError("No stream EV_… has subjects of a shard: are they Sluice's? `nats stream ls` shows them.");
  }
  return { shards: wanted > 0 ? wanted : (parked.at(-1)?.shard ?? 0) + 1, epoch: Math.floor(Date.now() / 1000) };
}

const isParked = ({ shard, info }: ShardStream): boolean =>
  info.config.subjects?.includes(parkedSubject(shard)) === true;

async function write(kv: KV, setting: ShardSetting, revision: number | undefined): Promise<void> {
  const text = formatShardSetting(setting);
  if (revision === undefined) await kv.create(shardsKey, text);
  else await kv.update(shardsKey, text, revision);
}

async function open(
  jsm: JetStreamManager,
  streams: readonly ShardStream[],
  { shards, epoch }: ShardSetting,
): Promise<string[]> {
  const opened: string[] = [];
  for (const stream of streams) {
    const { name } = stream.info.config;
    if (stream.shard >= shards || stream.epoch === epoch || stream.info.config.sealed === true) continue;
    if (stream.epoch === undefined && !isParked(stream)) {
      throw new UsageError(`The stream ${name} has no subject of a shard: it is not Sluice's. Remove or rename it.`);
    }
    await relisten(jsm, stream.shard, shardSubjects(stream.shard, epoch));
    opened.push(name);
  }
  return opened;
}

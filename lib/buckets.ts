/**
 * KV buckets, with as many replicas as the installation has.
 *
 * Reads ask the bucket's leader: a replica may answer with what was true a moment ago, and a number of shards that was true
 * a moment ago sends a retry to another shard than its first send.
 */
import { type JetStreamManager, jetstreamManager } from '@nats-io/jetstream';
import { type KV, Kvm, type KvOptions } from '@nats-io/kv';
import type { NatsConnection } from '@nats-io/nats-core';
import { isStreamMissing } from './jetstream-errors.js';
import { streamInfo } from './stream-info.js';
import { settingsBucket } from './subjects.js';

const growWithinMs = 10_000;

export interface BucketOptions extends Partial<Omit<KvOptions, 'replicas' | 'allow_direct'>> {
  /** JetStream replicas, at least. A bucket that has fewer gets them; one that has more keeps them. */
  readonly replicas: number;
  /** It has fewer, and the log's servers do not give it more now; it is used as it is. */
  readonly onFewer: (bucket: string, has: number, error: unknown) => void;
}

/** Opens a bucket, and makes it when there is none. */
export async function openBucket(nc: NatsConnection, name: string, options: BucketOptions): Promise<KV> {
  const { onFewer, ...settings } = options;
  const kv = await new Kvm(nc).create(name, { ...settings, allow_direct: false });
  const { replicas: has, streamInfo: info } = await kv.status();
  if (has < options.replicas) {
    try {
      const jsm = await jetstreamManager(nc, { checkAPI: false });
      await jsm.streams.update(info.config.name, { num_replicas: options.replicas });
      await untilGrown(jsm, info.config.name, options.replicas);
    } catch (error) {
      onFewer(name, has, error);
    }
  }
  return kv;
}

/**
 * Waits, within bounds, until the new replicas have everything: a consumer that is made meanwhile was seen to deliver nothing for half
 * a minute (nats-server 2.14.9).
 */
async function untilGrown(jsm: JetStreamManager, stream: string, replicas: number): Promise<void> {
  const until = Date.now() + growWithinMs;
  while (Date.now() < until) {
    const others = (await streamInfo(jsm, stream).catch(() => undefined))?.cluster?.replicas ?? [];
    if (others.length >= replicas - 1 && others.every(({ current }) => current)) return;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Replicas of the settings bucket, which every gateway sees to; 1 when no gateway has ever started. */
export async function installationReplicas(nc: NatsConnection): Promise<number> {
  try {
    return (await (await new Kvm(nc).open(settingsBucket)).status()).replicas;
  } catch (error) {
    if (isStreamMissing(error)) return 1;
    throw error;
  }
}

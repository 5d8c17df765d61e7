/**
 * KV buckets, with as many replicas as the installation has.
 *
 * Reads ask the bucket's leader: a replica may answer with what was true a moment ago, and a number of shards that was true
 * a moment ago sends a retry to another shard than its first send.
 */
import { JetStreamApiError, jetstreamManager } from '@nats-io/jetstream';
import { type KV, Kvm, type KvOptions } from '@nats-io/kv';
import type { NatsConnection } from '@nats-io/nats-core';
import { settingsBucket } from './subjects.js';

const streamNotFound = 10059;

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
  const { replicas: has, streamInfo } = await kv.status();
  if (has < options.replicas) {
    try {
      const jsm = await jetstreamManager(nc, { checkAPI: false });
      await jsm.streams.update(streamInfo.config.name, { num_replicas: options.replicas });
    } catch (error) {
      onFewer(name, has, error);
    }
  }
  return kv;
}

/** Replicas of the settings bucket, which every gateway sees to; 1 when no gateway has ever started. */
export async function installationReplicas(nc: NatsConnection): Promise<number> {
  try {
    return (await (await new Kvm(nc).open(settingsBucket)).status()).replicas;
  } catch (error) {
    if (error instanceof JetStreamApiError && error.code === streamNotFound) return 1;
    throw error;
  }
}

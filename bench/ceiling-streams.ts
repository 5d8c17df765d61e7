/**
 * Streams of the benchmark's own on the same nats-server, with the settings of the gateway's: what the raw publisher
 * fills, so that neither it nor the gateway finds the other's messages in its way.
 */
import { statfsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { jetstreamManager } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/transport-node';
import { ensureShards } from '../lib/log-streams.js';
import { shardStream } from '../lib/subjects.js';
import { GiB } from '../lib/units.js';

/** First token of their subjects, and of their names. */
export const ceilingRoot = 'ceiling';

/** More than any phase writes. */
const maxShardBytes = 24 * GiB;
/** JetStream promises at most three quarters of the free disk to its streams: these take less, shards of both sides together. */
const shareOfDisk = 0.6;

/** Without a worker nothing is trimmed: a shard must hold a whole phase. */
export function untrimmedShardBytes(shards: number): number {
  const { bavail, bsize } = statfsSync(tmpdir());
  return Math.min(maxShardBytes, Math.floor((bavail * bsize * shareOfDisk) / (2 * shards)));
}

const ceilingStream = (shard: number): string => `CEILING_${shard}`;

/** @returns the number of shards, which the installation may know better than the caller */
export async function ensureCeilingStreams(nc: NatsConnection, wanted: number): Promise<number> {
  const shards = await ensureShards(nc, { shards: wanted, replicas: 1, maxBytes: untrimmedShardBytes(wanted) });
  const jsm = await jetstreamManager(nc);
  for (let shard = 0; shard < shards; shard++) {
    const { config } = await jsm.streams.info(shardStream(shard));
    await jsm.streams.add({ ...config, name: ceilingStream(shard), subjects: [`${ceilingRoot}.${shard}.>`] });
  }
  return shards;
}

/** Empties all streams, so that a phase does not pay for writing back what the one before left. */
export async function emptyStreams(nc: NatsConnection, shards: number): Promise<void> {
  const jsm = await jetstreamManager(nc);
  for (let shard = 0; shard < shards; shard++) {
    await jsm.streams.purge(shardStream(shard));
    await jsm.streams.purge(ceilingStream(shard));
  }
}

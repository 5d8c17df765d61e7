/**
 * Messages as a gateway would publish them, for tests of the loader.
 */
import { create, toBinary } from '@bufbuild/protobuf';
import { JetStreamApiError, type JetStreamClient } from '@nats-io/jetstream';
import { StoredBatchSchema } from '#gen/sluice/log/v1/log_pb.js';
import { shardOf } from '../../lib/contract/shard.js';
import { batchSubject } from '../../lib/subjects.js';
import { encodeBatch, makeBatch, type Random } from '../../lib/testing/batches.js';

export interface BatchToStore {
  readonly batchId: string;
  readonly tenant: string;
  readonly events: number;
  /** @default 1 */
  readonly attempt?: number;
  /** Encoded EventBatch; made from `events` realistic events when not given. */
  readonly bytes?: Uint8Array;
  readonly traceparent?: string;
  readonly unknownFields?: boolean;
}

/** A length-delimited StoredBatch: metadata first, then the encoded events. */
export function storedPayload(random: Random, stored: BatchToStore): Uint8Array {
  const meta = toBinary(
    StoredBatchSchema,
    create(StoredBatchSchema, {
      tenant: stored.tenant,
      batchId: stored.batchId,
      attempt: stored.attempt ?? 1,
      receivedAt: { seconds: BigInt(Math.floor(Date.now() / 1000)), nanos: 0 },
      eventCount: stored.events,
      contract: 'test',
      unknownFields: stored.unknownFields ?? false,
      traceparent: stored.traceparent ?? '',
      client: 'test/1',
    }),
  );
  const events = stored.bytes ?? encodeBatch(makeBatch(random, stored.events));
  const size: number[] = [];
  for (let rest = meta.length + events.length; ; rest = Math.floor(rest / 128)) {
    size.push(rest < 128 ? rest : (rest % 128) + 128);
    if (rest < 128) break;
  }
  return Buffer.concat([Uint8Array.from(size), meta, events]);
}

/** Publishes a batch to its shard, as often as it takes. */
export async function publishStored(
  js: JetStreamClient,
  shards: number,
  stored: BatchToStore,
  payload: Uint8Array,
): Promise<number> {
  const shard = shardOf(stored.tenant, stored.batchId, shards);
  for (;;) {
    try {
      await js.publish(batchSubject(shard, stored.tenant), payload, { timeout: 10_000 });
      return shard;
    } catch (error) {
      // The stream is full: the loaders make room.
      if (!(error instanceof JetStreamApiError)) throw error;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }
}

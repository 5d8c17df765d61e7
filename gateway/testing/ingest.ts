/**
 * A real ingest core on a real nats-server for one test, and what the log holds afterwards.
 */
import { BinaryReader, sizeDelimitedDecodeStream } from '@bufbuild/protobuf/wire';
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/transport-node';
import * as assert from 'uvu/assert';
import { type StoredBatch, StoredBatchSchema } from '#gen/sluice/log/v1/log_pb.js';
import { SluiceError } from '../../lib/errors.js';
import { silentLogger } from '../../lib/logger.js';
import { connectNats } from '../../lib/nats.js';
import { createRandom, encodeBatch, makeBatch } from '../../lib/testing/batches.js';
import type { TestNats } from '../../lib/testing/nats.js';
import { until } from '../../lib/testing/until.js';
import { KiB, MiB } from '../../lib/units.js';
import {
  createIngest,
  type Ingest,
  type IngestInput,
  type IngestOptions,
  type IngestResult,
} from '../ingest/ingest.js';
import { createGatewayMetrics, type GatewayGauges, type PublishEnd } from '../metrics.js';

export const ingestConfig: IngestOptions['config'] = {
  shards: 2,
  replicas: 1,
  shardMaxBytes: 512 * MiB,
  maxBatchBytes: MiB,
  maxBatchEvents: 10_000,
  maxBytesInFlight: 48 * MiB,
  maxTenantBytesInFlight: 32 * MiB,
  maxStreamBytesInFlight: 8 * MiB,
  publishWindow: 32,
  publishTimeout: 5_000,
  coalesceBytes: 128 * KiB,
  coalesceDelay: 3,
};

export interface IngestSubject {
  readonly ingest: Ingest;
  /** The core's own connection. */
  readonly nc: NatsConnection;
  readonly gauges: GatewayGauges;
  /** How publishes ended, so far. */
  readonly ends: ReadonlyMap<PublishEnd, number>;
}

/** An ingest core on its own connection, ready; drained and closed at the end. */
export async function withIngest(
  nats: TestNats,
  changes: Partial<IngestOptions['config']>,
  use: (subject: IngestSubject) => Promise<void>,
): Promise<void> {
  const connecting = connectNats({ servers: nats.url, name: 'test', logger: silentLogger });
  const metrics = createGatewayMetrics();
  const ends = new Map<PublishEnd, number>();
  let gauges: Partial<GatewayGauges> = {};
  const ingest = createIngest({
    nats: connecting,
    config: { ...ingestConfig, ...changes },
    metrics: {
      ...metrics,
      published: (end, ms) => {
        ends.set(end, (ends.get(end) ?? 0) + 1);
        metrics.published(end, ms);
      },
      observe: (more) => {
        gauges = { ...gauges, ...more };
      },
    },
    logger: silentLogger,
  });
  try {
    await until('ready', () => ingest.ready);
    await use({ ingest, nc: await connecting, gauges: gauges as GatewayGauges, ends });
  } finally {
    await ingest.drain(1_000);
    await (await connecting).close();
  }
}

const random = createRandom(7);
export const largeBatch = encodeBatch(makeBatch(random, 500));
export const smallBatch = encodeBatch(makeBatch(random, 10));

export const ingestInput = (
  batchId: string,
  batch: Uint8Array = smallBatch,
  more: Partial<IngestInput> = {},
): IngestInput => ({
  tenant: 'acme',
  batch,
  batchId,
  attempt: 1,
  ...more,
});

/** Every message of the log, with its payload. */
async function messages(nats: TestNats): Promise<{ stream: string; sequence: bigint; data: Uint8Array }[]> {
  // A connection of its own: the test's one may still be on its way back from a kill.
  const nc = await connectNats({ servers: nats.url, name: 'reader', logger: silentLogger, timeoutMs: 5_000 });
  try {
    const jsm = await jetstreamManager(nc);
    const all: { stream: string; sequence: bigint; data: Uint8Array }[] = [];
    for await (const { config: stream, state } of jsm.streams.list()) {
      if (!stream.name.startsWith('EV_') || state.messages === 0) continue;
      const consumer = await jetstream(nc).consumers.get(stream.name);
      for await (const message of await consumer.consume({ max_bytes: 8 * MiB })) {
        all.push({ stream: stream.name, sequence: BigInt(message.seq), data: message.data });
        if (message.info.pending === 0) break;
      }
    }
    return all;
  } finally {
    await nc.close();
  }
}

/** Every message of the log, by stream and sequence, decoded with the generated type. */
export async function stored(nats: TestNats): Promise<{ stream: string; sequence: bigint; batches: StoredBatch[] }[]> {
  return Promise.all(
    (await messages(nats)).map(async ({ stream, sequence, data }) => {
      const batches: StoredBatch[] = [];
      const source = (async function* () {
        yield data;
      })();
      for await (const batch of sizeDelimitedDecodeStream(StoredBatchSchema, source)) batches.push(batch);
      return { stream, sequence, batches };
    }),
  );
}

/** The batch ids of a payload; events are skipped, not decoded: the fault tests store millions of them. */
function batchIds(data: Uint8Array): string[] {
  const ids: string[] = [];
  const reader = new BinaryReader(data);
  while (reader.pos < reader.len) {
    const end = reader.uint32() + reader.pos;
    while (reader.pos < end) {
      const [field, wireType] = reader.tag();
      if (field === 3) ids.push(reader.string());
      else reader.skip(wireType, field);
    }
  }
  return ids;
}

/** Runs `publish` for each id and keeps what became of it. */
export async function outcomes(
  promises: Promise<IngestResult>[],
): Promise<{ acked: IngestResult[]; failed: SluiceError[] }> {
  const acked: IngestResult[] = [];
  const failed: SluiceError[] = [];
  for (const result of await Promise.allSettled(promises)) {
    if (result.status === 'fulfilled') acked.push(result.value);
    else if (result.reason instanceof SluiceError) failed.push(result.reason);
    else throw result.reason;
  }
  return { acked, failed };
}

/** INGEST-1: each acked batch is where its position says. And the core publishes none twice by itself. */
export async function assertAllStored(nats: TestNats, acked: readonly IngestResult[]): Promise<void> {
  const ids: string[] = [];
  const places = new Set<string>();
  for (const { stream, sequence, data } of await messages(nats)) {
    for (const id of batchIds(data)) {
      ids.push(id);
      places.add(`${stream}/${sequence}/${id}`);
    }
  }
  for (const { batchId, position } of acked) {
    const place = `${position?.stream}/${position?.sequence}/${batchId}`;
    assert.ok(places.has(place), `${place} was acked and is not stored`);
  }
  assert.is(new Set(ids).size, ids.length, 'no batch is stored twice');
}

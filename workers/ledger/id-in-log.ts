/** Finds a batch or an event by its id in the log and in the dead letters, for where.ts. */
import { fromBinary } from '@bufbuild/protobuf';
import { timestampMs } from '@bufbuild/protobuf/wkt';
import type { JetStreamManager } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/nats-core';
import { type StoredBatch, StoredBatchSchema } from '#gen/sluice/log/v1/log_pb.js';
import { isStreamMissing } from '../../lib/jetstream-errors.js';
import { generationOf } from '../../lib/log-streams.js';
import type { Logger } from '../../lib/logger.js';
import { streamInfo } from '../../lib/stream-info.js';
import { shardStream } from '../../lib/subjects.js';
import { type DeadLetter, scanDead } from '../loader/dead-scan.js';
import { fingerprintOf } from '../loader/fingerprint.js';
import { scanLog } from '../loader/log-scan.js';
import { framesOf, type StoredFrame } from '../loader/stored-frames.js';
import type { LogCopy } from './copy-fates.js';

export interface LogSearch {
  readonly nc: NatsConnection;
  readonly jsm: JetStreamManager;
  /** The streams to look at. */
  readonly shards: readonly number[];
  /** Whose it may be. */
  readonly tenants: readonly string[];
  /** `tenants` is just the one that was asked for. */
  readonly oneTenant: boolean;
  readonly progress: (text: string) => void;
  readonly logger: Logger;
}

export type Letter = Omit<DeadLetter, 'data'>;

/** Copies that are shown. */
const maxCopies = 1_000;
const maxLetters = 1_000_000;

const bytesOf = (data: Uint8Array): Buffer => Buffer.from(data.buffer, data.byteOffset, data.length);

/** What is found of an id in a batch of the log; undefined: nothing. */
type FoundInBatch = Pick<LogCopy, 'eventIndex' | 'receivedAtMs'>;

/** @param needle the bytes of the id: without them the batch is not decoded */
function foundIn(stored: Buffer, { batchId }: StoredFrame, id: string, needle: Buffer): FoundInBatch | undefined {
  const isBatch = batchId === id;
  if (!isBatch && !stored.includes(needle)) return undefined;
  const decoded = decodedFrom(stored);
  const eventIndex = decoded?.events.findIndex(({ eventId }) => eventId === id) ?? -1;
  if (!isBatch && eventIndex < 0) return undefined;
  const receivedAt = decoded?.receivedAt;
  return {
    eventIndex: isBatch ? undefined : eventIndex,
    receivedAtMs: receivedAt === undefined ? undefined : timestampMs(receivedAt),
  };
}

/** Undefined for bytes that cannot be decoded; when the batch was set aside for it, the reason says more. */
function decodedFrom(stored: Uint8Array): StoredBatch | undefined {
  try {
    return fromBinary(StoredBatchSchema, stored);
  } catch {
    return undefined;
  }
}

/** Copies of the batch of this id, and of those that hold an event of this id. `more`: there are more than these. */
export async function copiesOf(search: LogSearch, id: string): Promise<{ copies: LogCopy[]; more: boolean }> {
  const copies: LogCopy[] = [];
  let more = false;
  for (const shard of search.shards) {
    await eachCopy(search, shard, id, (copy) => {
      if (copies.length < maxCopies) copies.push(copy);
      else more = true;
    });
  }
  return { copies, more };
}

/** Calls back with each copy that the stream of a shard has, if there is one. */
async function eachCopy(
  { nc, jsm, tenants, oneTenant, progress, logger }: LogSearch,
  shard: number,
  id: string,
  onCopy: (copy: LogCopy) => void,
): Promise<void> {
  const stream = shardStream(shard);
  const info = await streamInfo(jsm, stream).catch((error: unknown) => {
    if (isStreamMissing(error)) return undefined;
    throw error;
  });
  if (info === undefined || info.state.messages === 0) return;
  const generation = generationOf(info);
  const needle = Buffer.from(id);
  await scanLog({
    nc,
    jsm,
    stream,
    generation,
    from: info.state.first_seq,
    to: info.state.last_seq,
    logger,
    onMessage({ sequence, timeMs, data }) {
      progress(`${stream}: message ${sequence} of ${info.state.last_seq}`);
      const bytes = bytesOf(data);
      if (!bytes.includes(needle)) return;
      for (const frame of framesOf(data)) {
        const { tenant, batchId, index, attempt, events, from, to } = frame;
        if (oneTenant && tenant !== tenants[0]) continue;
        const found = foundIn(bytes.subarray(from, to), frame, id, needle);
        if (found === undefined) continue;
        onCopy({
          ...{ tenant, batchId, stream, shard, generation, sequence, index, attempt, events },
          ...found,
          loggedAtMs: timeMs,
          from,
          to,
          print: fingerprintOf(data, { body: from, to }),
        });
      }
    },
  });
}

/** Dead letters of the batch of this id, or whose bytes have it. A copy that is there twice is shown once. */
export async function lettersOf(options: LogSearch, id: string): Promise<Letter[]> {
  const needle = Buffer.from(id);
  const letters = new Map<string, Letter>();
  await scanDead({
    nc: options.nc,
    jsm: options.jsm,
    tenant: options.oneTenant ? options.tenants[0] : undefined,
    max: maxLetters,
    onLetter({ data, ...letter }) {
      options.progress(`dead letters: ${letter.deadSequence}`);
      if (letter.batchId !== id && !bytesOf(data).includes(needle)) return;
      if (letters.size >= maxCopies) return;
      letters.set(`${letter.shard} ${letter.generation} ${letter.sequence} ${letter.index}`, letter);
    },
  });
  return [...letters.values()];
}

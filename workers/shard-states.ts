/**
 * How each shard stands, as `sluice shards` shows it: what its stream holds, how far the warehouse is, and whether a worker
 * would refuse to load it (L8).
 */
import type { JetStreamManager, StreamInfo } from '@nats-io/jetstream';
import type { KV } from '@nats-io/kv';
import { UsageError } from '../lib/errors.js';
import { generationOf } from '../lib/log-streams.js';
import { streamInfo } from '../lib/stream-info.js';
import { shardStream } from '../lib/subjects.js';
import { isStreamMissing } from './fetch.js';
import { refusal, type ShardState } from './loader.js';
import { acceptKey } from './loader-shard.js';
import type { Sink } from './loader-sink.js';
import { isReplaced } from './log-end.js';

export interface ShardStatus {
  readonly shard: number;
  readonly stream: string;
  /** Empty when the stream is missing. */
  readonly generation: string;
  readonly messages: number;
  readonly bytes: number;
  /** Last message of the stream, and the last that is in the warehouse. */
  readonly end: number;
  readonly loaded: number;
  /** Messages between the two. */
  readonly lag: number;
  /** Why workers do not load it; undefined when they may. */
  readonly stopped: string | undefined;
}

export interface ShardLook {
  readonly jsm: JetStreamManager;
  readonly sink: Pick<Sink, 'lastBlock'>;
  /** The settings bucket. */
  readonly settings: KV;
}

async function stateOf({ jsm, sink, settings }: ShardLook, shard: number, info: StreamInfo): Promise<ShardState> {
  const generation = generationOf(info);
  const last = await sink.lastBlock(shard, generation, undefined);
  const { first_seq: firstSequence, last_seq: lastSequence } = info.state;
  return {
    generation,
    firstSequence,
    lastSequence,
    ...last,
    replaced: await isReplaced(jsm, info, last),
    accepted: last.others.length > 0 && (await settings.get(acceptKey(shard)))?.string() === generation,
    carryBytes: 0,
  };
}

/** One shard. Rejects when log or warehouse cannot be reached. */
export async function shardStatus(look: ShardLook, shard: number): Promise<ShardStatus> {
  const stream = shardStream(shard);
  let info: StreamInfo;
  try {
    info = await streamInfo(look.jsm, stream);
  } catch (error) {
    if (!isStreamMissing(error)) throw error;
    const missing = 'the stream is missing; a gateway makes it anew when it starts or needs it';
    return { shard, stream, generation: '', messages: 0, bytes: 0, end: 0, loaded: 0, lag: 0, stopped: missing };
  }
  const state = await stateOf(look, shard, info);
  const { first_seq: first, last_seq: end, messages, bytes } = info.state;
  return {
    shard,
    stream,
    generation: state.generation,
    messages,
    bytes,
    end,
    loaded: state.hi,
    lag: messages === 0 ? 0 : Math.max(0, end - Math.max(state.hi, first - 1)),
    stopped: refusal(state),
  };
}

/**
 * Accepts a stream that was made anew: its messages are new ones, and may be loaded beside what the warehouse has of the old
 * stream.
 * @throws UsageError when it does not wait for that
 */
export async function acceptShard(look: ShardLook, shard: number): Promise<{ generation: string; others: string[] }> {
  const info = await streamInfo(look.jsm, shardStream(shard)).catch((error: unknown) => {
    if (isStreamMissing(error)) throw new UsageError(`There is no stream ${shardStream(shard)}.`);
    throw error;
  });
  const state = await stateOf(look, shard, info);
  const reason = refusal(state);
  if (reason === undefined)
    throw new UsageError(`Shard ${shard} does not wait to be accepted: its stream may be loaded.`);
  if (state.block > 0) throw new UsageError(`Shard ${shard} cannot go on by being accepted: ${reason}.`);
  await look.settings.put(acceptKey(shard), state.generation);
  return { generation: state.generation, others: state.others.map((other) => other.generation) };
}

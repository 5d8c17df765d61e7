/**
 * The state of each shard, as `sluice shards` shows it: what its stream holds, how far ClickHouse is, and whether a worker would refuse
 * to load it (LOAD-8).
 */
import type { JetStreamManager, StreamInfo } from '@nats-io/jetstream';
import { type KV, Kvm } from '@nats-io/kv';
import type { NatsConnection } from '@nats-io/nats-core';
import { UsageError } from '../../lib/errors.js';
import { isStreamMissing } from '../../lib/jetstream-errors.js';
import { generationOf, streamProblem } from '../../lib/log-streams.js';
import { readShardSetting, shardStreams } from '../../lib/shard-number.js';
import type { ShardSetting } from '../../lib/shard-setting.js';
import { streamInfo } from '../../lib/stream-info.js';
import { settingsBucket, shardOfKept, shardStream } from '../../lib/subjects.js';
import { StatementError } from '../clickhouse/client.js';
import type { BlockStore } from '../loader/block-store.js';
import { refusal, type ShardState } from '../loader/loader.js';
import { acceptKey } from '../loader/shard.js';
import { isReplaced } from '../reader/end.js';

export interface ShardStatus {
  readonly shard: number;
  readonly stream: string;
  /** Empty when the stream is missing. */
  readonly generation: string;
  readonly messages: number;
  readonly bytes: number;
  /** Last message of the stream, and the last that is in ClickHouse. */
  readonly end: number;
  readonly loaded: number;
  /** Messages between the two. */
  readonly lag: number;
  /** Why ClickHouse does not say how far it is: `loaded` is 0, and `lag` is all that the stream holds. */
  readonly unknown?: string | undefined;
  /** Why workers do not load it; undefined when they may. */
  readonly stopped: string | undefined;
  /** Why gateways cannot publish to it, and what to do; undefined when they can. */
  readonly closed: string | undefined;
}

export interface ShardLook {
  readonly jsm: JetStreamManager;
  readonly store: Pick<BlockStore, 'lastBlock'>;
  /** The settings bucket; undefined when it is lost, and with it what was accepted. */
  readonly settings: KV | undefined;
}

/** What the loader would find in a recovery. */
export async function stateOf(
  { jsm, store, settings }: ShardLook,
  shard: number,
): Promise<{ info: StreamInfo; state: ShardState }> {
  const stream = shardStream(shard);
  const generation = generationOf(await streamInfo(jsm, stream));
  const last = await store.lastBlock(shard, generation, undefined);
  // Asked again: what is published and loaded in between must not look like a stream that went backwards.
  const info = await streamInfo(jsm, stream);
  if (generationOf(info) !== generation) return await stateOf({ jsm, store, settings }, shard);
  const { first_seq: firstSequence, last_seq: lastSequence } = info.state;
  const state = {
    generation,
    firstSequence,
    lastSequence,
    ...last,
    replaced: await isReplaced(jsm, info, last),
    accepted: last.others.length > 0 && (await settings?.get(acceptKey(shard)))?.string() === generation,
    deferBytes: 0,
  };
  return { info, state };
}

/** No worker loads a stream beyond the number of shards. */
const beyondText = (shard: number, { shards }: ShardSetting): string =>
  `there are ${shards} shards (0 to ${shards - 1}), so no worker loads this stream: \`sluice shards mend ${shard}\` publishes ` +
  'what it holds to the shards that are loaded';

/**
 * One shard. Rejects when log or ClickHouse cannot be reached.
 * @param number undefined when it is not known, because it was edited or lost
 */
export async function shardStatus(
  look: ShardLook,
  shard: number,
  number: ShardSetting | undefined,
): Promise<ShardStatus> {
  const stream = shardStream(shard);
  let found: Awaited<ReturnType<typeof stateOf>>;
  try {
    found = await stateOf(look, shard);
  } catch (error) {
    if (!isStreamMissing(error)) throw error;
    const stopped = 'the stream is missing; a gateway makes it when it starts or needs it';
    const nothing = { generation: '', messages: 0, bytes: 0, end: 0, loaded: 0, lag: 0 };
    return { shard, stream, ...nothing, stopped, closed: undefined };
  }
  const { info, state } = found;
  const { first_seq: first, last_seq: end, messages, bytes } = info.state;
  const lag = messages === 0 ? 0 : Math.max(0, end - Math.max(state.hi, first - 1));
  const used = number === undefined || shard < number.shards;
  return {
    shard,
    stream,
    generation: state.generation,
    messages,
    bytes,
    end,
    loaded: state.hi,
    lag,
    stopped:
      refusal(state)?.replaceAll('<shard>', String(shard)) ??
      (used || number === undefined || lag === 0 ? undefined : beyondText(shard, number)),
    closed: number === undefined || !used ? undefined : streamProblem(info, shard, number.epoch),
  };
}

/** How long ClickHouse has to say how far a shard is, for a command that shows the shards, ms. */
const clickhouseMs = 10_000;

/**
 * One shard for somebody who looks: ClickHouse that is away, or lacks the table, is a finding and no failure. Rejects when the log
 * cannot be reached.
 */
export async function shownStatus(
  look: ShardLook,
  shard: number,
  number: ShardSetting | undefined,
  limitMs = clickhouseMs,
): Promise<ShardStatus> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    const text = `it does not answer for ${limitMs / 1_000} s`;
    timer = setTimeout(() => reject(new StatementError('transient', text, undefined, undefined)), limitMs);
  });
  try {
    return await Promise.race([shardStatus(look, shard, number), late]);
  } catch (error) {
    if (!(error instanceof StatementError)) throw error;
    const stream = shardStream(shard);
    const info = await streamInfo(look.jsm, stream);
    const { messages, bytes, last_seq: end } = info.state;
    const used = number !== undefined && shard < number.shards;
    return {
      shard,
      stream,
      generation: generationOf(info),
      messages,
      bytes,
      end,
      loaded: 0,
      lag: messages,
      unknown: error.message,
      stopped: undefined,
      closed: used ? streamProblem(info, shard, number.epoch) : undefined,
    };
  } finally {
    clearTimeout(timer);
  }
}

/**
 * The shards of the installation, and those beyond its number whose streams hold messages. All streams when the number is not
 * known.
 */
export async function shardsToLookAt(jsm: JetStreamManager, shards: number | undefined): Promise<number[]> {
  const there = (await shardStreams(jsm))
    .filter(({ shard, info }) => shards === undefined || (shard >= shards && info.state.messages > 0))
    .map(({ shard }) => shard);
  return [...Array.from({ length: shards ?? 0 }, (_, shard) => shard), ...there];
}

/** A line for each stream that an interrupted mend has left: what it holds is in no stream of a shard. */
export async function keptText(jsm: JetStreamManager): Promise<string[]> {
  const lines: string[] = [];
  for await (const { config, state } of jsm.streams.list()) {
    const shard = shardOfKept(config.name);
    if (shard === undefined) continue;
    lines.push(
      `the stream ${config.name} holds ${state.messages} messages of a mend that was interrupted: \`sluice shards mend ${shard}\` finishes it`,
    );
  }
  return lines;
}

/** The settings bucket; undefined when it is lost. */
export async function bucketIfThere(nc: NatsConnection): Promise<KV | undefined> {
  try {
    const kv = await new Kvm(nc).open(settingsBucket);
    await kv.status();
    return kv;
  } catch (error) {
    if (isStreamMissing(error)) return undefined;
    throw error;
  }
}

/** What the commands that look into the log begin with. */
export interface LogLook {
  /** The streams to look at, by shard. */
  readonly shards: readonly number[];
  /** Why workers do not load it; undefined when they may. */
  readonly stopped: (shard: number) => Promise<string | undefined>;
  /** The number of shards was edited or lost; a mend was interrupted. */
  readonly problems: readonly string[];
}

/** @returns undefined when no gateway has ever started */
export async function lookAtLog(
  nc: NatsConnection,
  jsm: JetStreamManager,
  store: Pick<BlockStore, 'lastBlock'>,
): Promise<LogLook | undefined> {
  const problems: string[] = [];
  const setting = await readShardSetting(nc).catch((error: unknown) => {
    if (!(error instanceof UsageError)) throw error;
    problems.push(error.message);
    return undefined;
  });
  if (setting === undefined && problems.length === 0) return undefined;
  const look = { jsm, store, settings: await bucketIfThere(nc) };
  return {
    shards: await shardsToLookAt(jsm, setting?.shards),
    stopped: async (shard) => (await shardStatus(look, shard, setting)).stopped,
    problems: [...problems, ...(await keptText(jsm))],
  };
}

/**
 * Accepts a stream that was made again: its messages are new ones, and may be loaded beside what ClickHouse has of the old
 * stream.
 * @throws UsageError when it does not wait for that
 */
export async function acceptShard(look: ShardLook, shard: number): Promise<{ generation: string; others: string[] }> {
  if (look.settings === undefined) throw new UsageError('The settings bucket is lost: first, `sluice shards rebuild`.');
  const { state } = await stateOf(look, shard).catch((error: unknown) => {
    if (isStreamMissing(error)) {
      throw new UsageError(
        `There is no stream ${shardStream(shard)}: a gateway makes it at the next batch for it, or when it starts. Run this again then.`,
      );
    }
    throw error;
  });
  const reason = refusal(state);
  if (reason === undefined)
    throw new UsageError(`Shard ${shard} does not wait to be accepted: its stream may be loaded.`);
  if (state.block > 0) throw new UsageError(`Accepting does not help shard ${shard}: ${reason}.`);
  await look.settings.put(acceptKey(shard), state.generation);
  return { generation: state.generation, others: state.others.map((other) => other.generation) };
}

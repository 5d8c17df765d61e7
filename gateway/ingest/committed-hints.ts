/**
 * Brings committed.ts what it needs from NATS: the workers' watermarks and new leaders of streams. When a worker names another stream
 * than the last one, or a log went backwards, it looks at the stream again.
 */
import { jetstreamManager } from '@nats-io/jetstream';
import type { Msg, NatsConnection } from '@nats-io/transport-node';
import { generationOf } from '../../lib/log-streams.js';
import type { Logger } from '../../lib/logger.js';
import { maxShards } from '../../lib/shard-setting.js';
import { streamInfo } from '../../lib/stream-info.js';
import { committedSubject, committedSubjects, leaderSubject, shardStream } from '../../lib/subjects.js';
import type { CommitWatch } from './committed.js';

/** How often a stream is looked at again at most, ms: a worker that lags behind speaks of the old one for a while. */
const lookMs = 1_000;
const longestHint = 256;

/** @returns the un-subscriber */
export function followHints(nc: NatsConnection, commits: CommitWatch, logger: Logger): () => void {
  const lookedAt: number[] = [];
  let closed = false;

  const look = async (shard: number): Promise<void> => {
    const jsm = await jetstreamManager(nc, { checkAPI: false });
    const info = await streamInfo(jsm, shardStream(shard));
    if (!closed) commits.seen(shard, generationOf(info));
  };

  const lookSoon = (shard: number): void => {
    const now = performance.now();
    const last = lookedAt[shard];
    if (last !== undefined && now - last < lookMs) return;
    lookedAt[shard] = now;
    look(shard).catch((error: unknown) => logger.debug({ error: String(error) }, 'cannot look at a stream'));
  };
  commits.onBackwards = lookSoon;

  const onHint = (message: Msg): void => {
    const hint = readHint(message);
    if (hint !== undefined && !commits.hint(hint.shard, hint.generation, hint.sequence)) lookSoon(hint.shard);
  };

  const onLeader = (message: Msg): void => {
    const shard = shardOfStream(message.subject.slice(message.subject.lastIndexOf('.') + 1));
    if (shard !== undefined) commits.doubt(`the stream of shard ${shard} has another leader`, shard);
  };

  // The library subscribes again after a reconnect.
  const subscriptions = [
    nc.subscribe(committedSubjects, {
      callback: (error, message) => {
        if (error === null) onHint(message);
      },
    }),
    nc.subscribe(leaderSubject('*'), {
      callback: (error, message) => {
        if (error === null) onLeader(message);
      },
    }),
  ];
  return () => {
    closed = true;
    for (const subscription of subscriptions) subscription.unsubscribe();
  };
}

const prefixOf = (name: (shard: number) => string): string => name(0).slice(0, -1);
const hintPrefix = prefixOf(committedSubject);
const streamPrefix = prefixOf(shardStream);

function parseShard(text: string): number | undefined {
  const shard = /^\d{1,4}$/.test(text) ? Number(text) : maxShards;
  return shard < maxShards ? shard : undefined;
}

const shardOfStream = (stream: string): number | undefined =>
  stream.startsWith(streamPrefix) ? parseShard(stream.slice(streamPrefix.length)) : undefined;

/** Undefined: not a worker's word. */
export function readHint(
  message: Pick<Msg, 'subject' | 'data' | 'string'>,
): { readonly shard: number; readonly generation: string; readonly sequence: number } | undefined {
  const shard = parseShard(message.subject.slice(hintPrefix.length));
  if (shard === undefined || message.data.length > longestHint) return undefined;
  try {
    const { generation, sequence } = JSON.parse(message.string()) as { generation?: unknown; sequence?: unknown };
    if (typeof generation !== 'string' || !Number.isSafeInteger(sequence) || (sequence as number) < 0) return undefined;
    return { shard, generation, sequence: sequence as number };
  } catch {
    return undefined;
  }
}

/**
 * Why shards wait, asked of the workers that load them: each answers with its shards, and with the reason of those that stand still.
 * Nothing is kept: what no worker says is not so.
 */
import type { Msg, NatsConnection } from '@nats-io/nats-core';
import { shardWaitsSubject } from '../lib/subjects.js';
import type { Wait } from './standstill.js';

export interface LoadedShard {
  readonly shard: number;
  /** It stands still. */
  readonly wait?: Wait | undefined;
}

/** Answers until closed. @param loaded the shards of this worker now */
export function serveShardWaits(nc: NatsConnection, loaded: () => readonly LoadedShard[]): { close(): void } {
  const subscription = nc.subscribe(shardWaitsSubject, {
    callback(error, message: Msg) {
      if (error === null) message.respond(JSON.stringify(loaded()));
    },
  });
  return { close: () => subscription.unsubscribe() };
}

/** How long workers have for their answers, ms. */
const answerMs = 1_000;

/** What all workers that answer in time say. Two may name the same shard for a moment: the one that moves counts. */
export async function askShardWaits(nc: NatsConnection): Promise<ReadonlyMap<number, LoadedShard>> {
  const shards = new Map<number, LoadedShard>();
  try {
    const answers = await nc.requestMany(shardWaitsSubject, '', { strategy: 'timer', maxWait: answerMs });
    for await (const answer of answers) {
      for (const one of answer.json<LoadedShard[]>()) {
        if (shards.get(one.shard)?.wait !== undefined || !shards.has(one.shard)) shards.set(one.shard, one);
      }
    }
  } catch {
    // Nobody listens: no worker runs.
  }
  return shards;
}

/** Why a shard waits, as one sentence; undefined when it moves or has nothing to load. */
export function waitOf(
  { shard, lag }: { readonly shard: number; readonly lag: number },
  workers: ReadonlyMap<number, LoadedShard>,
): string | undefined {
  const loaded = workers.get(shard);
  if (loaded?.wait !== undefined) return `it stands still for ${loaded.wait.seconds} s: ${loaded.wait.reason}`;
  if (loaded !== undefined || lag === 0) return undefined;
  return workers.size === 0 ? 'no worker answers' : 'no worker that answers loads it';
}

/**
 * Asks the workers why shards wait. Each answers with the shards that it loads, and the reasons of those without progress, or with the
 * reason why it cannot start. Nothing is stored: only answers of live workers count.
 */
import type { Msg, NatsConnection } from '@nats-io/nats-core';
import { shardWaitsSubject } from '../../lib/subjects.js';
import type { Wait } from './standstill.js';

/** How far a shard is, of all that is known of it. */
export interface ShardProgress {
  readonly shard: number;
  /** Messages that are not loaded. */
  readonly lag: number;
  /** Why workers do not load it; undefined when they may. */
  readonly stopped: string | undefined;
  /** Why ClickHouse does not say how far it is. */
  readonly unknown?: string | undefined;
}

export interface LoadedShard {
  readonly shard: number;
  /** It stands still. */
  readonly wait?: Wait | undefined;
}

/** Of a worker that loads nothing yet: what it waits for. */
export interface StartingWorker {
  readonly starting: string;
}

/** What all workers say. */
export interface WorkersAnswers {
  readonly loaded: ReadonlyMap<number, LoadedShard>;
  /** Why a worker cannot start; undefined when none says so. */
  readonly starting: string | undefined;
}

/** Answers until closed. @param state the shards of this worker now, or why it cannot start */
export function serveShardWaits(
  nc: NatsConnection,
  state: () => readonly LoadedShard[] | StartingWorker,
): { close(): void } {
  const subscription = nc.subscribe(shardWaitsSubject, {
    callback(error, message: Msg) {
      if (error === null) message.respond(JSON.stringify(state()));
    },
  });
  return { close: () => subscription.unsubscribe() };
}

/** How long workers have for their answers, ms. */
const answerMs = 1_000;

/** What all workers that answer in time say. Two may name the same shard for a moment: the one that moves counts. */
export async function askShardWaits(nc: NatsConnection): Promise<WorkersAnswers> {
  const loaded = new Map<number, LoadedShard>();
  let starting: string | undefined;
  try {
    const answers = await nc.requestMany(shardWaitsSubject, '', { strategy: 'timer', maxWait: answerMs });
    for await (const answer of answers) {
      const state = answer.json<LoadedShard[] | StartingWorker>();
      if (!Array.isArray(state)) {
        starting = state.starting;
        continue;
      }
      for (const one of state) {
        if (loaded.get(one.shard)?.wait !== undefined || !loaded.has(one.shard)) loaded.set(one.shard, one);
      }
    }
  } catch {
    // No subscriber: no worker runs.
  }
  return { loaded, starting };
}

/** Why a shard waits, as one sentence; undefined when it moves or has nothing to load. */
export function waitOf({ shard, lag, stopped, unknown }: ShardProgress, workers: WorkersAnswers): string | undefined {
  const loaded = workers.loaded.get(shard);
  if (loaded?.wait !== undefined) return standingText(loaded.wait, stopped === undefined && unknown === undefined);
  if (loaded !== undefined || lag === 0) return undefined;
  if (workers.starting !== undefined) return `no worker loads it: one waits itself: ${workers.starting}`;
  return workers.loaded.size === 0 ? 'no worker answers' : 'no worker that answers loads it';
}

/** @param fine the look at the stream finds nothing that keeps workers from loading it */
function standingText({ seconds, reason, halted }: Wait, fine: boolean): string {
  // Mended or accepted since its worker has looked: the old advice must not be followed again.
  if (halted === true && fine) return 'it may be loaded, and its worker looks at it again within 15 s';
  return `it stands still for ${seconds} s: ${reason}`;
}

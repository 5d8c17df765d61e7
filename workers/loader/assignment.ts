/**
 * Decides which worker loads which shard. Each worker writes every second into a KV bucket that it lives. All workers sort the live
 * ones by name, and take shard i where i mod n is their own place. There is no election, and no lock. Who is live: live-workers.ts.
 *
 * A worker that falls silent loses its entry after {@link expiryMs}. A dead process is noticed sooner. Each worker asks the next one by
 * name a few times a second, and the server answers at once when no subscriber listens there. The asking worker then deletes the entry.
 *
 * Views differ for a moment when a worker comes or goes, and then two load the same shard. That is harmless: ClickHouse
 * stores each block once (LOAD-2), so this file only avoids wasted work, and correctness does not depend on it.
 */
import type { KV } from '@nats-io/kv';
import { type NatsConnection, RequestError } from '@nats-io/nats-core';
import { openBucket } from '../../lib/buckets.js';
import type { Logger } from '../../lib/logger.js';
import { workerAliveSubject, workersBucket } from '../../lib/subjects.js';
import { createLiveWorkers, expiryMs, heartbeatMs, type LiveWorkers, neighbourOf, shardsOf } from './live-workers.js';

const askMs = 250;

export interface Assignment {
  /** Position among the live workers, and how many there are. */
  readonly view: { readonly index: number; readonly workers: number };
  /** From now on so many shards, by a change that began this epoch: it tells the others at once. */
  resize(shards: number, epoch: number): void;
  /** Says good-bye, so that the others need not wait for the expiry. */
  leave(): Promise<void>;
}

export interface AssignmentOptions {
  readonly nc: NatsConnection;
  /** Name of this worker: letters, digits, - and _. */
  readonly worker: string;
  readonly shards: number;
  /** Of the number of shards; said with each sign of life (workers/ledger/shards.ts). @default 1 */
  readonly epoch?: number;
  readonly replicas: number;
  /** Called at once, and whenever the shards of this worker change. */
  readonly onChange: (shards: readonly number[]) => void;
  readonly logger: Logger;
}

/**
 * Asks the neighbour again and again whether it is there.
 * @param onGone nats-server says that there is no such subscriber
 * @returns ends it
 */
function askNeighbour(
  { nc, worker, logger }: AssignmentOptions,
  workers: LiveWorkers,
  onGone: (neighbour: string) => Promise<void>,
): () => void {
  let ended = false;
  let asking = false;

  /** Resolves when it answered, is forgotten, or it is not known. */
  async function ask(): Promise<void> {
    const neighbour = neighbourOf(worker, workers.known(Date.now()) ?? []);
    if (ended || neighbour === undefined || nc.isClosed()) return;
    try {
      await nc.request(workerAliveSubject(neighbour), undefined, { timeout: heartbeatMs });
    } catch (error) {
      // One that is only slow, or cut off from this side, is left to the expiry. One that was reconnecting comes back with its next beat.
      if (ended || !(error instanceof RequestError) || !error.isNoResponders()) return;
      logger.info({ gone: neighbour }, 'a worker is not there any more');
      await onGone(neighbour);
    }
  }

  const timer = setInterval(() => {
    if (asking) return;
    asking = true;
    ask()
      .catch((error: unknown) => logger.debug({ error: String(error) }, 'cannot remove a worker that is gone'))
      .finally(() => {
        asking = false;
      });
  }, askMs);
  return () => {
    ended = true;
    clearInterval(timer);
  };
}

/** Joins the live workers. Rejects when the bucket cannot be reached at first; later losses are sat out. */
export async function joinWorkers(options: AssignmentOptions): Promise<Assignment> {
  const { nc, worker, logger } = options;
  let { shards, epoch = 1 } = options;
  const open = (): Promise<KV> =>
    openBucket(nc, workersBucket, {
      replicas: options.replicas,
      onFewer: (name, has, error) =>
        logger.warn({ bucket: name, has, error: String(error) }, 'the bucket has fewer replicas'),
      ttl: expiryMs,
      history: 1,
      storage: 'memory',
    });
  const bucket = await open();
  const workers = createLiveWorkers(worker);
  let own: readonly number[] | undefined;
  let view = { index: 0, workers: 1 };
  let left = false;
  let watching: { stop(): void } | undefined;
  let watchedAt = 0;

  async function watch(): Promise<void> {
    watching?.stop();
    watchedAt = Date.now();
    const entries = await bucket.watch();
    watching = entries;
    void (async () => {
      for await (const entry of entries) {
        if (entry.operation === 'PUT') workers.heard(entry.key, Date.now());
        else workers.gone(entry.key);
        review();
      }
    })().catch((error: unknown) => logger.warn({ error: String(error) }, 'watching the workers ended'));
  }

  function review(): void {
    if (left) return;
    const live = workers.known(Date.now());
    if (live === undefined) return;
    view = { index: live.indexOf(worker), workers: live.length };
    const next = shardsOf(worker, live, shards);
    if (own !== undefined && next.length === own.length && next.every((shard, i) => shard === own?.[i])) return;
    own = next;
    logger.info({ shards: next, ...view }, 'shards assigned');
    options.onChange(next);
  }

  async function beat(): Promise<void> {
    try {
      await bucket.put(worker, String(epoch));
    } catch (error) {
      if (!left) logger.debug({ error: String(error) }, 'cannot say that this worker lives');
      // A nats-server forgets a bucket without disk when it restarts; so does a cluster when all of its nodes do.
      if (!left && error instanceof Error && error.name === 'JetStreamNotEnabled') await open().catch(() => undefined);
    }
  }

  const answering = nc.subscribe(workerAliveSubject(worker), {
    callback: (_error, message) => {
      message.respond();
    },
  });
  await watch();
  await beat();
  const endAsking = askNeighbour(options, workers, async (neighbour) => {
    workers.gone(neighbour);
    review();
    await bucket.delete(neighbour);
  });
  let beating: Promise<void> = Promise.resolve();
  const timer = setInterval(() => {
    beating = beat();
    review();
    // Its own heartbeats are not seen: the watch was lost with a server. Not more often than the expiry.
    if (workers.isIsolated(Date.now()) && Date.now() - watchedAt > expiryMs && !nc.isClosed()) {
      void watch().catch((error: unknown) => logger.debug({ error: String(error) }, 'cannot watch the workers yet'));
    }
  }, heartbeatMs);

  return {
    get view() {
      return view;
    },
    resize(count, of) {
      shards = count;
      epoch = of;
      review();
      beating = beat();
    },
    async leave() {
      if (left) return;
      left = true;
      clearInterval(timer);
      endAsking();
      answering.unsubscribe();
      await beating.catch(() => undefined);
      await bucket.delete(worker).catch(() => undefined);
      watching?.stop();
    },
  };
}

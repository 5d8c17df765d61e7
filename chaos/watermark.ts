/**
 * How far each shard is in ClickHouse, by the workers' own word (`committedSubject`), with the time at which it was heard: what
 * recovery and lateness are measured by. Never what is checked: the check asks ClickHouse (check.ts).
 */
import type { NatsConnection } from '@nats-io/transport-node';
import { committedSubject } from '../lib/subjects.js';

export interface Watermark {
  /** Highest committed sequence; 0: none was heard of. */
  sequence(shard: number): number;
  /** Resolves with Date.now() when the shard is committed up to `sequence`, at once when it is. Rejects when the signal says stop. */
  reached(shard: number, sequence: number, stop: AbortSignal): Promise<number>;
  /** When `sequence` was committed, Date.now(); undefined when it is not, as far as was heard. */
  timeOf(shard: number, sequence: number): number | undefined;
  close(): void;
}

interface Hint {
  readonly sequence: number;
  readonly at: number;
}

export function watchWatermark(nc: NatsConnection, shards: number): Watermark {
  const hints: Hint[][] = Array.from({ length: shards }, () => []);
  let waiters: { shard: number; sequence: number; resolve: (at: number) => void }[] = [];
  const last = (shard: number): number => hints[shard]?.at(-1)?.sequence ?? 0;
  const subscriptions = hints.map((list, shard) =>
    nc.subscribe(committedSubject(shard), {
      callback: (error, message) => {
        if (error !== null) return;
        const { sequence } = message.json<{ sequence: number }>();
        if (!(sequence > last(shard))) return;
        const at = Date.now();
        list.push({ sequence, at });
        waiters = waiters.filter((waiter) => {
          if (waiter.shard !== shard || waiter.sequence > sequence) return true;
          waiter.resolve(at);
          return false;
        });
      },
    }),
  );
  return {
    sequence: last,
    reached(shard, sequence, stop) {
      if (last(shard) >= sequence) return Promise.resolve(Date.now());
      return new Promise((resolve, reject) => {
        const waiter = { shard, sequence, resolve };
        waiters.push(waiter);
        stop.addEventListener(
          'abort',
          () => {
            waiters = waiters.filter((other) => other !== waiter);
            reject(stop.reason);
          },
          { once: true },
        );
      });
    },
    timeOf(shard, sequence) {
      const list = hints[shard] ?? [];
      let from = 0;
      let to = list.length;
      while (from < to) {
        const middle = (from + to) >> 1;
        if ((list[middle] as Hint).sequence >= sequence) to = middle;
        else from = middle + 1;
      }
      return list[from]?.at;
    },
    close() {
      for (const subscription of subscriptions) subscription.unsubscribe();
    },
  };
}

/**
 * Reads a stream for a worker, as workers/reader/pull-reader.ts does: ahead, in order, from any position. What it has at hand it keeps,
 * whatever becomes of the server; what it finds out when it asks again is that a stream is another one, or has lost its end.
 */
import type { LogMessage } from '../workers/reader/log-message.js';
import type { SimulatedLog } from './log.js';
import type { StoredMessage } from './log-store.js';
import type { Process } from './process.js';
import type { World } from './world.js';

export interface Reader {
  seek(generation: string, hi: number): void;
  peek(): LogMessage | undefined;
  take(): void;
  readonly lost: boolean;
  /** Whether anything said over the connection arrives. */
  readonly connected: boolean;
  /** How often the connection was seen to break. */
  readonly breaks: number;
  /** Resolves when something changed, or after so many ms. */
  wait(ms: number): Promise<void>;
  wake(): void;
}

/** Messages of one pull, and what may be at hand. */
const pullMessages = 3;
const maxAhead = 8;

export function createReader(world: World, process: Process, log: SimulatedLog, shard: number): Reader {
  let queue: StoredMessage[] = [];
  let wanted: string | undefined;
  let taken = 0;
  let received = 0;
  let lost = false;
  let connected = true;
  let breaks = 0;
  let epoch = 0;
  let pulling = false;
  /** The consumer was made, and the stream looked at (LOAD-8). */
  let consumer = false;
  const waiters = new Set<() => void>();

  const wake = (): void => {
    for (const done of [...waiters]) done();
  };

  /** Asks the server once; what comes back belongs to the consumer of `mine`. */
  const pull = (): void => {
    if (pulling || !connected || lost || wanted === undefined || queue.length >= maxAhead) return;
    pulling = true;
    const mine = epoch;
    const done = (then?: () => void): void => {
      process.deliver(world.delay(), () => {
        if (mine !== epoch) return;
        pulling = false;
        then?.();
      });
    };
    world.time.after(world.delay(), () => {
      let found: readonly StoredMessage[];
      try {
        const stream = log.stream(shard);
        // Its consumer is gone with the stream, which a reader notices by its silence.
        if (stream.generation !== wanted || (!consumer && stream.last < received)) {
          done(() => {
            lost = true;
            wake();
          });
          return;
        }
        found = stream.messages;
      } catch (error) {
        const missing = error instanceof Error && error.message === 'stream not found';
        done(() => {
          if (missing) {
            lost = true;
            wake();
          } else process.schedule(pull, 100 + world.random() * 500);
        });
        return;
      }
      const from = received;
      const batch: StoredMessage[] = [];
      for (const message of found) {
        if (message.sequence > from && batch.push(message) >= pullMessages) break;
      }
      // Nothing yet: the pull stays open, and what is written wakes it.
      if (batch.length === 0) {
        if (mine === epoch) pulling = false;
        consumer = true;
        return;
      }
      done(() => {
        consumer = true;
        queue.push(...batch);
        received = (batch.at(-1) as StoredMessage).sequence;
        wake();
        pull();
      });
    });
  };

  log.onWritten((of) => {
    if (of === shard && process.alive) pull();
  });
  // What is at hand is doubted once the connection is back: the log may have lost its end meanwhile.
  const comeBack = (): void => {
    if (!log.up) {
      process.schedule(comeBack, 100 + world.random() * 1_000);
      return;
    }
    connected = true;
    lost = true;
    epoch++;
    pulling = false;
    wake();
  };
  log.onBreak(() => {
    if (!connected) return;
    connected = false;
    process.deliver(world.chance(0.2) ? world.random() * 20_000 : world.random() * 50, () => {
      breaks++;
      process.schedule(comeBack, 50 + world.random() * 500);
    });
  });

  return {
    seek(generation, hi) {
      if (!lost && wanted === generation && hi >= taken && hi <= received) {
        while (queue.length > 0 && (queue[0] as StoredMessage).sequence <= hi) queue.shift();
        taken = hi;
        pull();
        return;
      }
      queue = [];
      wanted = generation;
      received = hi;
      taken = hi;
      lost = false;
      consumer = false;
      pulling = false;
      epoch++;
      pull();
    },
    peek: () => queue[0],
    take() {
      const message = queue.shift();
      if (message !== undefined) taken = message.sequence;
      pull();
    },
    get connected() {
      return connected;
    },
    get breaks() {
      return breaks;
    },
    get lost() {
      return lost;
    },
    wait: (ms) =>
      new Promise((resolve) => {
        let cancel: (() => void) | undefined;
        const done = (): void => {
          cancel?.();
          waiters.delete(done);
          resolve();
        };
        if (Number.isFinite(ms)) cancel = process.schedule(done, ms);
        waiters.add(done);
      }),
    wake,
  };
}

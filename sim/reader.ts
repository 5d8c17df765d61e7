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

/** What a look at the server finds: messages, perhaps none yet; or that the stream is another one, or cannot be asked now. */
type Found =
  | { readonly kind: 'messages'; readonly batch: readonly StoredMessage[] }
  | { readonly kind: 'lost' }
  | { readonly kind: 'down' };

/** The consumer whose messages are asked for. */
interface Wanted {
  readonly generation: string | undefined;
  /** The last message that was received. */
  readonly received: number;
  /** The consumer was made, and the stream looked at (LOAD-8). */
  readonly consumer: boolean;
}

function lookFor(log: SimulatedLog, shard: number, { generation, received, consumer }: Wanted): Found {
  try {
    const stream = log.stream(shard);
    // Its consumer is gone with the stream, which a reader notices by its silence.
    if (stream.generation !== generation || (!consumer && stream.last < received)) return { kind: 'lost' };
    const batch: StoredMessage[] = [];
    for (const message of stream.messages) {
      if (message.sequence > received && batch.push(message) >= pullMessages) break;
    }
    return { kind: 'messages', batch };
  } catch (error) {
    return { kind: error instanceof Error && error.message === 'stream not found' ? 'lost' : 'down' };
  }
}

/** Those who wait until something changes. */
function createWaiters(process: Process): { wait(ms: number): Promise<void>; wake(): void } {
  const waiters = new Set<() => void>();
  return {
    wake() {
      for (const done of [...waiters]) done();
    },
    wait: (ms) =>
      new Promise((resolve) => {
        let cancel: (() => void) | undefined;
        const done = (): void => {
          cancel?.();
          waiters.delete(done);
          resolve();
        };
        if (Number.isFinite(ms)) cancel = process.after(ms, done);
        waiters.add(done);
      }),
  };
}

/** The reader's connection, which breaks with all lines of the log. */
interface Link {
  readonly connected: boolean;
  /** How often it was seen to break. */
  readonly breaks: number;
}

/** @param onBack it is there again */
function createLink(world: World, process: Process, log: SimulatedLog, onBack: () => void): Link {
  let connected = true;
  let breaks = 0;
  const comeBack = (): void => {
    if (!log.up) {
      process.after(100 + world.random() * 1_000, comeBack);
      return;
    }
    connected = true;
    onBack();
  };
  log.onBreak(() => {
    if (!connected) return;
    connected = false;
    process.deliver(world.chance(0.2) ? world.random() * 20_000 : world.random() * 50, () => {
      breaks++;
      process.after(50 + world.random() * 500, comeBack);
    });
  });
  return {
    get connected() {
      return connected;
    },
    get breaks() {
      return breaks;
    },
  };
}

export function createReader(world: World, process: Process, log: SimulatedLog, shard: number): Reader {
  let queue: StoredMessage[] = [];
  let wanted: string | undefined;
  let taken = 0;
  let received = 0;
  let lost = false;
  /** Of pulls: answers to those of an earlier one count no more. */
  let series = 0;
  let pulling = false;
  let consumer = false;
  const { wait, wake } = createWaiters(process);

  /** What a look has found, when its answer arrives. */
  const hear = (found: Found): void => {
    pulling = false;
    if (found.kind === 'down') {
      process.after(100 + world.random() * 500, pull);
      return;
    }
    if (found.kind === 'lost') lost = true;
    else {
      consumer = true;
      queue.push(...found.batch);
      received = (found.batch.at(-1) as StoredMessage).sequence;
    }
    wake();
    pull();
  };

  /** Asks the server once; what comes back belongs to the consumer of `mine`. */
  const pull = (): void => {
    if (pulling || !link.connected || lost || wanted === undefined || queue.length >= maxAhead) return;
    pulling = true;
    const mine = series;
    world.time.after(world.delay(), () => {
      const found = lookFor(log, shard, { generation: wanted, received, consumer });
      // Nothing yet: the pull stays open, and what is written wakes it.
      if (found.kind === 'messages' && found.batch.length === 0) {
        if (mine === series) pulling = false;
        consumer = true;
        return;
      }
      process.deliver(world.delay(), () => {
        if (mine === series) hear(found);
      });
    });
  };

  log.onWritten((of) => {
    if (of === shard && process.alive) pull();
  });
  // What is at hand is doubted once the connection is back: the log may have lost its end meanwhile.
  const link = createLink(world, process, log, () => {
    lost = true;
    series++;
    pulling = false;
    wake();
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
      series++;
      pull();
    },
    peek: () => queue[0],
    take() {
      const message = queue.shift();
      if (message !== undefined) taken = message.sequence;
      pull();
    },
    get connected() {
      return link.connected;
    },
    get breaks() {
      return link.breaks;
    },
    get lost() {
      return lost;
    },
    wait,
    wake,
  };
}

/**
 * The reader: messages of a shard's stream in order from any position, read ahead within a bound of bytes. This file is one stream's
 * reader: where it is, and what it does when the log may have become another one.
 *
 *   consumer.ts        one consumer of the stream
 *   pulls.ts           its pulls, one at a time, and the order of what comes
 *   nats-socket.ts     the connection that delivers
 *   nats-operations.ts what the server sends, told apart in the buffers
 *   message-queue.ts   the messages at hand; log-message.ts is one of them
 *   buffer-pool.ts     the memory that they lie in
 *   budget.ts          the bound of bytes over all shards
 *   waiters.ts         waiting for a change
 *   gap.ts             whether messages that are missing are gone
 *   end.ts             whether the stream lost its end (LOAD-8)
 *   link.ts            requests to JetStream that end when the connection is lost
 *
 * The reader speaks the pull protocol itself instead of using consume(), because of the bound. consume() with max_bytes also
 * caps at 100 messages, and stalls until two heartbeats are missed when the next message is larger than what is left of
 * its window; with a callback it has no back-pressure at all. Here one pull is open at a time, and the next one is only
 * sent when its bytes have room, so a slow ClickHouse stops the flow at the server.
 */
import type { JetStreamManager } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/nats-core';
import { backOff, jittered } from '../../lib/back-off.js';
import { isStreamMissing } from '../../lib/jetstream-errors.js';
import type { Logger } from '../../lib/logger.js';
import { leaderSubject } from '../../lib/subjects.js';
import type { ByteBudget } from './budget.js';
import type { BufferPool } from './buffer-pool.js';
import { type ConsumerContext, readConsumer } from './consumer.js';
import { logLink } from './link.js';
import type { LogMessage } from './log-message.js';
import { createMessageQueue } from './message-queue.js';
import type { Progress } from './pulls.js';
import { createWaiters, type Waiters } from './waiters.js';

export interface PullReader {
  /** The next message is the first after `hi`, of this generation of the stream. Keeps what is already at hand. */
  seek(generation: string, hi: number): void;
  peek(): LogMessage | undefined;
  /** Drops the message that `peek` shows. It stays charged, and its bytes in place, until `release`. */
  take(): void;
  /** The stream was made again, lost its end, or is gone, or that may be (LOAD-8): recover, then `seek`. */
  readonly lost: boolean;
  /**
   * How often so far the log may have become another one: the connection to NATS was lost, or the stream has another leader.
   * Then a server that lost power may have forgotten the end of what it delivered, and give the same sequences to other
   * messages: what is at hand and not stored is read again.
   */
  readonly breaks: number;
  /** Resolves when something changed (a message, `lost`, `wake`) or after so many ms. */
  wait(ms: number): Promise<void>;
  wake(): void;
  /**
   * Taken messages that are no longer held.
   * @param reusable no code can still read their bytes, not even a request that is over: they may be overwritten
   */
  release(messages: readonly LogMessage[], reusable: boolean): void;
  close(): Promise<void>;
}

export interface PullReaderOptions {
  readonly nc: NatsConnection;
  readonly jsm: JetStreamManager;
  readonly stream: string;
  readonly budget: ByteBudget;
  readonly buffers: BufferPool;
  /** Most bytes at hand for this shard beyond what was taken. */
  readonly aheadBytes: number;
  /** Messages are missing behind one that was read: they were removed, for the stream's leader does not have them either. */
  readonly onGap?: (from: number, to: number) => void;
  readonly logger: Logger;
}

/**
 * - `idle`: before the first seek
 * - `reading`: from a position on; another object after each seek that dropped what was at hand
 * - `lost`: nothing at hand is sure any more; the next seek reads again
 */
type Phase =
  | { readonly kind: 'idle' }
  | { readonly kind: 'reading'; readonly progress: Progress }
  | { readonly kind: 'lost' }
  | { readonly kind: 'closed' };

export function createPullReader(options: PullReaderOptions): PullReader {
  const { nc, jsm, stream, budget, buffers, aheadBytes, logger } = options;
  const waiters = createWaiters();
  const { wake } = waiters;
  const queue = createMessageQueue(budget, buffers);
  let phase: Phase = { kind: 'idle' };
  const phaseNow = (): Phase => phase;
  let breaks = 0;

  const enter = (next: Phase): void => {
    // Nothing follows the end.
    if (phase.kind !== 'closed') phase = next;
    wake();
  };
  const offRoom = budget.onRoom(wake);
  const stopWatching = watchBreaks(options, {
    onBreak: () => void breaks++,
    onDoubt: () => enter({ kind: 'lost' }),
    ended: () => phase.kind === 'closed',
  });
  const hasRoom = (bytes: number): boolean =>
    queue.size === 0 || (queue.bytes + bytes <= Math.max(aheadBytes, bytes) && budget.fits(bytes));
  const context: ConsumerContext = {
    ...{ nc, jsm, stream, ask: logLink(nc), queue, budget, buffers, waiters, hasRoom, logger },
    onGap: options.onGap,
  };
  const running = readUntilClosed(context, phaseNow, enter);

  return {
    seek(generation, hi) {
      const progress = phase.kind === 'reading' ? phase.progress : undefined;
      // The queue holds what lies after `taken`. What was taken but not stored must be read again.
      if (progress?.generation === generation && hi >= progress.taken && hi <= progress.received) {
        for (let first = queue.peek(); first !== undefined && first.sequence <= hi; first = queue.peek()) {
          queue.release([queue.shift()], true);
        }
        progress.taken = hi;
        return;
      }
      queue.clear();
      enter({ kind: 'reading', progress: { generation, sought: hi, taken: hi, received: hi, goneTo: 0 } });
    },
    peek: queue.peek,
    take() {
      if (queue.peek() === undefined) return;
      const { sequence } = queue.shift();
      if (phase.kind === 'reading') phase.progress.taken = sequence;
      if (queue.bytes < aheadBytes / 2 || queue.size === 0) wake();
    },
    get lost() {
      return phase.kind === 'lost';
    },
    get breaks() {
      return breaks;
    },
    wait: waiters.wait,
    wake,
    release: queue.release,
    async close() {
      if (phase.kind === 'closed') return;
      enter({ kind: 'closed' });
      offRoom();
      stopWatching();
      await running;
      queue.clear();
    },
  };
}

/** Reads with one consumer after the other. @param enter begins another phase */
async function readUntilClosed(
  context: ConsumerContext,
  phaseNow: () => Phase,
  enter: (phase: Phase) => void,
): Promise<void> {
  const { stream, waiters, logger } = context;
  let failures = 0;
  for (let phase = phaseNow(); phase.kind !== 'closed'; phase = phaseNow()) {
    if (phase.kind !== 'reading') {
      await waiters.wait(Number.POSITIVE_INFINITY);
      continue;
    }
    const mine = phase;
    const current = (): boolean => phaseNow() === mine;
    try {
      if ((await readConsumer(context, mine.progress, current)) === 'lost' && current()) enter({ kind: 'lost' });
      failures = 0;
    } catch (error) {
      if (phaseNow().kind === 'closed') return;
      if (isStreamMissing(error)) {
        if (current()) enter({ kind: 'lost' });
        continue;
      }
      const waitMs = jittered(backOff({ first: 200, last: 2_000 }, ++failures));
      logger.warn({ stream, error: String(error), waitMs: Math.round(waitMs) }, 'cannot read the stream yet');
      await waitUnlessClosed(waiters, waitMs, phaseNow);
    }
  }
}

async function waitUnlessClosed({ wait }: Waiters, ms: number, phaseNow: () => Phase): Promise<void> {
  const until = Date.now() + ms;
  while (phaseNow().kind !== 'closed' && Date.now() < until) await wait(until - Date.now());
}

/** Watches for what may have made the log another one (LOAD-8). Returns what ends that. */
function watchBreaks(
  { nc, stream }: Pick<PullReaderOptions, 'nc' | 'stream'>,
  on: { readonly onBreak: () => void; readonly onDoubt: () => void; readonly ended: () => boolean },
): () => void {
  const statuses = nc.status();
  void (async () => {
    for await (const { type } of statuses) {
      if (on.ended()) return;
      if (type === 'disconnect') on.onBreak();
      // Not before: there is no server to ask.
      else if (type === 'reconnect') on.onDoubt();
    }
  })();
  const leaders = nc.subscribe(leaderSubject(stream), {
    callback() {
      on.onBreak();
      on.onDoubt();
    },
  });
  return () => leaders.unsubscribe();
}

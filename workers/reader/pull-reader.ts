/**
 * Reading a shard's stream: messages in order from any position, fetched ahead within a bound of bytes.
 *
 * It speaks the pull protocol itself instead of using consume(), because of the bound. consume() with max_bytes also
 * caps at 100 messages, and stalls until two heartbeats are missed when the next message is larger than what is left of
 * its window; with a callback it has no back-pressure at all. Here one pull is open at a time, and the next one is only
 * sent when its bytes have room, so a slow ClickHouse stops the flow at the server.
 *
 * Consumers are throw-away (memory, no acks): ClickHouse alone knows what is loaded, and on some servers acks do not
 * survive a kill (FACT-8).
 */
import { AckPolicy, DeliverPolicy, type JetStreamManager } from '@nats-io/jetstream';
import { type NatsConnection, nanos } from '@nats-io/nats-core';
import { generationOf } from '../../lib/log-streams.js';
import type { Logger } from '../../lib/logger.js';
import { newInbox } from '../../lib/nats.js';
import { isStreamMissing, streamInfo } from '../../lib/stream-info.js';
import { leaderSubject } from '../../lib/subjects.js';
import type { ByteBudget } from './budget.js';
import type { BufferPool } from './buffer-pool.js';
import { areGone } from './gap.js';
import { logLink } from './link.js';
import type { LogMessage } from './log-message.js';
import { type Delivery, type NatsSocket, openNatsSocket } from './nats-socket.js';

const MiB = 1024 ** 2;

/** How a pull is shaped. The heartbeat tells a quiet stream from a lost consumer. */
const pullMessages = 1_000;
const pullBytes = 4 * MiB;
const pullExpiresMs = 5_000;
const heartbeatMs = 1_000;
const tickMs = 500;
/** Ticks without a sign of life before the consumer counts as lost. Ticks, not time: a busy event loop is no silence. */
const silentTicks = 6;

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

export function createPullReader(options: PullReaderOptions): PullReader {
  const { nc, jsm, stream, budget, buffers, logger } = options;
  const ask = logLink(nc);
  let queue: (LogMessage | undefined)[] = [];
  let head = 0;
  let queued = 0;
  /** Generation to read; undefined before the first seek. */
  let wanted: string | undefined;
  /** Last sequence that left the queue, or where the queue begins. */
  let taken = 0;
  /** Last sequence that was received; the consumer goes on after it. */
  let received = 0;
  /** Messages after `received` and up to here are known to be gone (gap.ts). */
  let goneTo = 0;
  /** Where the last seek that dropped what was at hand began. */
  let sought = 0;
  let lost = false;
  let breaks = 0;
  let closed = false;
  /** Changes whenever the open consumer must be given up. */
  let epoch = 0;
  const waiters = new Set<() => void>();

  const wake = (): void => {
    for (const done of waiters) done();
  };
  const wait = (ms: number): Promise<void> =>
    new Promise((resolve) => {
      const done = (): void => {
        clearTimeout(timer);
        waiters.delete(done);
        resolve();
      };
      const timer = Number.isFinite(ms) ? setTimeout(done, Math.max(0, ms)) : undefined;
      waiters.add(done);
    });
  const offRoom = budget.onRoom(wake);

  const letGo = (messages: readonly (LogMessage | undefined)[], reusable: boolean): void => {
    for (const message of messages) if (message?.buffer !== undefined) buffers.letGo(message.buffer, reusable);
  };

  const clear = (): void => {
    budget.release(queued);
    letGo(queue, true);
    queue = [];
    head = 0;
    queued = 0;
  };

  /** Removes the first message. */
  const shift = (): LogMessage => {
    const message = queue[head]!;
    queued -= message.data.length;
    queue[head++] = undefined;
    if (head === queue.length) {
      queue = [];
      head = 0;
    } else if (head >= 1024) {
      queue = queue.slice(head);
      head = 0;
    }
    return message;
  };

  const hasRoom = (bytes: number): boolean =>
    queued === 0 || (queued + bytes <= Math.max(options.aheadBytes, bytes) && budget.fits(bytes));

  /** Pulls from one consumer until it is lost, replaced or closed. */
  async function follow(generation: string, mine: number): Promise<void> {
    const current = (): boolean => !closed && mine === epoch;
    const inbox = newInbox(nc);
    let pull = 0;
    let open = false;
    let left = 0;
    let reserved = 0;
    let delivered = 0;
    let heard = 0;
    /** Something came of this consumer: else the next try waits a while. */
    let alive = false;
    let broken: string | undefined;
    /** The message after those that are missing. */
    let beyond: number | undefined;
    let chunk = Math.max(pullBytes, (nc.info?.max_payload ?? MiB) + 4096);

    const endPull = (): void => {
      open = false;
      budget.release(reserved);
      reserved = 0;
      wake();
    };
    const onStatus = (subject: string, code: number, description: string): void => {
      heard = 0;
      alive = true;
      if (code === 100 || subject !== `${inbox}.${pull}`) return;
      if (code === 409 && /exceeds maxbytes/i.test(description)) {
        // Not even the first message fitted: the server allows larger ones than it said.
        if (left === pullMessages) chunk = Math.min(chunk * 2, 256 * MiB);
      } else if (code !== 404 && code !== 408) {
        broken = `${code} ${description}`;
      }
      endPull();
    };
    const onMessage = ({ sequence, delivery, timeMs, data, buffer }: Delivery): void => {
      heard = 0;
      if (!current() || broken !== undefined) return;
      if (delivery !== delivered + 1) {
        broken = `delivery ${delivery} came after ${delivered}`;
        endPull();
        return;
      }
      if (sequence <= received) {
        // Servers up to 2.9 let a consumer begin earlier than asked when the stream is shorter.
        broken = `message ${sequence} came after ${received}`;
        endPull();
        return;
      }
      if (sequence > received + 1 && sequence > goneTo + 1) {
        beyond = sequence;
        broken = `messages ${received + 1} to ${sequence - 1} are missing`;
        endPull();
        return;
      }
      delivered = delivery;
      alive = true;
      received = sequence;
      const size = data.length;
      // The reservation turns into the message's own charge.
      budget.charge(size);
      const part = Math.min(size, reserved);
      reserved -= part;
      budget.release(part);
      if (buffer !== undefined) buffers.hold(buffer);
      queue.push({ sequence, timeMs, data, buffer });
      queued += size;
      left--;
      if (left === 0) endPull();
      else if (queue.length - head === 1) wake();
    };

    const name = `sluice_${inbox.slice(inbox.lastIndexOf('.') + 1)}`;
    let natsSocket: NatsSocket | undefined;
    const ticker = setInterval(() => {
      if (open && ++heard > silentTicks) {
        broken = 'no sign of life';
        endPull();
      }
    }, tickMs);
    try {
      const asked = {
        name,
        ack_policy: AckPolicy.None,
        deliver_policy: DeliverPolicy.StartSequence,
        opt_start_seq: received + 1,
        inactive_threshold: nanos(30_000),
        mem_storage: true,
        num_replicas: 1,
      };
      await ask(() => jsm.consumers.add(stream, asked));
      // LOAD-8. Asked after the consumer was made: a stream that is still of the old making now was so then.
      const info = await ask(() => streamInfo(jsm, stream));
      if (!current()) return;
      if (generationOf(info) !== generation || info.state.last_seq < received) {
        lost = true;
        wake();
        return;
      }
      natsSocket = await openNatsSocket({
        nc,
        name: `sluice worker ${stream}`,
        inbox,
        buffers,
        events: {
          message: onMessage,
          status: onStatus,
          ended(why) {
            broken = why;
            endPull();
          },
        },
      });
      while (current() && broken === undefined) {
        if (open || !hasRoom(chunk)) {
          await wait(tickMs);
          continue;
        }
        reserved = chunk;
        budget.charge(chunk);
        left = pullMessages;
        heard = 0;
        open = true;
        natsSocket.publish(
          `$JS.API.CONSUMER.MSG.NEXT.${stream}.${name}`,
          JSON.stringify({
            batch: pullMessages,
            max_bytes: chunk,
            expires: nanos(pullExpiresMs),
            idle_heartbeat: nanos(heartbeatMs),
          }),
          `${inbox}.${++pull}`,
        );
      }
      if (broken === undefined || !current()) return;
      if (beyond !== undefined) {
        const [from, to] = [received + 1, beyond - 1];
        const gone = await areGone(nc, jsm, stream, from, to);
        if (!current()) return;
        if (!gone) throw new Error(`this replica of ${stream} lacks messages ${from} to ${to}, which its leader has`);
        goneTo = to;
        // Behind what ClickHouse has, the loader finds the gap itself (LOAD-3).
        if (received > sought) options.onGap?.(from, to);
        return;
      }
      if (!alive) throw new Error(broken);
      logger.info({ stream, why: broken }, 'reading on with a new consumer');
    } finally {
      clearInterval(ticker);
      if (open) endPull();
      natsSocket?.close();
      void jsm.consumers.delete(stream, name).catch(() => undefined);
    }
  }

  const running = (async () => {
    let failures = 0;
    while (!closed) {
      if (wanted === undefined || lost) {
        await wait(Number.POSITIVE_INFINITY);
        continue;
      }
      try {
        await follow(wanted, epoch);
        failures = 0;
      } catch (error) {
        if (closed) return;
        if (isStreamMissing(error)) {
          lost = true;
          wake();
          continue;
        }
        failures++;
        const waitMs = Math.min(100 * 2 ** Math.min(failures, 5), 2_000) * (0.5 + Math.random() / 2);
        logger.warn({ stream, error: String(error), waitMs: Math.round(waitMs) }, 'cannot read the stream yet');
        const until = Date.now() + waitMs;
        while (!closed && Date.now() < until) await wait(until - Date.now());
      }
    }
  })();

  /** Nothing at hand is sure any more; `seek` goes on with a new consumer. */
  const doubt = (): void => {
    lost = true;
    epoch++;
    wake();
  };
  const statuses = nc.status();
  void (async () => {
    for await (const status of statuses) {
      if (closed) return;
      if (status.type === 'disconnect') breaks++;
      // Not before: there is no one to ask.
      else if (status.type === 'reconnect') doubt();
    }
  })();
  const leaders = nc.subscribe(leaderSubject(stream), {
    callback: () => {
      breaks++;
      doubt();
    },
  });

  return {
    seek(generation, hi) {
      // The queue holds what lies after `taken`. What was taken but not stored must be read again.
      if (!lost && wanted === generation && hi >= taken && hi <= received) {
        while (queue[head] !== undefined && queue[head]!.sequence <= hi) {
          const message = shift();
          budget.release(message.data.length);
          letGo([message], true);
        }
        taken = hi;
        return;
      }
      clear();
      wanted = generation;
      received = hi;
      taken = hi;
      sought = hi;
      goneTo = 0;
      lost = false;
      epoch++;
      wake();
    },
    peek: () => queue[head],
    take() {
      if (queue[head] === undefined) return;
      taken = queue[head]!.sequence;
      shift();
      if (queued < options.aheadBytes / 2 || queue.length === 0) wake();
    },
    get lost() {
      return lost;
    },
    get breaks() {
      return breaks;
    },
    wait,
    wake,
    release(messages, reusable) {
      letGo(messages, reusable);
      budget.release(messages.reduce((sum, message) => sum + message.data.length, 0));
    },
    async close() {
      if (closed) return;
      closed = true;
      epoch++;
      offRoom();
      leaders.unsubscribe();
      wake();
      await running;
      clear();
    },
  };
}

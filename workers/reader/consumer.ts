/**
 * One consumer of a stream: made at the position of the reader, pulled from as long as there is room, and deleted. Consumers are
 * throw-away (memory, no acks): ClickHouse alone knows what is loaded, and on some servers acks do not survive a kill (FACT-8).
 */
import { AckPolicy, DeliverPolicy, type JetStreamManager } from '@nats-io/jetstream';
import { type NatsConnection, nanos } from '@nats-io/nats-core';
import { generationOf } from '../../lib/log-streams.js';
import type { Logger } from '../../lib/logger.js';
import { newInbox } from '../../lib/nats.js';
import { streamInfo } from '../../lib/stream-info.js';
import { MiB } from '../../lib/units.js';
import type { ByteBudget } from './budget.js';
import type { BufferPool } from './buffer-pool.js';
import { areGone } from './gap.js';
import type { Ask } from './link.js';
import type { MessageQueue } from './message-queue.js';
import { type NatsSocket, openNatsSocket } from './nats-socket.js';
import { type Break, createPulls, type Progress, type Pulls } from './pulls.js';
import type { Waiters } from './waiters.js';

const tickMs = 500;
const defaultPayload = MiB;

/** What a reader's consumers share. */
export interface ConsumerContext {
  readonly nc: NatsConnection;
  readonly jsm: JetStreamManager;
  readonly stream: string;
  readonly ask: Ask;
  readonly queue: MessageQueue;
  readonly budget: ByteBudget;
  readonly buffers: BufferPool;
  readonly waiters: Waiters;
  /** Whether so many bytes more may be at hand. */
  readonly hasRoom: (bytes: number) => boolean;
  readonly onGap: ((from: number, to: number) => void) | undefined;
  readonly logger: Logger;
}

/**
 * Reads on after `progress.received` with a new consumer, until it is broken, or `current` says that it is not wanted any more.
 * @returns `lost` when the stream is another one, or shorter than what was received
 * @throws Error when nothing could be read: the next try should wait a while
 */
export async function readConsumer(
  context: ConsumerContext,
  progress: Progress,
  current: () => boolean,
): Promise<'lost' | 'over'> {
  const { nc, jsm, stream, ask, queue, budget, buffers, waiters } = context;
  const inbox = newInbox(nc);
  const name = `sluice_${inbox.slice(inbox.lastIndexOf('.') + 1)}`;
  const maxPayload = nc.info?.max_payload ?? defaultPayload;
  const pulls = createPulls({ progress, current, queue, budget, buffers, wake: waiters.wake, inbox, maxPayload });
  let natsSocket: NatsSocket | undefined;
  const ticker = setInterval(pulls.tick, tickMs);
  try {
    await ask(() => jsm.consumers.add(stream, consumerAt(name, progress.received + 1)));
    // LOAD-8. Asked after the consumer was made: a stream that is still of the old generation now was so then.
    const info = await ask(() => streamInfo(jsm, stream));
    if (!current()) return 'over';
    if (generationOf(info) !== progress.generation || info.state.last_seq < progress.received) return 'lost';
    natsSocket = await openNatsSocket({ nc, name: `sluice worker ${stream}`, inbox, buffers, events: pulls });
    const why = await pullUntilBroken(context, pulls, natsSocket, name, current);
    if (why !== undefined) await onBreak(context, progress, current, pulls, why);
    return 'over';
  } finally {
    clearInterval(ticker);
    if (pulls.open) pulls.end();
    natsSocket?.close();
    void jsm.consumers.delete(stream, name).catch(() => undefined);
  }
}

const consumerAt = (name: string, sequence: number) => ({
  name,
  ack_policy: AckPolicy.None,
  deliver_policy: DeliverPolicy.StartSequence,
  opt_start_seq: sequence,
  inactive_threshold: nanos(30_000),
  mem_storage: true,
  num_replicas: 1,
});

/** @returns what broke the consumer; undefined when it is not wanted any more */
async function pullUntilBroken(
  { stream, waiters, hasRoom }: ConsumerContext,
  pulls: Pulls,
  natsSocket: NatsSocket,
  name: string,
  current: () => boolean,
): Promise<Break | undefined> {
  while (current() && pulls.broken === undefined) {
    if (pulls.open || !hasRoom(pulls.chunk)) await waiters.wait(tickMs);
    else pulls.pull(natsSocket, `$JS.API.CONSUMER.MSG.NEXT.${stream}.${name}`);
  }
  return current() ? pulls.broken : undefined;
}

/** Finds out whether missing messages are gone. @throws Error when nothing came of the consumer, or its replica lacks messages */
async function onBreak(
  { nc, jsm, stream, onGap, logger }: ConsumerContext,
  progress: Progress,
  current: () => boolean,
  { alive }: Pulls,
  { why, missing }: Break,
): Promise<void> {
  if (missing === undefined) {
    if (!alive) throw new Error(why);
    logger.info({ stream, why }, 'reading on with a new consumer');
    return;
  }
  const { from, to } = missing;
  const gone = await areGone(nc, jsm, stream, from, to);
  if (!current()) return;
  if (!gone) throw new Error(`this replica of ${stream} lacks messages ${from} to ${to}, which its leader has`);
  progress.goneTo = to;
  // Behind what ClickHouse has, the loader finds the gap itself (LOAD-3).
  if (progress.received > progress.sought) onGap?.(from, to);
}

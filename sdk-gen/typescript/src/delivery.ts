/**
 * The delivery of batches: a pure core. It owns every batch from the moment when it is closed until it is settled. It decides what is
 * sent when, and on which stream. Sockets, clock and random numbers are injected.
 *
 *   DELIVER-1  A batch keeps its id and its bytes forever. Its attempt is 1 when a stream gets it for the first time, and one more each
 *       later time. The gateway's side relies on that to distinguish retries from first sends.
 *   DELIVER-2  A batch is settled once: delivered (accepted, or committed, as the client wants it), or finally refused. Until
 *       then it waits, is in flight on one stream, or is kept for one stream (DELIVER-8). An answer that does not count all its
 *       events is no answer.
 *   DELIVER-3  What is in flight is bounded in batches and bytes, over all streams. What is kept does not count as in flight.
 *   DELIVER-4  A failed batch that may be retried goes out again no earlier than the gateway asked, plus full jitter. The client sends
 *       nothing new before that either, because the failure concerns the gateway, not the batch.
 *   DELIVER-5  When a stream ends, whatever was in flight on it goes out again on the next one, before anything new.
 *   DELIVER-6  A stream that ends does not name the batch at fault. So a batch goes alone, with nothing else in flight, after the
 *       gateway ended its stream with INVALID_ARGUMENT, or after two streams in a row ended under it for any reason. If the gateway
 *       refuses the stream of a batch that was alone, that batch is finally refused. If anything else ends it, the batch is tried again
 *       less and less often. So no batch blocks the others forever.
 *   DELIVER-7  Only the gateway refuses finally, and it signs what it refuses (`reason`). A refused key (or a gateway that does not know the
 *       method) is tried again for a few seconds, since a new key takes a moment to be known everywhere. Then all that waits is
 *       finally refused. What a proxy says, such as HTTP 403 or 404, is tried again for as long as it takes.
 *   DELIVER-8  With durability `committed`, an accepted batch is kept, with its bytes, until the stream that accepted it tells that
 *       ClickHouse has what it had accepted up to a position at or above the batch's. A watermark covers only what was
 *       accepted before it on the same stream: the log may have lost its end and given the same positions out again.
 *       A batch without one valid event has nothing to be kept for.
 *   DELIVER-9  A kept batch goes out again, with the next attempt (DELIVER-1), when its stream ends, when the gateway says that it
 *       failed after all, and when no watermark has covered it for too long. That time doubles while nothing is committed, so that the
 *       client does not send everything every few minutes while ClickHouse is down for a day.
 *   DELIVER-10  Kept batches and batches in flight together are bounded by the gateway's limit. A gateway without that limit does not
 *       know the method (DELIVER-7).
 *
 *   delivery/flow.ts    sends, opens and ends streams, and takes their answers; the other files of delivery/ are its parts:
 *   backlog.ts          what waits; flights.ts: what is in flight; commits.ts: what is kept; account.ts: what is not settled
 *   pace.ts             how long to hold back; alarm.ts: the timer
 *   link.ts  stream.ts  batch.ts  stream-faults.ts   what they speak of
 */
import type { SealedBatch } from './batcher.js';
import type { Clock } from './clock.js';
import { createAccount } from './delivery/account.js';
import { createAlarm } from './delivery/alarm.js';
import { createBacklog } from './delivery/backlog.js';
import { type Outcome, type ToldBatch, unsent } from './delivery/batch.js';
import { createCommits } from './delivery/commits.js';
import { createFlights } from './delivery/flights.js';
import { closeStreams, type Flow, isHungry, pump, ring } from './delivery/flow.js';
import type { Acceptance, Link, LinkEvents, LinkLimits } from './delivery/link.js';
import { createPace } from './delivery/pace.js';
import type { SluiceClientError } from './errors.js';

export type { Outcome, ToldBatch } from './delivery/batch.js';
export type {
  Acceptance,
  BatchFault,
  EventRejection,
  Link,
  LinkEvents,
  LinkLimits,
  Outgoing,
} from './delivery/link.js';

/** When a batch is delivered: when the log has it, or when ClickHouse has it. */
export type Durability = 'accepted' | 'committed';

export interface DeliveryOptions {
  readonly durability: Durability;
  /** A batch that was accepted and not committed for so long is sent again on a new stream, ms (DELIVER-9). */
  readonly commitTimeoutMs: number;
  readonly maxBatchesInFlight: number;
  readonly maxBytesInFlight: number;
  readonly retry: { readonly baseMs: number; readonly capMs: number };
  /** A batch without an answer for so long is sent again on a new stream, ms. */
  readonly ackTimeoutMs: number;
  /** A stream that has not told its limits after so long is given up, ms. */
  readonly connectTimeoutMs: number;
  /** How long a refused key is tried again, ms. */
  readonly refusalGraceMs: number;
  readonly clock: Clock;
  /** In [0, 1). */
  readonly random: () => number;
  readonly makeId: () => string;
  readonly open: (events: LinkEvents) => Link;
  /** The log has the batch. Told once per batch, however often it is sent. */
  readonly onAccepted: (batch: ToldBatch, acceptance: Acceptance) => void;
  readonly onSettled: (batch: ToldBatch, outcome: Outcome) => void;
  /** Another batch would be sent now. */
  readonly onHungry: () => void;
  readonly onError: (error: SluiceClientError) => void;
}

export interface DeliveryStats {
  /** Not settled: waiting, in flight or kept. */
  readonly batches: number;
  readonly events: number;
  readonly bytes: number;
  readonly batchesInFlight: number;
  readonly bytesInFlight: number;
  /** Of those that are not settled, what the log was heard to have. */
  readonly accepted: { readonly batches: number; readonly events: number };
  /** Sends with an attempt above 1. */
  readonly retries: number;
  /** Streams opened. */
  readonly streams: number;
  readonly connected: boolean;
}

export interface Delivery {
  add(batch: SealedBatch): void;
  /** Resolves when all that was added so far is settled. */
  settled(): Promise<void>;
  /** A batch added now would go out now, or make the client connect. */
  readonly hungry: boolean;
  readonly limits: LinkLimits;
  /** Bytes of the batches that are not settled. */
  readonly bytes: number;
  stats(): DeliveryStats;
  /** Ends everything; what is not settled is forgotten. Streams without open batches are finished, not aborted. */
  close(): void;
}

/** What the gateway takes when it has told nothing yet: its defaults. */
const assumedLimits: LinkLimits = {
  maxBatchBytes: 1024 * 1024,
  maxBatchEvents: 10_000,
  maxBytesInFlight: 8 * 1024 * 1024,
  maxUncommitted: 1,
};

export function createDelivery(options: DeliveryOptions): Delivery {
  const account = createAccount(options.onSettled);
  const flow: Flow = {
    options,
    account,
    backlog: createBacklog(account, options.makeId),
    flights: createFlights(),
    commits: createCommits(options.commitTimeoutMs),
    pace: createPace(options),
    alarm: createAlarm(options.clock, () => ring(flow)),
    streams: new Set(),
    current: undefined,
    limits: assumedLimits,
    opened: 0,
    retried: 0,
    closed: false,
  };
  const { backlog, flights, alarm } = flow;
  return {
    add(batch) {
      const { bytes, events } = batch;
      const order = account.add(batch);
      backlog.add({ bytes, events, batchId: options.makeId(), order, ...unsent });
      pump(flow);
    },
    settled: () => account.settled(),
    get hungry() {
      return isHungry(flow);
    },
    get limits() {
      return flow.limits;
    },
    get bytes() {
      return account.held.bytes;
    },
    stats: () => ({
      ...account.held,
      batchesInFlight: flights.count,
      bytesInFlight: flights.bytes,
      accepted: { ...account.accepted },
      retries: flow.retried,
      streams: flow.opened,
      connected: flow.current?.state === 'open',
    }),
    close() {
      if (flow.closed) return;
      flow.closed = true;
      alarm.cancel();
      closeStreams(flow);
      account.close();
    },
  };
}

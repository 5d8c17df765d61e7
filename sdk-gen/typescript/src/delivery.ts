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
 *       the warehouse has what it had accepted up to a position at or above the batch's. A watermark covers only what was
 *       accepted before it on the same stream: the log may have lost its end and given the same positions out again.
 *       A batch without one valid event has nothing to be kept for.
 *   DELIVER-9  A kept batch goes out again, with the next attempt (DELIVER-1), when its stream ends, when the gateway says that it
 *       failed after all, and when no watermark has covered it for too long. That time doubles while nothing is committed, so that the
 *       client does not send everything every few minutes while ClickHouse is down for a day.
 *   DELIVER-10  Kept batches and batches in flight together are bounded by the gateway's limit. A gateway without that limit does not
 *       know the method (DELIVER-7).
 */
import { fullJitter } from './backoff.js';
import { type SealedBatch, splitBatch } from './batcher.js';
import type { Clock } from './clock.js';
import { type FailureCode, SluiceClientError } from './errors.js';

/** One batch on its way. */
export interface Outgoing {
  readonly batchId: string;
  readonly bytes: Uint8Array;
  readonly attempt: number;
}

/** An open stream, as the core uses it. */
export interface Link {
  send(batch: Outgoing): void;
  /** No more will be sent; answers are still taken, for so many ms at most. */
  finish(withinMs: number): void;
  /** Ends the stream at once. No call comes from it after this. */
  abort(): void;
}

export interface LinkLimits {
  readonly maxBatchBytes: number;
  readonly maxBatchEvents: number;
  readonly maxBytesInFlight: number;
  /** Most batches sent and not committed; 0: the gateway tells no commits. */
  readonly maxUncommitted: number;
}

/** What a stream tells. `onEnd` comes last and once. */
export interface LinkEvents {
  onLimits(limits: LinkLimits): void;
  onAccepted(batchId: string, result: Acceptance): void;
  onFailed(batchId: string, failure: BatchFault): void;
  /** The warehouse has what this stream has accepted so far of this shard, up to this position. */
  onCommitted(shard: number, sequence: bigint): void;
  onDraining(): void;
  onEnd(error: SluiceClientError | undefined): void;
}

export interface Acceptance {
  readonly accepted: number;
  readonly rejected: number;
  readonly rejections: readonly EventRejection[];
  /** Where the log has it; undefined when nothing was accepted. */
  readonly position: { readonly shard: number; readonly sequence: bigint } | undefined;
}

/** One event that breaks the contract. */
export interface EventRejection {
  /** Its place in the batch, from 0. */
  readonly index: number;
  readonly field: string;
  /** Name of the RejectionCode, e.g. "TOO_LONG". */
  readonly code: string;
  readonly message: string;
}

export interface BatchFault {
  readonly code: FailureCode;
  readonly message: string;
  /** Undefined: not to be retried. */
  readonly retryAfterMs: number | undefined;
}

/** When a batch is delivered: when the log has it, or when the warehouse has it. */
export type Durability = 'accepted' | 'committed';

/** A batch as the host hears of it. */
export interface ToldBatch extends SealedBatch {
  readonly batchId: string;
  /** What its first acceptance said; undefined before. */
  readonly acceptance: Acceptance | undefined;
}

export type Outcome =
  | { readonly kind: 'delivered' }
  | { readonly kind: 'refused'; readonly code: FailureCode; readonly message: string };

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

interface Batch extends SealedBatch {
  readonly batchId: string;
  /** Order of arrival; the parts of a split batch share it. */
  readonly order: number;
  attempt: number;
  /** Not to be sent before. */
  dueAt: number;
  acceptance: Acceptance | undefined;
  /** It was kept for too long once. */
  overdue: boolean;
  /** Streams in a row that ended under it. */
  cuts: number;
  /** Nothing else is in flight while it is (DELIVER-6). */
  alone: boolean;
}

/** An accepted batch that is not committed (DELIVER-8). */
interface Kept {
  readonly batch: Batch;
  readonly stream: Stream;
  readonly shard: number;
  readonly sequence: bigint;
  readonly since: number;
}

interface Flight {
  readonly batch: Batch;
  readonly stream: Stream;
  readonly sentAt: number;
}

interface Stream {
  link: Link | undefined;
  /** opening → open → draining → ended, in that order, some left out. */
  state: 'opening' | 'open' | 'draining' | 'ended';
  readonly openedAt: number;
}

/** What the gateway takes when it has told nothing yet: its defaults. */
const assumedLimits: LinkLimits = {
  maxBatchBytes: 1024 * 1024,
  maxBatchEvents: 10_000,
  maxBytesInFlight: 8 * 1024 * 1024,
  maxUncommitted: 1,
};

/** Ends of a stream that trying again will hardly mend. */
const refusals: ReadonlySet<FailureCode> = new Set(['unauthenticated', 'permission_denied', 'unimplemented']);
/** No gateway makes a client wait longer than this, ms. */
const longestWait = 5 * 60_000;
/** How long a draining stream may still answer, and one that was closed with nothing open may take to end, ms. */
const finishMs = 30_000;
const closingMs = 1_000;
/** After so many ends of streams in a row a batch goes alone, and after one more it waits (DELIVER-6). */
const suspiciousCuts = 2;
/** How often the wait of such a batch is doubled. */
const maxWaits = 3;
/** How often the time for a commit is doubled (DELIVER-9). */
const maxDoublings = 4;

const unsent = { attempt: 0, dueAt: 0, acceptance: undefined, overdue: false, cuts: 0, alone: false } as const;

/** A stream that ended in order although something was expected of it. Undefined: nothing was. */
function silentEnd(was: 'opening' | 'open', unanswered: number): SluiceClientError | undefined {
  if (was === 'opening') return new SluiceClientError('unavailable', 'The stream ended before it told its limits.');
  if (unanswered === 0) return undefined;
  return new SluiceClientError('unavailable', `The stream ended before it answered ${unanswered} batches.`);
}

/** Says when a batch may be what ends the streams. */
function withSuspect(error: SluiceClientError, lost: readonly Batch[]): SluiceClientError {
  const [only] = lost;
  if (only === undefined || lost.length > 1 || only.cuts <= suspiciousCuts) return error;
  const { code, message, reason, retryAfterMs, cause } = error;
  const more = `${/[.!?]$/.test(message) ? message : `${message}.`} Batch ${only.batchId} was alone on the stream, and ${only.cuts} streams in a row ended under it: it may be the cause.`;
  return new SluiceClientError(code, more, {
    ...(reason === undefined ? {} : { reason }),
    ...(retryAfterMs === undefined ? {} : { retryAfterMs }),
    cause,
  });
}

export function createDelivery(options: DeliveryOptions): Delivery {
  const { clock, random } = options;
  const committing = options.durability === 'committed';
  const fresh: Batch[] = [];
  /** Sorted by dueAt. */
  const retries: Batch[] = [];
  const flights = new Map<string, Flight>();
  /** In the order of their acceptance. */
  const kept = new Map<string, Kept>();
  const streams = new Set<Stream>();
  let waiters: { order: number; left: number; resolve: () => void }[] = [];
  let current: Stream | undefined;
  let limits = assumedLimits;
  let bytesInFlight = 0;
  /** How often in a row a wait for a commit ended without one. */
  let doublings = 0;
  const acceptedNow = { batches: 0, events: 0 };
  let held = { batches: 0, events: 0, bytes: 0 };
  let order = 0;
  let retried = 0;
  let opened = 0;
  /** Failures in a row, and when the last was counted: all flights of one bad moment count once. */
  let streak = 0;
  let streakAt = -1;
  /** Nothing new goes out, and no stream is opened, before. */
  let pausedUntil = 0;
  let connectAt = 0;
  let refusedSince: number | undefined;
  let closed = false;
  let cancelWake: (() => void) | undefined;
  let wakeAt = Number.POSITIVE_INFINITY;

  const windowBytes = (): number => Math.min(options.maxBytesInFlight, limits.maxBytesInFlight);
  const oneAlone = (): boolean => {
    if (flights.size !== 1) return false;
    const [only] = flights.values();
    return only?.batch.alone === true;
  };
  const fits = (bytes: number, alone = false): boolean =>
    flights.size < (alone ? 1 : options.maxBatchesInFlight) &&
    (flights.size === 0 || bytesInFlight + bytes <= windowBytes()) &&
    (!committing || flights.size + kept.size < limits.maxUncommitted) &&
    !oneAlone();

  const countFailure = (since: number): void => {
    if (since < streakAt) return;
    streak++;
    streakAt = clock.now();
  };

  const settle = (batch: Batch, outcome: Outcome): void => {
    held = { batches: held.batches - 1, events: held.events - batch.events, bytes: held.bytes - batch.bytes.length };
    if (batch.acceptance !== undefined) {
      acceptedNow.batches--;
      acceptedNow.events -= batch.acceptance.accepted;
    }
    options.onSettled(batch, outcome);
    for (const waiter of waiters) if (batch.order <= waiter.order) waiter.left--;
    const done = waiters.filter((waiter) => waiter.left <= 0);
    if (done.length === 0) return;
    waiters = waiters.filter((waiter) => waiter.left > 0);
    for (const waiter of done) waiter.resolve();
  };

  /** A batch that is answered ends no streams (DELIVER-6). */
  const answered = (batch: Batch): void => {
    batch.cuts = 0;
    batch.alone = false;
  };

  const land = (stream: Stream, batchId: string): Flight | undefined => {
    const flight = flights.get(batchId);
    // An answer of a stream that was given up, or to nothing that we sent, is no answer.
    if (flight === undefined || flight.stream !== stream) return undefined;
    flights.delete(batchId);
    bytesInFlight -= flight.batch.bytes.length;
    return flight;
  };

  const unkeep = (stream: Stream, batchId: string): Kept | undefined => {
    const one = kept.get(batchId);
    if (one === undefined || one.stream !== stream) return undefined;
    kept.delete(batchId);
    return one;
  };

  const commitWaitMs = (): number => options.commitTimeoutMs * 2 ** doublings;

  const retryAt = (batch: Batch, dueAt: number): void => {
    batch.dueAt = dueAt;
    let at = retries.length;
    while (at > 0 && (retries[at - 1] as Batch).dueAt > dueAt) at--;
    retries.splice(at, 0, batch);
  };

  const refuseAll = (code: FailureCode, message: string): void => {
    const all = [...retries.splice(0), ...fresh.splice(0)];
    for (const batch of all) settle(batch, { kind: 'refused', code, message });
  };

  /** What was in flight on a stream that ended waits for the next one (DELIVER-5, DELIVER-6). @returns the batches */
  const takeBack = (stream: Stream, error: SluiceClientError | undefined, drained: boolean): Batch[] => {
    const now = clock.now();
    const lost = [...flights.values()].filter((flight) => flight.stream === stream).map((flight) => flight.batch);
    for (const batch of lost) land(stream, batch.batchId);
    // DELIVER-9: before what was in flight, for it was sent before that.
    const uncommitted = [...kept.values()].filter((one) => one.stream === stream).map((one) => one.batch);
    for (const batch of uncommitted) {
      kept.delete(batch.batchId);
      retryAt(batch, now);
    }
    const refused = error?.code === 'invalid_argument' && error.reason !== undefined;
    const [only] = lost;
    if (refused && only !== undefined && lost.length === 1) {
      settle(only, { kind: 'refused', code: error.code, message: error.message });
      return lost;
    }
    for (const batch of lost) {
      if (!drained) batch.cuts++;
      batch.alone = refused || batch.cuts >= suspiciousCuts;
      const waits = lost.length === 1 ? batch.cuts - suspiciousCuts : 0;
      retryAt(batch, waits > 0 ? now + options.retry.capMs * 2 ** Math.min(waits - 1, maxWaits) : now);
    }
    return lost;
  };

  const endStream = (stream: Stream, given: SluiceClientError | undefined): void => {
    if (stream.state === 'ended') return;
    const was = stream.state;
    stream.state = 'ended';
    streams.delete(stream);
    const now = clock.now();
    const lost = takeBack(stream, given, was === 'draining');
    const error = given ?? (was === 'draining' ? undefined : silentEnd(was, lost.length));
    if (current === stream) {
      current = undefined;
      countFailure(stream.openedAt);
      const asked = Math.min(longestWait, error?.retryAfterMs ?? 0);
      connectAt = Math.max(connectAt, now + asked + fullJitter(streak, options.retry, random));
    }
    if (error !== undefined) {
      options.onError(withSuspect(error, lost));
      if (refusals.has(error.code) && error.reason !== undefined) {
        refusedSince ??= now;
        if (now - refusedSince >= options.refusalGraceMs) refuseAll(error.code, error.message);
      }
    }
    pump();
  };

  /** An answer that does not speak of each event once is none (DELIVER-2): the stream ends, and the batch goes out again. */
  const miscounted = (batch: Batch, { accepted, rejected }: Acceptance, stream: Stream): void => {
    stream.link?.abort();
    const message =
      `Batch ${batch.batchId} has ${batch.events} events, and the answer speaks of ${accepted} accepted and ${rejected} rejected: ` +
      'check that baseUrl is the address of a gateway, and that no other server answers in its place.';
    endStream(stream, new SluiceClientError('internal', message));
  };

  const openStream = (): void => {
    const stream: Stream = { link: undefined, state: 'opening', openedAt: clock.now() };
    current = stream;
    streams.add(stream);
    opened++;
    const alive = (): boolean => !closed && stream.state !== 'ended';
    stream.link = options.open({
      onLimits(told) {
        if (!alive()) return;
        if (committing && told.maxUncommitted === 0) {
          stream.link?.abort();
          const message = 'The gateway tells no commits: it is older than this client.';
          endStream(stream, new SluiceClientError('unimplemented', message, { reason: 'no_commits' }));
          return;
        }
        limits = told;
        refusedSince = undefined;
        if (stream.state === 'opening') stream.state = 'open';
        pump();
      },
      onAccepted(batchId, result) {
        const flight = flights.get(batchId);
        if (!alive() || flight?.stream !== stream) return;
        const { batch } = flight;
        if (result.accepted + result.rejected !== batch.events) {
          miscounted(batch, result, stream);
          return;
        }
        land(stream, batchId);
        streak = 0;
        streakAt = -1;
        answered(batch);
        if (batch.acceptance === undefined) {
          batch.acceptance = result;
          acceptedNow.batches++;
          acceptedNow.events += result.accepted;
          options.onAccepted(batch, result);
        }
        const { position } = result;
        if (committing && position !== undefined) {
          // Field by field: what a gateway sends has more, such as a name of its own for the log's stream.
          const { shard, sequence } = position;
          kept.set(batchId, { batch, stream, shard, sequence, since: clock.now() });
        } else {
          settle(batch, { kind: 'delivered' });
        }
        pump();
      },
      onCommitted(shard, sequence) {
        if (!alive()) return;
        for (const one of kept.values()) {
          if (one.stream !== stream || one.shard !== shard || one.sequence > sequence) continue;
          kept.delete(one.batch.batchId);
          // What made no progress before moves again.
          if (one.batch.overdue) doublings = 0;
          settle(one.batch, { kind: 'delivered' });
        }
        pump();
      },
      onFailed(batchId, fault) {
        if (!alive()) return;
        const late = unkeep(stream, batchId);
        const flight = late === undefined ? land(stream, batchId) : { batch: late.batch, sentAt: late.since };
        if (flight === undefined) return;
        answered(flight.batch);
        if (fault.retryAfterMs === undefined) {
          settle(flight.batch, { kind: 'refused', code: fault.code, message: fault.message });
        } else {
          countFailure(flight.sentAt);
          const wait = Math.min(longestWait, fault.retryAfterMs) + fullJitter(streak, options.retry, random);
          const dueAt = clock.now() + wait;
          retryAt(flight.batch, dueAt);
          pausedUntil = Math.max(pausedUntil, dueAt);
        }
        pump();
      },
      onDraining() {
        if (!alive() || stream.state === 'draining') return;
        if (stream.state === 'opening') {
          // Nothing was sent on it. It counts as a failure: a gateway that does this forever is asked ever more seldom.
          stream.link?.abort();
          endStream(stream, new SluiceClientError('unavailable', 'The gateway drains, and takes no new stream.'));
          return;
        }
        stream.state = 'draining';
        stream.link?.finish(finishMs);
        if (current === stream) {
          current = undefined;
          // Not all of a gateway's clients at once.
          connectAt = Math.max(connectAt, clock.now() + random() * options.retry.baseMs);
        }
        pump();
      },
      onEnd(error) {
        if (alive()) endStream(stream, error);
      },
    });
    schedule(stream.openedAt + options.connectTimeoutMs);
  };

  const send = (batch: Batch, stream: Stream): void => {
    batch.attempt++;
    if (batch.attempt > 1) retried++;
    flights.set(batch.batchId, { batch, stream, sentAt: clock.now() });
    bytesInFlight += batch.bytes.length;
    stream.link?.send(batch);
  };

  /** Cuts batches that were closed before the limits were known (DELIVER-1: only such as were never sent). */
  const fitted = (): Batch | undefined => {
    const first = fresh[0];
    if (first === undefined) return undefined;
    if (first.bytes.length <= limits.maxBatchBytes && first.events <= limits.maxBatchEvents) return first;
    const parts = splitBatch(first, limits.maxBatchBytes, limits.maxBatchEvents);
    const batches = parts.map((part) => ({
      ...part,
      batchId: options.makeId(),
      order: first.order,
      ...unsent,
    }));
    fresh.splice(0, 1, ...batches);
    held = { ...held, batches: held.batches + batches.length - 1 };
    for (const waiter of waiters) if (first.order <= waiter.order) waiter.left += batches.length - 1;
    return fresh[0];
  };

  const expire = (now: number): void => {
    for (const stream of [...streams]) {
      if (stream.state === 'opening' && now - stream.openedAt >= options.connectTimeoutMs) {
        stream.link?.abort();
        endStream(stream, new SluiceClientError('deadline_exceeded', 'The gateway did not answer in time.'));
      }
    }
    const [oldest] = flights.values();
    if (oldest !== undefined && now - oldest.sentAt >= options.ackTimeoutMs) {
      oldest.stream.link?.abort();
      endStream(oldest.stream, new SluiceClientError('deadline_exceeded', 'A batch was not answered in time.'));
    }
    const [first] = kept.values();
    if (first !== undefined && now - first.since >= commitWaitMs()) {
      for (const { batch, since } of kept.values()) if (now - since >= commitWaitMs()) batch.overdue = true;
      doublings = Math.min(doublings + 1, maxDoublings);
      first.stream.link?.abort();
      endStream(
        first.stream,
        new SluiceClientError('deadline_exceeded', 'An accepted batch was not committed in time.'),
      );
    }
  };

  function pump(): void {
    if (closed) return;
    const now = clock.now();
    expire(now);
    if (current === undefined && retries.length + fresh.length > 0) {
      if (now < connectAt) schedule(connectAt);
      else openStream();
    }
    const stream = current;
    if (stream?.state === 'open') {
      for (;;) {
        const [retry] = retries;
        if (retry !== undefined && retry.dueAt <= now) {
          if (!fits(retry.bytes.length, retry.alone)) break;
          retries.shift();
          send(retry, stream);
          continue;
        }
        if (now < pausedUntil) break;
        const batch = fitted();
        if (batch === undefined || !fits(batch.bytes.length)) break;
        fresh.shift();
        send(batch, stream);
      }
      const [retry] = retries;
      if (retry !== undefined && retry.dueAt > now) schedule(retry.dueAt);
    }
    // What is gathered and not closed waits for this, too: `hungry` says no until then.
    if (pausedUntil > now) schedule(pausedUntil);
    const [oldest] = flights.values();
    if (oldest !== undefined) schedule(oldest.sentAt + options.ackTimeoutMs);
    const [first] = kept.values();
    if (first !== undefined) schedule(first.since + commitWaitMs());
    if (hungry()) options.onHungry();
  }

  function hungry(): boolean {
    if (closed || fresh.length > 0 || clock.now() < pausedUntil) return false;
    return current === undefined ? retries.length === 0 : current.state === 'open' && fits(0);
  }

  /** One timer, at the earliest of what is asked. It may wake too early, after which `pump` asks again. */
  function schedule(at: number): void {
    if (at >= wakeAt) return;
    cancelWake?.();
    wakeAt = at;
    cancelWake = clock.after(Math.max(0, at - clock.now()), () => {
      cancelWake = undefined;
      wakeAt = Number.POSITIVE_INFINITY;
      if (current?.state === 'opening') schedule(current.openedAt + options.connectTimeoutMs);
      pump();
    });
  }

  return {
    add(batch) {
      const { bytes, events } = batch;
      held = { batches: held.batches + 1, events: held.events + events, bytes: held.bytes + bytes.length };
      fresh.push({
        bytes,
        events,
        batchId: options.makeId(),
        order: ++order,
        ...unsent,
      });
      pump();
    },
    settled() {
      if (held.batches === 0) return Promise.resolve();
      return new Promise((resolve) => waiters.push({ order, left: held.batches, resolve }));
    },
    get hungry() {
      return hungry();
    },
    get limits() {
      return limits;
    },
    get bytes() {
      return held.bytes;
    },
    stats: () => ({
      ...held,
      batchesInFlight: flights.size,
      bytesInFlight,
      accepted: { ...acceptedNow },
      retries: retried,
      streams: opened,
      connected: current?.state === 'open',
    }),
    close() {
      if (closed) return;
      closed = true;
      cancelWake?.();
      const busy = new Set([...flights.values(), ...kept.values()].map(({ stream }) => stream));
      for (const stream of streams) {
        if (stream.state === 'open' && !busy.has(stream)) stream.link?.finish(closingMs);
        else stream.link?.abort();
      }
      for (const waiter of waiters.splice(0)) waiter.resolve();
    },
  };
}

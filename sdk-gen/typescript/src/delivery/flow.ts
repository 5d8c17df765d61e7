/**
 * What happens to batches and streams: `pump` sends what may be sent and opens a stream when one is wanted; the answers of a stream, its end
 * and the alarm lead back to it. The rules are at the head of delivery.ts.
 */
import type { Clock } from '../clock.js';
import { SluiceClientError } from '../errors.js';
import type { Account } from './account.js';
import type { Alarm } from './alarm.js';
import type { Backlog } from './backlog.js';
import type { Batch, ToldBatch } from './batch.js';
import type { Commits } from './commits.js';
import type { Flights } from './flights.js';
import type { Acceptance, BatchFault, Link, LinkEvents, LinkLimits } from './link.js';
import type { Pace } from './pace.js';
import type { Stream } from './stream.js';
import { miscounted, refusals, silentEnd, suspiciousLosses, withSuspect } from './stream-faults.js';

/** What the flow needs of the delivery's options; see DeliveryOptions. */
export interface FlowOptions {
  readonly durability: 'accepted' | 'committed';
  readonly maxBatchesInFlight: number;
  readonly maxBytesInFlight: number;
  readonly retry: { readonly capMs: number };
  readonly ackTimeoutMs: number;
  readonly connectTimeoutMs: number;
  readonly clock: Clock;
  readonly open: (events: LinkEvents) => Link;
  readonly onAccepted: (batch: ToldBatch, acceptance: Acceptance) => void;
  readonly onHungry: () => void;
  readonly onError: (error: SluiceClientError) => void;
}

/** A delivery: every batch that is not settled, and every stream. */
export interface Flow {
  readonly options: FlowOptions;
  readonly account: Account;
  readonly backlog: Backlog;
  readonly flights: Flights;
  readonly commits: Commits;
  readonly pace: Pace;
  readonly alarm: Alarm;
  /** Those that have not ended. */
  readonly streams: Set<Stream>;
  /** The one that batches are sent on. */
  current: Stream | undefined;
  limits: LinkLimits;
  /** Streams opened so far. */
  opened: number;
  /** Sends with an attempt above 1. */
  retried: number;
  closed: boolean;
}

/** How long a draining stream may still answer, and one that was closed with nothing open may take to end, ms. */
const finishMs = 30_000;
const closingMs = 1_000;
/** How often the wait of a batch under which streams end is doubled (DELIVER-6). */
const maxWaits = 3;

const isCommitting = ({ options }: Flow): boolean => options.durability === 'committed';

/** Ends what is overdue, sends what may be sent, and sets the alarm for the rest. */
export function pump(flow: Flow): void {
  if (flow.closed) return;
  const { backlog, flights, commits, pace, alarm, options } = flow;
  const now = options.clock.now();
  expire(flow, now);
  if (flow.current === undefined && backlog.retries + backlog.fresh > 0) {
    if (now < pace.connectAt) alarm.setFor(pace.connectAt);
    else openStream(flow);
  }
  const stream = flow.current;
  if (stream?.state === 'open') fill(flow, stream, now);
  // What is gathered and not closed waits for this, too: `hungry` says no until then.
  if (pace.pausedUntil > now) alarm.setFor(pace.pausedUntil);
  const { oldest } = flights;
  if (oldest !== undefined) alarm.setFor(oldest.sentAt + options.ackTimeoutMs);
  const { dueAt } = commits;
  if (dueAt !== undefined) alarm.setFor(dueAt);
  if (isHungry(flow)) options.onHungry();
}

/** The alarm rang. */
export function ring(flow: Flow): void {
  const { current, alarm, options } = flow;
  if (current?.state === 'opening') alarm.setFor(current.openedAt + options.connectTimeoutMs);
  pump(flow);
}

/** A batch added now would go out now, or make the client connect. */
export function isHungry(flow: Flow): boolean {
  const { backlog, pace, current, options } = flow;
  if (flow.closed || backlog.fresh > 0 || options.clock.now() < pace.pausedUntil) return false;
  return current === undefined ? backlog.retries === 0 : current.state === 'open' && fits(flow, 0);
}

/** Streams on which nothing is open are finished, the others are aborted. */
export function closeStreams({ streams, flights, commits }: Flow): void {
  const busy = new Set([...flights.streams(), ...commits.streams()]);
  for (const stream of streams) {
    if (stream.state === 'open' && !busy.has(stream)) stream.link?.finish(closingMs);
    else stream.link?.abort();
  }
}

/** DELIVER-3, DELIVER-6, DELIVER-10 */
function fits(flow: Flow, bytes: number, alone = false): boolean {
  const { flights, commits, limits, options } = flow;
  const windowBytes = Math.min(options.maxBytesInFlight, limits.maxBytesInFlight);
  return (
    flights.count < (alone ? 1 : options.maxBatchesInFlight) &&
    (flights.count === 0 || flights.bytes + bytes <= windowBytes) &&
    (!isCommitting(flow) || flights.count + commits.count < limits.maxUncommitted) &&
    !flights.oneAlone
  );
}

/** Sends as much as fits: retries that are due, then what was never sent. */
function fill(flow: Flow, stream: Stream, now: number): void {
  const { backlog, pace, alarm } = flow;
  for (;;) {
    const retry = backlog.nextRetry;
    if (retry !== undefined && retry.dueAt <= now) {
      if (!fits(flow, retry.bytes.length, retry.alone)) break;
      backlog.takeRetry();
      send(flow, retry, stream);
      continue;
    }
    if (now < pace.pausedUntil) break;
    const batch = backlog.nextFresh(flow.limits);
    if (batch === undefined || !fits(flow, batch.bytes.length)) break;
    backlog.takeFresh();
    send(flow, batch, stream);
  }
  const retry = backlog.nextRetry;
  if (retry !== undefined && retry.dueAt > now) alarm.setFor(retry.dueAt);
}

function send(flow: Flow, batch: Batch, stream: Stream): void {
  batch.attempt++;
  if (batch.attempt > 1) flow.retried++;
  flow.flights.start(batch, stream, flow.options.clock.now());
  stream.link?.send(batch);
}

/** Gives up the streams that let the client wait for too long. */
function expire(flow: Flow, now: number): void {
  const { streams, flights, commits, options } = flow;
  const giveUp = (stream: Stream, why: string): void => {
    stream.link?.abort();
    endStream(flow, stream, new SluiceClientError('deadline_exceeded', why));
  };
  for (const stream of [...streams]) {
    const isLate = stream.state === 'opening' && now - stream.openedAt >= options.connectTimeoutMs;
    if (isLate) giveUp(stream, 'The gateway did not answer in time.');
  }
  const { oldest } = flights;
  if (oldest !== undefined && now - oldest.sentAt >= options.ackTimeoutMs) {
    giveUp(oldest.stream, 'A batch was not answered in time.');
  }
  const uncommitted = commits.expire(now);
  if (uncommitted !== undefined) giveUp(uncommitted, 'An accepted batch was not committed in time.');
}

function openStream(flow: Flow): void {
  const { options, streams, alarm } = flow;
  const stream: Stream = { link: undefined, state: 'opening', openedAt: options.clock.now() };
  flow.current = stream;
  streams.add(stream);
  flow.opened++;
  const whileAlive =
    <A extends unknown[]>(take: (flow: Flow, stream: Stream, ...told: A) => void) =>
    (...told: A): void => {
      if (!flow.closed && stream.state !== 'ended') take(flow, stream, ...told);
    };
  stream.link = options.open({
    onLimits: whileAlive(takeLimits),
    onAccepted: whileAlive(takeAcceptance),
    onFailed: whileAlive(takeFailure),
    onCommitted: whileAlive(takeCommit),
    onDraining: whileAlive(takeDraining),
    onEnd: whileAlive(endStream),
  });
  alarm.setFor(stream.openedAt + options.connectTimeoutMs);
}

function takeLimits(flow: Flow, stream: Stream, limits: LinkLimits): void {
  if (isCommitting(flow) && limits.maxUncommitted === 0) {
    stream.link?.abort();
    const message = 'The gateway tells no commits: it is older than this client.';
    endStream(flow, stream, new SluiceClientError('unimplemented', message, { reason: 'no_commits' }));
    return;
  }
  flow.limits = limits;
  flow.pace.welcomed();
  if (stream.state === 'opening') stream.state = 'open';
  pump(flow);
}

function takeAcceptance(flow: Flow, stream: Stream, batchId: string, result: Acceptance): void {
  const { flights, commits, account, pace, options } = flow;
  const batch = flights.on(stream, batchId)?.batch;
  if (batch === undefined) return;
  if (result.accepted + result.rejected !== batch.events) {
    // The batch goes out again.
    stream.link?.abort();
    endStream(flow, stream, miscounted(batch, result));
    return;
  }
  flights.land(stream, batchId);
  pace.succeeded();
  isAnswered(batch);
  if (account.accept(batch, result)) options.onAccepted(batch, result);
  const { position } = result;
  if (isCommitting(flow) && position !== undefined) commits.keep(batch, stream, position, options.clock.now());
  else account.settle(batch, { kind: 'delivered' });
  pump(flow);
}

function takeCommit(flow: Flow, stream: Stream, shard: number, sequence: bigint): void {
  const { commits, account } = flow;
  commits.cover(stream, shard, sequence, (batch) => account.settle(batch, { kind: 'delivered' }));
  pump(flow);
}

function takeFailure(flow: Flow, stream: Stream, batchId: string, fault: BatchFault): void {
  const { flights, commits, backlog, account, pace } = flow;
  const kept = commits.drop(stream, batchId);
  const failed = kept === undefined ? flights.land(stream, batchId) : { batch: kept.batch, sentAt: kept.since };
  if (failed === undefined) return;
  const { batch, sentAt } = failed;
  isAnswered(batch);
  if (fault.retryAfterMs === undefined) {
    account.settle(batch, { kind: 'refused', code: fault.code, message: fault.message });
  } else {
    pace.failed(sentAt);
    backlog.retryAt(batch, pace.pause(fault.retryAfterMs));
  }
  pump(flow);
}

/** A batch that is answered ends no streams (DELIVER-6). */
function isAnswered(batch: Batch): void {
  batch.lostStreams = 0;
  batch.alone = false;
}

function takeDraining(flow: Flow, stream: Stream): void {
  if (stream.state === 'draining') return;
  if (stream.state === 'opening') {
    // Nothing was sent on it. It counts as a failure: a gateway that does this forever is asked ever more seldom.
    stream.link?.abort();
    endStream(flow, stream, new SluiceClientError('unavailable', 'The gateway drains, and takes no new stream.'));
    return;
  }
  stream.state = 'draining';
  stream.link?.finish(finishMs);
  if (flow.current === stream) {
    flow.current = undefined;
    flow.pace.spreadConnect();
  }
  pump(flow);
}

function endStream(flow: Flow, stream: Stream, given: SluiceClientError | undefined): void {
  if (stream.state === 'ended') return;
  const { pace, streams, options } = flow;
  const was = stream.state;
  stream.state = 'ended';
  streams.delete(stream);
  const lost = takeBack(flow, stream, given, was === 'draining');
  const error = given ?? (was === 'draining' ? undefined : silentEnd(was, lost.length));
  if (flow.current === stream) {
    flow.current = undefined;
    pace.failed(stream.openedAt);
    pace.delayConnect(error?.retryAfterMs ?? 0);
  }
  if (error !== undefined) {
    options.onError(withSuspect(error, lost));
    if (refusals.has(error.code) && error.reason !== undefined && pace.refused()) refuseAll(flow, error);
  }
  pump(flow);
}

/** What was in flight on a stream that ended waits for the next one (DELIVER-5, DELIVER-6). @returns the batches */
function takeBack(flow: Flow, stream: Stream, error: SluiceClientError | undefined, drained: boolean): Batch[] {
  const { flights, commits, backlog, account, options } = flow;
  const now = options.clock.now();
  const lost = flights.landAll(stream);
  // DELIVER-9: before what was in flight, for it was sent before that.
  for (const batch of commits.take(stream)) backlog.retryAt(batch, now);
  const refused = error?.code === 'invalid_argument' && error.reason !== undefined;
  const [only] = lost;
  if (refused && only !== undefined && lost.length === 1) {
    account.settle(only, { kind: 'refused', code: error.code, message: error.message });
    return lost;
  }
  for (const batch of lost) {
    if (!drained) batch.lostStreams++;
    batch.alone = refused || batch.lostStreams >= suspiciousLosses;
    const waits = lost.length === 1 ? batch.lostStreams - suspiciousLosses : 0;
    const waitMs = waits > 0 ? options.retry.capMs * 2 ** Math.min(waits - 1, maxWaits) : 0;
    backlog.retryAt(batch, now + waitMs);
  }
  return lost;
}

function refuseAll({ backlog, account }: Flow, { code, message }: SluiceClientError): void {
  for (const batch of backlog.takeAll()) account.settle(batch, { kind: 'refused', code, message });
}

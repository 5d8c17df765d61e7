/**
 * SluiceClient: what a host uses. It encodes, counts, keeps the buffer's bound and calls back; batches are gathered by
 * batcher.ts and delivered by delivery.ts.
 *
 * Nothing that happens in the background is thrown into the host: `onError` and `onRejected` report trouble, and `stats()` counts it. A
 * callback that throws is ignored.
 */
import { fromBinary } from '@bufbuild/protobuf';
import { type Event, EventSchema } from '../gen/sluice/event/v1/event_pb.js';
import { type Batcher, createBatcher, eventAt } from './batcher.js';
import { type Clock, systemClock } from './clock.js';
import {
  type Acceptance,
  createDelivery,
  type Delivery,
  type Link,
  type LinkEvents,
  type Outcome,
  type ToldBatch,
} from './delivery.js';
import type { EventInit } from './event-init.js';
import { openIngestStream } from './ingest-stream.js';
import { type Rejected, resolveClientOptions, type SluiceClientOptions } from './options.js';
import { uuidV7 } from './uuid-v7.js';

/** Also in package.json; a test holds the two together. */
export const clientVersion = '0.1.0';

export interface ClientStats {
  /** Events that `track` took. */
  readonly tracked: number;
  /** Events delivered: `accepted` or `committed`, as the option `durability` has it. */
  readonly delivered: number;
  /** Events that the log was heard to have: durable, and on their way into ClickHouse. */
  readonly accepted: number;
  /** Events that ClickHouse was heard to have; with durability `committed` only. */
  readonly committed: number;
  /** Events finally refused. */
  readonly rejected: number;
  /** Times that `track` took no event: buffer full, or closed. */
  readonly turnedAway: number;
  /** Events tracked and neither delivered nor rejected yet. */
  readonly pending: number;
  /** Encoded bytes of these. */
  readonly pendingBytes: number;
  readonly batchesInFlight: number;
  readonly bytesInFlight: number;
  /** Batches delivered. */
  readonly batchesDelivered: number;
  /** Sends of a batch beyond its first. */
  readonly retries: number;
  /** Connections opened, the first included. */
  readonly connections: number;
  /** A stream is open. */
  readonly connected: boolean;
}

export interface CloseReport {
  /** Events of the client's whole life that were delivered, as the option `durability` has it. */
  readonly delivered: number;
  /** Events of the client's whole life that were finally refused. */
  readonly rejected: number;
  /**
   * What was given up. An event of it may have arrived, when only its acknowledgement did not. `accepted` of these events
   * are surely in the log (with durability `committed`).
   */
  readonly undelivered: { readonly events: number; readonly batches: number; readonly accepted: number };
}

const fullMark = 0.75;

export class SluiceClient {
  readonly #clock: Clock;
  readonly #options: ReturnType<typeof resolveClientOptions>;
  readonly #callbacks: Pick<SluiceClientOptions, 'onRejected' | 'onError'>;
  readonly #batcher: Batcher;
  readonly #delivery: Delivery;
  #tracked = 0;
  #delivered = 0;
  #accepted = 0;
  #rejected = 0;
  #turnedAway = 0;
  #batchesDelivered = 0;
  #overdue = false;
  #cancelLinger: (() => void) | undefined;
  #roomWaiters: ((room: boolean) => void)[] = [];
  #closing: Promise<CloseReport> | undefined;

  /**
   * Connects when there is something to send.
   * @param open for tests: opens a stream
   * @throws TypeError that names the option at fault
   */
  constructor(options: SluiceClientOptions, open?: (events: LinkEvents) => Link) {
    const resolved = resolveClientOptions(options);
    const clock = options.clock ?? systemClock;
    this.#options = resolved;
    this.#clock = clock;
    this.#callbacks = options;
    const makeId = (): string => uuidV7(clock.wall());
    this.#delivery = createDelivery({
      ...resolved,
      retry: { baseMs: resolved.retryBaseMs, capMs: resolved.retryCapMs },
      clock,
      random: options.random ?? Math.random,
      makeId,
      open:
        open ??
        ((events) => openIngestStream({ ...resolved, userAgent: `sluice-node/${clientVersion}`, clock }, events)),
      onAccepted: (batch, acceptance) => this.#accept(batch, acceptance),
      onSettled: (batch, outcome) => this.#settle(batch, outcome),
      onHungry: () => {
        if (this.#overdue || this.#batcher.events >= resolved.batchEvents) this.#seal();
      },
      onError: (error) => this.#call(() => this.#callbacks.onError?.(error)),
    });
    this.#batcher = createBatcher({
      batchBytes: Math.min(resolved.batchBytes, resolved.maxBufferBytes / 2),
      batchEvents: resolved.batchEvents,
      keepsUp: () => this.#delivery.hungry,
      maxBatchBytes: () => this.#delivery.limits.maxBatchBytes,
      maxBatchEvents: () => this.#delivery.limits.maxBatchEvents,
      makeId,
      onSealed: (batch) => {
        this.#overdue = false;
        this.#cancelLinger?.();
        this.#cancelLinger = undefined;
        this.#delivery.add(batch);
      },
    });
  }

  /**
   * Takes an event, to be sent soon. Fills in `eventId` (UUID v7) and `occurredAt` where they are missing.
   *
   * Never throws and never waits. An event that cannot be encoded (a value of the wrong type, larger than a batch may be)
   * counts as taken and goes to `onRejected`.
   * @returns false, and the event is not taken, when the buffer is full (await `ready()`) or the client is closed.
   */
  track(event: EventInit): boolean {
    if (this.#closing !== undefined || this.#buffered >= this.#options.maxBufferBytes) {
      this.#turnedAway++;
      return false;
    }
    this.#tracked++;
    try {
      this.#batcher.add(event, this.#clock.wall());
    } catch (error) {
      const message = `event ${shownId(event)}: ${shownThrown(error)}`;
      const code = error instanceof RangeError ? 'event_too_large' : 'invalid_event';
      this.#reject({ batchId: '', events: 1, code, message, rejections: [] });
      return true;
    }
    // The event may have begun a batch, also by closing the one before.
    if (this.#batcher.events > 0 && !this.#overdue && this.#cancelLinger === undefined) this.#linger();
    return true;
  }

  /** Resolves with true when the buffer has room again, at once when it has; with false when the client is closed. */
  ready(): Promise<boolean> {
    if (this.#closing !== undefined) return Promise.resolve(false);
    if (this.#buffered < this.#options.maxBufferBytes) return Promise.resolve(true);
    return new Promise((resolve) => this.#roomWaiters.push(resolve));
  }

  /**
   * Sends what is gathered. Resolves when everything tracked so far is acknowledged or finally refused; as long as the
   * gateway cannot be reached, it does not.
   */
  flush(): Promise<void> {
    this.#seal();
    return this.#delivery.settled();
  }

  /**
   * Takes no more events, delivers what it has within `timeoutMs` (10,000 when not given or no number; `Infinity` is 24 days), gives
   * up the rest and ends the connection. Never rejects; a second call returns the first one's report.
   */
  close(options: { timeoutMs?: number } = {}): Promise<CloseReport> {
    this.#closing ??= this.#close(closingTime(options.timeoutMs));
    return this.#closing;
  }

  async #close(timeoutMs: number): Promise<CloseReport> {
    // Callbacks that run below may call close() again, and must find this promise.
    await Promise.resolve();
    for (const waiter of this.#roomWaiters.splice(0)) waiter(false);
    let cancel: (() => void) | undefined;
    await Promise.race([
      this.flush(),
      new Promise<void>((resolve) => {
        cancel = this.#clock.after(timeoutMs, resolve);
      }),
    ]);
    cancel?.();
    const { events, batches, accepted } = this.#delivery.stats();
    this.#delivery.close();
    return {
      delivered: this.#delivered,
      rejected: this.#rejected,
      undelivered: { events, batches, accepted: accepted.events },
    };
  }

  stats(): ClientStats {
    const { events, bytes, batchesInFlight, bytesInFlight, retries, streams, connected } = this.#delivery.stats();
    return {
      tracked: this.#tracked,
      delivered: this.#delivered,
      accepted: this.#accepted,
      committed: this.#options.durability === 'committed' ? this.#delivered : 0,
      rejected: this.#rejected,
      turnedAway: this.#turnedAway,
      pending: events + this.#batcher.events,
      pendingBytes: bytes + this.#batcher.bytes,
      batchesInFlight,
      bytesInFlight,
      batchesDelivered: this.#batchesDelivered,
      retries,
      connections: streams,
      connected,
    };
  }

  get #buffered(): number {
    return this.#delivery.bytes + this.#batcher.bytes;
  }

  #seal(): void {
    this.#batcher.seal();
  }

  /** A batch that is old enough is sent when the gateway keeps up; else it goes on growing, which makes batches larger. */
  #linger(): void {
    this.#cancelLinger = this.#clock.after(this.#options.lingerMs, () => {
      this.#cancelLinger = undefined;
      this.#overdue = true;
      if (this.#delivery.hungry) this.#seal();
    });
  }

  /** Rejections are reported when they are known, not when the rest of the batch is delivered. */
  #accept(batch: ToldBatch, { accepted, rejected, rejections }: Acceptance): void {
    this.#accepted += accepted;
    if (rejected === 0) return;
    this.#reject({
      batchId: batch.batchId,
      events: rejected,
      code: 'invalid_argument',
      message: `The gateway refused ${rejected} of ${batch.events} events.`,
      rejections: rejections.map((rejection) => ({ ...rejection, event: decodeAt(batch.bytes, rejection.index) })),
    });
  }

  #settle(batch: ToldBatch, outcome: Outcome): void {
    const left = batch.events - (batch.acceptance?.rejected ?? 0);
    if (outcome.kind === 'refused') {
      const { code, message } = outcome;
      this.#reject({ batchId: batch.batchId, events: left, code, message, rejections: [] });
    } else {
      this.#delivered += left;
      this.#batchesDelivered++;
    }
    if (this.#roomWaiters.length > 0 && this.#buffered < this.#options.maxBufferBytes * fullMark) {
      for (const waiter of this.#roomWaiters.splice(0)) waiter(true);
    }
  }

  #reject(rejected: Rejected): void {
    this.#rejected += rejected.events;
    this.#call(() => this.#callbacks.onRejected?.(rejected));
  }

  #call(callback: () => unknown): void {
    try {
      const result = callback();
      // An async callback that fails must not end the process as an unhandled rejection either.
      if (result instanceof Promise) result.catch(() => {});
    } catch {
      // The host's fault, and not one that may stop the delivery of its events.
    }
  }
}

/** Milliseconds for close. What is beyond Node's timers would end at once, as would what is no number. */
const closingTime = (asked: number | undefined): number =>
  typeof asked !== 'number' || Number.isNaN(asked) ? 10_000 : Math.min(Math.max(0, asked), 2 ** 31 - 1);

/** The same as `new SluiceClient(options)`. */
export const createClient = (options: SluiceClientOptions): SluiceClient => new SluiceClient(options);

/** The id of an event that cannot be encoded, and may be anything. */
function shownId(event: unknown): string {
  try {
    const { eventId } = event as { eventId?: unknown };
    if (typeof eventId === 'string' && eventId !== '') return JSON.stringify(eventId.slice(0, 64));
  } catch {
    // It is no object, or its getter throws.
  }
  return 'without an eventId';
}

/** What encoding threw: also what a getter of the event throws, which may be anything. */
function shownThrown(error: unknown): string {
  try {
    return error instanceof Error ? String(error.message) : String(error);
  } catch {
    return 'a getter of it throws';
  }
}

function decodeAt(bytes: Uint8Array, index: number): Event | undefined {
  const event = eventAt(bytes, index);
  try {
    return event === undefined ? undefined : fromBinary(EventSchema, event);
  } catch {
    return undefined;
  }
}

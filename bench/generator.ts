/**
 * The load generator's core: sends by a pace, keeps what is in flight, sends failed batches again, and measures each
 * batch from the moment it should have left until its ack. Knows nothing of sockets; the clock is the caller's.
 */
import { type LatencyHistogram, newHistogram, record } from '../lib/testing/latency.js';
import type { Pace } from './pace.js';
import { copyOf, type Prepared, patch, patchAttempt } from './payload.js';
import type { BatchSlot, Sender, SenderEvents, SendOutcome } from './sender.js';

export interface GeneratorOptions {
  /** Prepared messages that the slots are filled with, in turn. */
  readonly messages: readonly Prepared[];
  /** Most batches in flight (sent, or waiting to be sent again). At most 65,536. */
  readonly inFlight: number;
  /** 32 bits that no other generator on the same gateway has. */
  readonly run: number;
  /** Ms, monotonic. @default performance.now */
  readonly now?: () => number;
  /** Ms since 1970. @default Date.now */
  readonly wallClock?: () => number;
  /** Hears of each batch, to count in another way. */
  readonly watch?: BatchWatch;
}

export interface BatchWatch {
  /** The batch has left for the first time. */
  sent(slot: BatchSlot): void;
  /** @param at by the generator's clock */
  outcome(slot: BatchSlot, outcome: SendOutcome, at: number): void;
}

export interface Counts {
  /** Events that were acknowledged. */
  acked: number;
  /** Batches that were acknowledged. */
  batches: number;
  /** Events that the gateway found invalid: with this generator's events there must be none. */
  rejected: number;
  /** Sends beyond the first of a batch. */
  resends: number;
  /** Batches that no retry can help. */
  refused: number;
}

export interface Window {
  /** Ms of the window. */
  readonly ms: number;
  readonly counts: Counts;
  /** From the intended send time to the ack, of batches that were intended in the window. */
  readonly ack: LatencyHistogram;
  /** How late batches left: the generator's own lateness and the server's back-pressure, both part of `ack`. */
  readonly lag: LatencyHistogram;
}

export interface Generator {
  readonly events: SenderEvents;
  /** Gives the sender, which needs `events` to be made. */
  attach(sender: Sender): void;
  /** Sends by this pace from now on; undefined stops sending anything new. */
  pace(pace: Pace | undefined): void;
  /** Sends what is due. @returns ms until it should be called again */
  tick(): number;
  /** Starts the measured window: counts and histograms begin at 0. */
  mark(): void;
  /** Ends the window; latencies of batches intended in it are recorded even when their ack comes later. */
  close(): void;
  /** The window; complete when nothing is in flight any more. */
  window(): Window;
  /** Counts since the start. */
  readonly total: Readonly<Counts>;
  /** Batches without an ack. */
  readonly inFlight: number;
  /** Why the last batch was sent again. */
  readonly lastReason: string | undefined;
  /** Set when the run cannot go on. */
  readonly error: Error | undefined;
}

const noCounts = (): Counts => ({ acked: 0, batches: 0, rejected: 0, resends: 0, refused: 0 });

/** Never sleep longer than this, so that retries and stops are noticed. */
const longestTickMs = 20;

function slotsOf({ messages, inFlight }: GeneratorOptions): BatchSlot[] {
  return Array.from({ length: inFlight }, (_, index) => {
    const message = messages[index % messages.length];
    if (message === undefined) throw new Error('a generator needs at least one message');
    return { index, message: copyOf(message), number: 0, attempt: 0, intended: 0 };
  });
}

interface Retry {
  readonly at: number;
  readonly slot: BatchSlot;
}

/** Taken out before it is sent: a sender may tell the outcome at once. */
function takeDue(retries: Retry[], now: number): BatchSlot | undefined {
  const i = retries.findIndex(({ at }) => at <= now);
  return i < 0 ? undefined : retries.splice(i, 1)[0]?.slot;
}

/** Counts since the start, and counts and latencies of the window. */
function createBook(now: () => number) {
  const total = noCounts();
  let counts = noCounts();
  let latencies = { ack: newHistogram(), lag: newHistogram() };
  let start = Number.POSITIVE_INFINITY;
  let end = Number.POSITIVE_INFINITY;
  const inWindow = (at: number) => at >= start && at < end;
  return {
    total,
    count(what: keyof Counts, by: number): void {
      total[what] += by;
      if (inWindow(now())) counts[what] += by;
    },
    /** Of a batch that was intended in the window, whenever it ended. */
    record(what: 'ack' | 'lag', intended: number, at: number): void {
      if (inWindow(intended)) record(latencies[what], at - intended);
    },
    mark(): void {
      counts = noCounts();
      latencies = { ack: newHistogram(), lag: newHistogram() };
      start = now();
      end = Number.POSITIVE_INFINITY;
    },
    close(): void {
      end = now();
    },
    window: (): Window => ({ ms: (Number.isFinite(end) ? end : now()) - start, counts: { ...counts }, ...latencies }),
  };
}

export function createGenerator(options: GeneratorOptions): Generator {
  const now = options.now ?? (() => performance.now());
  const wallClock = options.wallClock ?? Date.now;
  const slots = slotsOf(options);
  const free = slots.map((slot) => slot.index).reverse();
  const retries: Retry[] = [];
  const book = createBook(now);
  let sender: Sender | undefined;
  let pace: Pace | undefined;
  let sent = 0;
  let error: Error | undefined;
  let lastReason: string | undefined;

  const outcome = (index: number, number: number, result: SendOutcome): void => {
    const slot = slots[index];
    if (slot === undefined || slot.number !== number) {
      error ??= new Error('an outcome for a batch that is not in flight');
      return;
    }
    const at = now();
    options.watch?.outcome(slot, result, at);
    if (result.kind === 'retry') {
      lastReason = result.reason;
      retries.push({ at: at + result.afterMs, slot });
      return;
    }
    free.push(index);
    if (result.kind === 'refused') {
      lastReason = result.reason;
      book.count('refused', 1);
      return;
    }
    book.count('batches', 1);
    book.count('acked', result.accepted);
    book.count('rejected', result.rejected);
    book.record('ack', slot.intended, at);
  };

  const resend = (at: number): boolean => {
    for (let slot = takeDue(retries, at); slot !== undefined; slot = takeDue(retries, at)) {
      patchAttempt(slot.message, slot.attempt + 1, wallClock());
      if (sender?.send(slot) !== true) {
        retries.push({ at, slot });
        return false;
      }
      slot.attempt++;
      book.count('resends', 1);
    }
    return true;
  };

  const tick = (): number => {
    const at = now();
    if (error !== undefined || sender === undefined || !resend(at)) return longestTickMs;
    if (pace === undefined) return longestTickMs;
    let due = pace.due(at);
    while (due > 0) {
      const index = sender.ready() ? free.pop() : undefined;
      if (index === undefined) return longestTickMs; // an outcome comes first
      const slot = slots[index]!;
      slot.number = sent >>> 0;
      slot.attempt = 1;
      patch(slot.message, { run: options.run, slot: index, number: slot.number }, wallClock());
      // The pace advances only when the batch really left, so that it keeps its intended time until then.
      slot.intended = Number.NaN;
      if (!sender.send(slot)) {
        free.push(index);
        return longestTickMs;
      }
      slot.intended = pace.take(at);
      options.watch?.sent(slot);
      sent++;
      book.record('lag', slot.intended, now());
      due--;
    }
    return Math.min(longestTickMs, pace.wait(now()));
  };

  return {
    events: {
      outcome,
      writable: () => undefined,
      failed: (reason) => {
        error ??= reason;
      },
    },
    attach: (given) => {
      sender = given;
    },
    pace: (given) => {
      pace = given;
    },
    tick,
    mark: book.mark,
    close: book.close,
    window: book.window,
    total: book.total,
    get inFlight() {
      return slots.length - free.length;
    },
    get lastReason() {
      return lastReason;
    },
    get error() {
      return error;
    },
  };
}

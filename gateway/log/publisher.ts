/**
 * Publishing to JetStream with a bounded window.
 *
 *   publisher.ts       this file: the window, and what becomes of each message
 *   hedge.ts           when a slow message is sent once more
 *   log-wire.ts        messages out and acks in, on the connection to NATS
 *   payload-pool.ts    buffers for messages
 *   log-connection.ts  whether the log can take batches now
 *
 *   PUB-1  At most `window` messages are on the wire or in the client library's buffers. nats.js has no bound of its own
 *       (docs/facts.md, FACT-6), so this is the one.
 *   PUB-2  Each message is settled once: by its ack, by the timeout, or by the loss of the connection.
 *   PUB-3  A message that was sent and has no answer may be in the log: outcome_unknown. One that was never sent is
 *       log_unavailable, and is surely not in the log.
 *   PUB-4  A timeout does not free the message's place in the window, because a stalled server leaves the bytes in our
 *       buffers. An ack, the loss of the connection (which drops the buffers), or a PONG to a PING sent later (which
 *       proves that the server has read them) does.
 *
 * With a hedger (hedge.ts, HEDGE-1 to HEDGE-3), a message without an ack after a while is sent once more as a retry, and the first ack settles
 * it. Its own place stays used until its own answer (PUB-4).
 *
 * Acks come to one inbox of our own, instead of js.publish's request per message: less to allocate, and late acks are seen.
 */
import { SluiceError } from '../../lib/errors.js';
import { failpoint } from '../../lib/failpoint.js';
import type { Logger } from '../../lib/logger.js';
import { createSparseLogger } from '../../lib/sparse-logger.js';
import type { GatewayClock } from '../clock.js';
import type { GatewayMetrics } from '../metrics.js';
import type { Hedger } from './hedge.js';
import type { LogReply, OpenLogWire } from './log-wire.js';
import { createPayloadPool } from './payload-pool.js';

export interface Stored {
  readonly stream: string;
  readonly sequence: bigint;
}

/** Something to publish. */
export interface Outgoing {
  readonly subject: string;
  /**
   * Called at most once, right before sending; undefined: there is nothing left to send. `allocate` gives a buffer whose
   * content is arbitrary; the publisher takes it back.
   */
  encode(allocate: (size: number) => Buffer): Buffer | undefined;
  /** Called exactly once. */
  settle(outcome: Stored | SluiceError): void;
}

export interface PublisherOptions {
  readonly openWire: OpenLogWire;
  readonly clock: GatewayClock;
  readonly logger: Logger;
  readonly metrics: GatewayMetrics;
  /** Most messages in flight. */
  readonly window: number;
  /** How long a message waits for the window, and then for its ack, ms. */
  readonly timeoutMs: number;
  /** No stream listens to a subject: it was deleted, or has no leader. */
  readonly onNoStream: () => void;
  /** Usual size of a message, bytes: buffers of this size are used again. */
  readonly payloadBytes: number;
  /** Undefined: no message is sent twice. */
  readonly hedger?: Hedger | undefined;
}

export interface Publisher {
  send(message: Outgoing): void;
  /** The connection is gone: settles everything, and refuses until `connected`. */
  disconnected(): void;
  connected(): void;
  /** Places of the window in use. */
  readonly inFlight: number;
  /** Messages that wait for the window. */
  readonly queued: number;
  close(): void;
}

interface Flight {
  readonly message: Outgoing;
  readonly payload: Buffer;
  readonly sentAt: number;
  /** Its copy: not thought of yet, without an answer, answered or never sent, lost with its connection. */
  copy: 'none' | 'open' | 'done' | 'lost';
  /** The answer to the message itself, when that was a refusal and its copy has no answer yet (HEDGE-3). */
  refusal: SluiceError | undefined;
}

interface Queued {
  readonly message: Outgoing;
  readonly queuedAt: number;
}

/** JetStream's error numbers that mean "no room" for the account or the server. */
const fullCodes: ReadonlySet<number> = new Set([10002, 10023, 10028, 10047]);
/** "Store failed": no room in the stream when it speaks of a maximum, otherwise a fault of the disk. */
const storeFailed = 10077;
/** How long a caller should wait when the log is full: workers free room about once a second. */
const fullRetryMs = 1_000;
const unavailableRetryMs = 500;
/** After an answer "full", nothing is sent twice for so long (HEDGE-2). */
const fullCalmMs = 1_000;

export function createPublisher(options: PublisherOptions): Publisher {
  const { metrics, window, timeoutMs, hedger } = options;
  const logger = createSparseLogger(options.logger);
  const { now, schedule, random } = options.clock;
  // Insertion order is the order of sending, so the oldest comes first.
  const flights = new Map<string, Flight>();
  /** Given up, but still holding its place (PUB-4). */
  const lost = new Map<string, Flight>();
  const pool = createPayloadPool(options.payloadBytes, window);
  let queue: Queued[] = [];
  let head = 0;
  let nextToken = 0;
  let online = true;
  let proving = false;
  let cancelTimer: (() => void) | undefined;
  let cancelHedge: (() => void) | undefined;
  let fullAt = Number.NEGATIVE_INFINITY;

  /** ±50 %, so that callers do not come back all at once. */
  const jittered = (ms: number): number => Math.round(ms * (0.5 + random()));
  const unavailable = (message: string): SluiceError =>
    new SluiceError('log_unavailable', message, { retryAfterMs: jittered(unavailableRetryMs) });
  const unknown = (message: string): SluiceError =>
    new SluiceError('outcome_unknown', message, { retryAfterMs: jittered(unavailableRetryMs), outcomeUnknown: true });

  const onReply = (token: string, reply: LogReply): void => {
    const flight = flights.get(token);
    if (flight === undefined) {
      if (lost.delete(token)) metrics.published('late', 0);
      pump();
      return;
    }
    pool.give(flight.payload);
    const outcome = readReply(reply, jittered);
    const ms = now() - flight.sentAt;
    if (isNoResponders(reply)) options.onNoStream();
    if (outcome instanceof SluiceError) {
      if (outcome.code === 'log_full') fullAt = now();
      if (flight.copy === 'open') {
        flight.refusal = outcome; // HEDGE-3
        return;
      }
      metrics.published(outcome.code === 'log_full' ? 'full' : 'refused', ms);
      if (outcome.code !== 'log_full')
        logger.warn({ subject: flight.message.subject, err: outcome }, 'publish refused');
    } else {
      failpoint('gateway.after-ack');
      metrics.published('stored', ms);
    }
    flights.delete(token);
    flight.message.settle(flight.copy === 'lost' && outcome instanceof SluiceError ? unanswered() : outcome);
    pump();
  };

  /** HEDGE-3: one copy was refused, the other's outcome is unknown. */
  const unanswered = (): SluiceError => unknown('The log refused the batch once, and may have it from a second try.');

  const onCopyReply = (token: string, reply: LogReply | undefined): void => {
    const flight = flights.get(token);
    if (flight === undefined) {
      if (reply !== undefined) metrics.hedged('late');
      return;
    }
    flight.copy = reply === undefined ? 'lost' : 'done';
    const { refusal } = flight;
    const outcome = reply === undefined ? undefined : readReply(reply, jittered);
    if (outcome !== undefined && !(outcome instanceof SluiceError)) {
      failpoint('gateway.after-ack');
      flights.delete(token);
      // Its bytes may still be on their way (PUB-4).
      if (refusal === undefined) lost.set(token, flight);
      metrics.hedged('won');
      metrics.published('stored', now() - flight.sentAt);
      flight.message.settle(outcome);
      pump();
      return;
    }
    if (outcome !== undefined) metrics.hedged('refused');
    // An answer that says nothing leaves the copy's outcome open.
    if (outcome?.outcomeUnknown === true) flight.copy = 'lost';
    if (refusal === undefined) return;
    flights.delete(token);
    metrics.published(refusal.code === 'log_full' ? 'full' : 'refused', now() - flight.sentAt);
    flight.message.settle(flight.copy === 'lost' ? unanswered() : refusal);
    pump();
  };

  const armHedge = (ms: number): void => {
    if (hedger !== undefined) cancelHedge ??= schedule(onHedgeTimer, ms);
  };

  const onHedgeTimer = (): void => {
    cancelHedge = undefined;
    if (hedger === undefined) return;
    const at = now();
    const limit = at - hedger.delayMs;
    // HEDGE-2
    const calm = online && head === queue.length && flights.size + lost.size < window && fullAt < at - fullCalmMs;
    for (const [token, flight] of flights) {
      if (flight.sentAt > limit) {
        armHedge(Math.max(1, flight.sentAt - limit));
        break;
      }
      if (flight.copy !== 'none') continue;
      // Looked at once: a message that may not be sent twice now is not looked at again.
      flight.copy = calm && hedger.send(flight.message.subject, token, flight.payload) ? 'open' : 'done';
    }
  };

  const pump = (): void => {
    while (online && head < queue.length && flights.size + lost.size < window) {
      const { message } = queue[head] as Queued;
      queue[head++] = undefined as unknown as Queued;
      transmit(message);
    }
    if (head === queue.length) {
      queue = [];
      head = 0;
    } else if (head > 1_024) {
      queue = queue.slice(head);
      head = 0;
    }
  };

  const transmit = (message: Outgoing): void => {
    const payload = message.encode(pool.take);
    if (payload === undefined) {
      message.settle(unavailable('Nothing was sent.'));
      return;
    }
    const token = (nextToken++).toString(36);
    failpoint('gateway.before-publish');
    try {
      wire.send(message.subject, token, payload);
    } catch (error) {
      // Thrown before anything is buffered: the connection is closed, or the payload is above the server's limit.
      logger.error({ err: error, bytes: payload.length }, 'publish failed');
      metrics.published('unsent', 0);
      message.settle(unavailable('The log did not take the batch.'));
      return;
    }
    failpoint('gateway.after-publish');
    flights.set(token, { message, payload, sentAt: now(), copy: 'none', refusal: undefined });
    if (hedger !== undefined) {
      hedger.earn();
      armHedge(hedger.delayMs);
    }
    metrics.sent(payload.length);
    arm(timeoutMs);
  };

  /** One timer for all: the timeout is the same for all, so the oldest decides. */
  const arm = (ms: number): void => {
    cancelTimer ??= schedule(onTimer, ms);
  };

  const onTimer = (): void => {
    cancelTimer = undefined;
    const limit = now() - timeoutMs;
    for (const [token, flight] of flights) {
      if (flight.sentAt > limit) break;
      flights.delete(token);
      lost.set(token, flight);
      metrics.published('timeout', 0);
      flight.message.settle(unknown(`The log did not acknowledge the batch within ${timeoutMs} ms.`));
    }
    while (head < queue.length && (queue[head] as Queued).queuedAt <= limit) {
      const { message } = queue[head] as Queued;
      queue[head++] = undefined as unknown as Queued;
      metrics.published('unsent', 0);
      message.settle(unavailable(`The log took nothing for ${timeoutMs} ms; the batch was not sent.`));
    }
    if (lost.size > 0) prove();
    pump();
    const oldest = Math.min(
      flights.values().next().value?.sentAt ?? Number.POSITIVE_INFINITY,
      queue[head]?.queuedAt ?? Number.POSITIVE_INFINITY,
    );
    if (oldest !== Number.POSITIVE_INFINITY) arm(Math.max(1, oldest + timeoutMs - now()));
  };

  /** PUB-4: frees the places of those given up before a PING that the server has answered. */
  const prove = (): void => {
    if (proving) return;
    proving = true;
    const before = [...lost.keys()];
    wire
      .flush()
      .then(
        () => {
          for (const token of before) lost.delete(token);
        },
        () => {
          // Disconnected: that frees the places by itself.
        },
      )
      .finally(() => {
        proving = false;
        pump();
      });
  };

  const settleAll = (reason: string): void => {
    const sent = [...flights.values()];
    const unsent = queue.slice(head);
    flights.clear();
    lost.clear();
    queue = [];
    head = 0;
    for (const { message } of sent) {
      metrics.published('disconnected', 0);
      message.settle(unknown(`${reason} before it acknowledged the batch.`));
    }
    for (const { message } of unsent) {
      metrics.published('unsent', 0);
      message.settle(unavailable(`${reason}; the batch was not sent.`));
    }
  };

  const wire = options.openWire(onReply);
  if (hedger !== undefined) hedger.onReply = onCopyReply;

  return {
    send(message) {
      if (!online) {
        metrics.published('unsent', 0);
        message.settle(unavailable('The log cannot be reached; the batch was not sent.'));
      } else if (head === queue.length && flights.size + lost.size < window) {
        transmit(message);
      } else {
        queue.push({ message, queuedAt: now() });
        arm(timeoutMs);
      }
    },
    disconnected() {
      online = false;
      settleAll('The connection to the log was lost');
    },
    connected() {
      online = true;
      pump();
    },
    get inFlight() {
      return flights.size + lost.size;
    },
    get queued() {
      return queue.length - head;
    },
    close() {
      online = false;
      settleAll('The gateway stopped');
      cancelTimer?.();
      cancelTimer = undefined;
      cancelHedge?.();
      cancelHedge = undefined;
      wire.close();
    },
  };
}

/** The server's own word: there is no subscriber. */
const isNoResponders = (reply: LogReply): boolean => reply.data.length === 0 && reply.headers?.code === 503;

/** What JetStream answers: an ack, an error, or the server's word that no stream listens. */
function readReply(reply: LogReply, jittered: (ms: number) => number): Stored | SluiceError {
  if (reply.data.length === 0) {
    return isNoResponders(reply)
      ? new SluiceError('log_unavailable', 'A stream of the log is missing.', {
          retryAfterMs: jittered(unavailableRetryMs),
        })
      : new SluiceError('outcome_unknown', 'The log sent an empty answer.', {
          outcomeUnknown: true,
          retryAfterMs: jittered(unavailableRetryMs),
        });
  }
  let answer: unknown;
  try {
    answer = JSON.parse(reply.string());
  } catch (cause) {
    return new SluiceError('outcome_unknown', 'The log sent an answer that cannot be read.', {
      outcomeUnknown: true,
      retryAfterMs: jittered(unavailableRetryMs),
      cause,
    });
  }
  const { stream, seq, error } = answer as {
    stream?: unknown;
    seq?: unknown;
    error?: { code?: number; err_code?: number; description?: string };
  };
  if (error !== undefined) {
    const number = error.err_code ?? 0;
    const full = fullCodes.has(number) || (number === storeFailed && (error.description ?? '').includes('maximum'));
    return full
      ? new SluiceError('log_full', 'The log is full.', { retryAfterMs: jittered(fullRetryMs), cause: error })
      : new SluiceError(
          'log_unavailable',
          `The log refused the batch (JetStream error ${number}: ${error.description ?? 'no words'}).`,
          {
            retryAfterMs: jittered(unavailableRetryMs),
            cause: error,
          },
        );
  }
  if (typeof stream !== 'string' || !Number.isSafeInteger(seq) || (seq as number) <= 0) {
    return new SluiceError('outcome_unknown', 'The log sent an ack without a position.', {
      outcomeUnknown: true,
      retryAfterMs: jittered(unavailableRetryMs),
    });
  }
  return { stream, sequence: BigInt(seq as number) };
}

/**
 * Publishing to JetStream with a bounded window.
 *
 *   publisher.ts       this file: messages wait for the window, leave, and are settled
 *   outgoing.ts        what the publisher takes; publish-queue.ts messages that wait for the window
 *   publish-window.ts  the window: messages on the wire, and places of those that were given up
 *   publish-answers.ts what an answer means for its message, also with a second try; jetstream-answer.ts reads it
 *   publish-errors.ts  what callers are answered instead of an ack
 *   hedge.ts           sends a slow message once more; hedge-timer.ts finds those that are due
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
import { failpoint, isLeftOut } from '../../lib/failpoint.js';
import type { Logger } from '../../lib/logger.js';
import { createSparseLogger } from '../../lib/sparse-logger.js';
import type { GatewayClock } from '../clock.js';
import type { GatewayMetrics } from '../metrics.js';
import type { Hedger } from './hedge.js';
import { createHedgeTimer } from './hedge-timer.js';
import type { LogWire, OpenLogWire } from './log-wire.js';
import type { Outgoing } from './outgoing.js';
import { createPayloadPool } from './payload-pool.js';
import { createPublishAnswers } from './publish-answers.js';
import { createPublishErrors, type PublishErrors } from './publish-errors.js';
import { PublishQueue } from './publish-queue.js';
import { PublishWindow } from './publish-window.js';

export type { LogAck } from './jetstream-answer.js';
export type { Outgoing } from './outgoing.js';

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

/** After an answer "full", nothing is sent twice for so long (HEDGE-2). */
const fullCalmMs = 1_000;

export function createPublisher(options: PublisherOptions): Publisher {
  const { metrics, hedger } = options;
  const { now, random } = options.clock;
  const logger = createSparseLogger(options.logger);
  const errors = createPublishErrors(random);
  const window = new PublishWindow(options.window);
  const queue = new PublishQueue();
  const pool = createPayloadPool(options.payloadBytes, options.window);
  let nextToken = 0;
  let phase: 'online' | 'offline' | 'closed' = 'online';

  const pump = (): void => {
    while (phase === 'online' && window.hasRoom) {
      const message = queue.shift();
      if (message === undefined) return;
      transmit(message);
    }
  };

  const answers = createPublishAnswers({
    window,
    pool,
    errors,
    metrics,
    logger,
    now,
    onNoStream: options.onNoStream,
    onSettled: pump,
  });
  const wire: LogWire = options.openWire(answers.onReply);
  const timeouts = createTimeouts(options, { window, queue, errors, wire, pump });

  const isCalm = (at: number): boolean =>
    phase === 'online' && queue.length === 0 && window.hasRoom && answers.lastFullAt < at - fullCalmMs;
  const hedges = hedger && createHedgeTimer(hedger, options.clock, window.flights, isCalm);
  if (hedger !== undefined) hedger.onReply = answers.onCopyReply;

  const unsent = (message: Outgoing, why: string): void => {
    metrics.published('unsent', 0);
    message.settle(errors.unavailable(why));
  };

  const transmit = (message: Outgoing): void => {
    const payload = message.encode(pool.take);
    if (payload === undefined) {
      message.settle(errors.unavailable('Nothing was sent.'));
      return;
    }
    const token = (nextToken++).toString(36);
    failpoint('gateway.before-publish');
    try {
      wire.send(message.subject, token, payload);
    } catch (error) {
      // Thrown before anything is buffered: the connection is closed, or the payload is above the server's limit.
      logger.error({ err: error, bytes: payload.length }, 'publish failed');
      unsent(message, 'The log did not take the batch.');
      return;
    }
    failpoint('gateway.after-publish');
    const flying = isLeftOut('ack-before-durable') ? answeredEarly(message) : message;
    window.flights.set(token, { message: flying, payload, sentAt: now(), state: 'sent' });
    hedges?.sent();
    metrics.sent(payload.length);
    timeouts.watch();
  };

  const settleAll = (reason: string): void => {
    const flights = window.empty();
    const waiting = queue.empty();
    for (const { message } of flights) {
      metrics.published('disconnected', 0);
      message.settle(errors.unknown(`${reason} before it acknowledged the batch.`));
    }
    for (const message of waiting) unsent(message, `${reason}; the batch was not sent.`);
  };

  return {
    send(message) {
      if (phase !== 'online') {
        unsent(message, 'The log cannot be reached; the batch was not sent.');
      } else if (queue.length === 0 && window.hasRoom) {
        transmit(message);
      } else {
        queue.push(message, now());
        timeouts.watch();
      }
    },
    disconnected() {
      if (phase === 'online') phase = 'offline';
      settleAll('The connection to the log was lost');
    },
    connected() {
      if (phase === 'offline') phase = 'online';
      pump();
    },
    get inFlight() {
      return window.used;
    },
    get queued() {
      return queue.length;
    },
    close() {
      phase = 'closed';
      settleAll('The gateway stopped');
      timeouts.close();
      hedges?.close();
      wire.close();
    },
  };
}

/** Gives up messages that wait too long for the window, or for their ack. */
function createTimeouts(
  { timeoutMs, metrics, clock: { now, after } }: Pick<PublisherOptions, 'timeoutMs' | 'metrics' | 'clock'>,
  { window, queue, errors, wire, pump }: TimeoutParts,
): { watch(): void; close(): void } {
  let cancel: (() => void) | undefined;

  /** One timer for all: the timeout is the same for all, so the oldest decides. */
  const arm = (ms: number): void => {
    cancel ??= after(ms, onTimer);
  };

  const onTimer = (): void => {
    cancel = undefined;
    const limit = now() - timeoutMs;
    for (const [token, flight] of window.flights) {
      if (flight.sentAt > limit) break;
      window.flights.delete(token);
      window.lost.add(token);
      metrics.published('timeout', 0);
      flight.message.settle(errors.unknown(`The log did not acknowledge the batch within ${timeoutMs} ms.`));
    }
    while ((queue.oldestAt ?? Number.POSITIVE_INFINITY) <= limit) {
      metrics.published('unsent', 0);
      queue.shift()?.settle(errors.unavailable(`The log took nothing for ${timeoutMs} ms; the batch was not sent.`));
    }
    window.prove(() => wire.flush(), pump);
    pump();
    const oldest = Math.min(
      window.flights.values().next().value?.sentAt ?? Number.POSITIVE_INFINITY,
      queue.oldestAt ?? Number.POSITIVE_INFINITY,
    );
    if (oldest !== Number.POSITIVE_INFINITY) arm(Math.max(1, oldest + timeoutMs - now()));
  };

  return {
    watch: () => arm(timeoutMs),
    close() {
      cancel?.();
      cancel = undefined;
    },
  };
}

interface TimeoutParts {
  readonly window: PublishWindow;
  readonly queue: PublishQueue;
  readonly errors: PublishErrors;
  readonly wire: Pick<LogWire, 'flush'>;
  readonly pump: () => void;
}

/** For a control run: the message is answered before JetStream's ack, which then answers no caller. */
function answeredEarly(message: Outgoing): Outgoing {
  // A position that no client has seen yet: one below the watermark would be refused.
  message.settle({ stream: `EV_${message.subject.split('.')[1]}`, sequence: 2n ** 50n });
  return { ...message, settle: () => undefined };
}

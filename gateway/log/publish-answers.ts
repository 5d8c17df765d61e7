/**
 * What an answer of JetStream means for its message. With a second try (hedge.ts) two answers are due, and HEDGE-3 says what both mean.
 */
import { SluiceError } from '../../lib/errors.js';
import { failpoint } from '../../lib/failpoint.js';
import type { SparseLogger } from '../../lib/sparse-logger.js';
import type { GatewayMetrics } from '../metrics.js';
import { isNoResponders, readReply } from './jetstream-answer.js';
import type { LogReply } from './log-wire.js';
import type { PayloadPool } from './payload-pool.js';
import type { PublishErrors } from './publish-errors.js';
import type { Flight, PublishWindow } from './publish-window.js';

export interface PublishAnswerOptions {
  readonly window: PublishWindow;
  readonly pool: PayloadPool;
  readonly errors: PublishErrors;
  readonly metrics: Pick<GatewayMetrics, 'published' | 'hedged'>;
  readonly logger: SparseLogger;
  /** Monotonic ms. */
  readonly now: () => number;
  readonly onNoStream: () => void;
  /** A place may have become free. */
  readonly onSettled: () => void;
}

export interface PublishAnswers {
  /** To the message itself. */
  onReply(token: string, reply: LogReply): void;
  /** To its copy; undefined: the copy's connection was lost. */
  onCopyReply(token: string, reply: LogReply | undefined): void;
  /** When the log said last that it is full, monotonic ms. */
  readonly lastFullAt: number;
}

export function createPublishAnswers(options: PublishAnswerOptions): PublishAnswers {
  const { window, pool, errors, metrics, logger, now, onNoStream, onSettled } = options;
  const { flights, lost } = window;
  let lastFullAt = Number.NEGATIVE_INFINITY;

  /** HEDGE-3: one copy was refused, the other's outcome is unknown. */
  const unanswered = (): SluiceError =>
    errors.unknown('The log refused the batch once, and may have it from a second try.');

  const countRefused = (refusal: SluiceError, { sentAt }: Flight): void =>
    metrics.published(refusal.code === 'log_full' ? 'full' : 'refused', now() - sentAt);

  /** @returns the outcome; undefined: it depends on the copy's answer (HEDGE-3) */
  const refused = (flight: Flight, refusal: SluiceError): SluiceError | undefined => {
    const { state, message } = flight;
    if (refusal.code === 'log_full') lastFullAt = now();
    if (state === 'twice' || typeof state === 'object') {
      flight.state = { refused: refusal };
      return undefined;
    }
    countRefused(refusal, flight);
    if (refusal.code !== 'log_full') logger.warn({ subject: message.subject, err: refusal }, 'publish refused');
    return state === 'copy_lost' ? unanswered() : refusal;
  };

  /** Of a message that has no outcome yet. */
  const copyStored = (token: string, flight: Flight): void => {
    failpoint('gateway.after-ack');
    flights.delete(token);
    // Its bytes may still be on their way (PUB-4).
    if (typeof flight.state !== 'object') lost.add(token);
    metrics.hedged('won');
    metrics.published('stored', now() - flight.sentAt);
  };

  return {
    onReply(token, reply) {
      const flight = flights.get(token);
      if (flight === undefined) {
        if (lost.delete(token)) metrics.published('late', 0);
        onSettled();
        return;
      }
      pool.give(flight.payload);
      const answer = readReply(reply, errors);
      if (isNoResponders(reply)) onNoStream();
      const outcome = answer instanceof SluiceError ? refused(flight, answer) : answer;
      if (outcome === undefined) return;
      if (!(answer instanceof SluiceError)) {
        failpoint('gateway.after-ack');
        metrics.published('stored', now() - flight.sentAt);
      }
      flights.delete(token);
      flight.message.settle(outcome);
      onSettled();
    },
    onCopyReply(token, reply) {
      const flight = flights.get(token);
      if (flight === undefined) {
        if (reply !== undefined) metrics.hedged('late');
        return;
      }
      const outcome = reply === undefined ? undefined : readReply(reply, errors);
      if (outcome !== undefined && !(outcome instanceof SluiceError)) {
        copyStored(token, flight);
        flight.message.settle(outcome);
        onSettled();
        return;
      }
      if (outcome !== undefined) metrics.hedged('refused');
      // An answer that says nothing leaves the copy's outcome open.
      const isOpen = outcome === undefined || outcome.outcomeUnknown;
      const { state } = flight;
      if (typeof state !== 'object') {
        flight.state = isOpen ? 'copy_lost' : 'once';
        return;
      }
      flights.delete(token);
      countRefused(state.refused, flight);
      flight.message.settle(isOpen ? unanswered() : state.refused);
      onSettled();
    },
    get lastFullAt() {
      return lastFullAt;
    },
  };
}

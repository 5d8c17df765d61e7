/**
 * Answers gateways that ask what became of a batch. It looks up waiting questions together, so many cost ClickHouse little more than
 * one.
 *
 *   STATUS-1  At most {@link maxWaiting} questions wait; those beyond are answered `busy` at once.
 *   STATUS-2  One look-up runs at a time, for at most {@link maxTogether} batches.
 *   STATUS-3  The dead letters are read only for batches without rows, and only the newest {@link maxLetters}.
 *   STATUS-4  A question that has waited longer than the gateway waits is dropped.
 */
import type { JetStreamManager } from '@nats-io/jetstream';
import type { Msg, NatsConnection } from '@nats-io/nats-core';
import {
  type BatchAnswer,
  type BatchQuestion,
  type BatchRefusal,
  decodeQuestion,
  encodeAnswer,
} from '../../lib/batch-status.js';
import type { Logger } from '../../lib/logger.js';
import { batchStatusQueue, batchStatusSubject } from '../../lib/subjects.js';
import { scanDead } from '../loader/dead-scan.js';
import { keyOf } from '../loader/frames.js';
import type { LedgerStore } from './ledger-store.js';

export interface BatchStatusOptions {
  readonly nc: NatsConnection;
  readonly jsm: JetStreamManager;
  readonly store: Pick<LedgerStore, 'totalsOf'>;
  readonly logger: Logger;
}

const maxWaiting = 2_000;
const maxTogether = 200;
const maxLetters = 10_000;
const patienceMs = 5_000;

/** Looks these batches up. Rejects when ClickHouse or the log cannot be reached. */
export async function batchStatuses(
  { nc, jsm, store }: Omit<BatchStatusOptions, 'logger'>,
  questions: readonly BatchQuestion[],
): Promise<ReadonlyMap<string, BatchAnswer>> {
  const answers = new Map<string, BatchAnswer>();
  for (const { tenant, batchId, rows, receivedAtMs } of await store.totalsOf(questions)) {
    answers.set(keyOf(tenant, batchId), { state: 'stored', stored: rows, dead: 0, reason: '', receivedAtMs });
  }
  const missing = questions.filter(({ tenant, batchId }) => !answers.has(keyOf(tenant, batchId)));
  for (const tenant of new Set(missing.map((question) => question.tenant))) {
    const ids = new Set(missing.filter((question) => question.tenant === tenant).map(({ batchId }) => batchId));
    await scanDead({
      nc,
      jsm,
      tenant,
      newest: maxLetters,
      max: maxLetters,
      onLetter({ batchId, reason, events: dead }) {
        // A letter that is there twice, and copies that were sent again, are the same events.
        if (!ids.has(batchId)) return;
        answers.set(keyOf(tenant, batchId), {
          state: 'dead-lettered',
          stored: 0,
          dead,
          reason,
          receivedAtMs: undefined,
        });
      },
    });
  }
  const nowhere: BatchAnswer = { state: 'not stored', stored: 0, dead: 0, reason: '', receivedAtMs: undefined };
  return new Map(
    questions.map(({ tenant, batchId }) => {
      const key = keyOf(tenant, batchId);
      return [key, answers.get(key) ?? nowhere];
    }),
  );
}

/** Answers until closed. */
export function serveBatchStatus(options: BatchStatusOptions): { close(): Promise<void> } {
  const { nc, logger } = options;
  let waiting: { readonly msg: Msg; readonly question: BatchQuestion; readonly sinceMs: number }[] = [];
  let looking: Promise<void> | undefined;

  const answer = (msg: Msg, content: BatchAnswer | BatchRefusal): void => {
    if (!nc.isClosed()) msg.respond(encodeAnswer(content));
  };

  async function look(): Promise<void> {
    while (waiting.length > 0) {
      const some = waiting.slice(0, maxTogether);
      waiting = waiting.slice(maxTogether);
      const now = performance.now();
      const asked = some.filter(({ sinceMs }) => now - sinceMs < patienceMs); // STATUS-4
      if (asked.length === 0) continue;
      try {
        const found = await batchStatuses(
          options,
          asked.map(({ question }) => question),
        );
        for (const { msg, question } of asked) {
          answer(msg, found.get(keyOf(question.tenant, question.batchId)) ?? 'unavailable');
        }
      } catch (error) {
        logger.warn({ error: String(error), questions: asked.length }, 'cannot tell what became of batches');
        for (const { msg } of asked) answer(msg, 'unavailable');
      }
    }
  }

  const subscription = nc.subscribe(batchStatusSubject, {
    queue: batchStatusQueue,
    callback(error, msg) {
      if (error !== null) return;
      const question = decodeQuestion(msg.string());
      if (question === undefined) return answer(msg, 'unavailable');
      if (waiting.length >= maxWaiting) return answer(msg, 'busy'); // STATUS-1
      waiting.push({ msg, question, sinceMs: performance.now() });
      looking ??= look().finally(() => {
        looking = undefined;
      });
    },
  });

  return {
    async close() {
      subscription.unsubscribe();
      await looking;
    },
  };
}

/**
 * GetBatchStatus: the gateway has no connection to ClickHouse, so it asks a worker over NATS. When no worker answers, the caller gets
 * UNAVAILABLE.
 */
import { create } from '@bufbuild/protobuf';
import { timestampFromMs } from '@bufbuild/protobuf/wkt';
import type { NatsConnection } from '@nats-io/transport-node';
import {
  BatchState,
  type GetBatchStatusResponse,
  GetBatchStatusResponseSchema,
} from '#gen/sluice/ingest/v1/ingest_pb.js';
import { retryAfter } from '../../lib/back-off.js';
import { type BatchAnswer, batchIdPattern, decodeAnswer, encodeQuestion } from '../../lib/batch-status.js';
import { SluiceError } from '../../lib/errors.js';
import { batchStatusSubject } from '../../lib/subjects.js';
import { createPlaces } from '../held/places.js';

/** @throws SluiceError batch_id_invalid | too_many_calls | status_unavailable */
export type AskBatchStatus = (tenant: string, batchId: string) => Promise<GetBatchStatusResponse>;

/** How long a worker has to answer: as long as it takes questions for (workers/ledger/batch-status.ts, STATUS-4). */
const patienceMs = 5_000;
const retryAfterMs = 1_000;
/** Calls that wait at the same time, in all and of one tenant: what a worker takes is shared fairly. */
const maxWaiting = 512;
const maxOfOne = 128;

const states = {
  'not stored': BatchState.NOT_STORED,
  stored: BatchState.STORED,
  'dead-lettered': BatchState.DEAD_LETTERED,
} as const satisfies Record<BatchAnswer['state'], BatchState>;

export function createBatchStatus(nats: Promise<NatsConnection>): AskBatchStatus {
  let nc: NatsConnection | undefined;
  nats.then(
    (connected) => {
      nc = connected;
    },
    // The publisher reports it.
    () => {},
  );
  const places = createPlaces<string>({
    max: maxWaiting,
    maxOfOne: maxOfOne,
    refuse: (full) =>
      busy(full === 'owner' ? `At most ${maxOfOne} questions of a tenant wait for an answer.` : undefined),
  });

  const unavailable = (message: string, cause?: unknown): SluiceError =>
    new SluiceError('status_unavailable', message, { retryAfterMs, cause });
  const busy = (why = 'Too many questions about batches wait for an answer.'): SluiceError =>
    new SluiceError('too_many_calls', why, { retryAfterMs: retryAfter(retryAfterMs) });

  async function ask(tenant: string, batchId: string): Promise<BatchAnswer> {
    if (nc === undefined) throw unavailable('NATS is not connected yet.');
    let text: string;
    try {
      const question = encodeQuestion({ tenant, batchId });
      text = (await nc.request(batchStatusSubject, question, { timeout: patienceMs })).string();
    } catch (cause) {
      throw unavailable('No worker answered.', cause);
    }
    const answer = decodeAnswer(text);
    if (answer === 'busy') throw busy();
    if (answer === 'unavailable') throw unavailable('The worker that was asked cannot reach ClickHouse.');
    return answer;
  }

  return async (tenant, batchId) => {
    if (!batchIdPattern.test(batchId)) {
      throw new SluiceError('batch_id_invalid', 'The batch_id is empty, longer than 64 bytes or has other characters.');
    }
    const leave = places.take(tenant);
    try {
      const { state, stored, dead, reason, receivedAtMs } = await ask(tenant, batchId);
      return create(GetBatchStatusResponseSchema, {
        batchId,
        state: states[state],
        stored: BigInt(stored),
        dead: BigInt(dead),
        reason,
        ...(receivedAtMs === undefined ? {} : { receivedAt: timestampFromMs(receivedAtMs) }),
      });
    } finally {
      leave();
    }
  };
}

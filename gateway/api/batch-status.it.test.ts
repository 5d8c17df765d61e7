/**
 * GetBatchStatus through a real gateway and a real nats-server: every protocol, the caller's own tenant, and what is said when
 * no worker answers. The worker's half is in workers/ledger/ledger.it.test.ts.
 */
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from '@connectrpc/connect-node';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ErrorInfoSchema, RetryInfoSchema } from '#gen/google/rpc/error_details_pb.js';
import { BatchState, IngestService } from '#gen/sluice/ingest/v1/ingest_pb.js';
import {
  type BatchAnswer,
  type BatchQuestion,
  type BatchRefusal,
  decodeQuestion,
  encodeAnswer,
} from '../../lib/batch-status.js';
import { batchStatusQueue, batchStatusSubject } from '../../lib/subjects.js';
import { withGateway } from '../testing/running-gateway.js';

const stored: BatchAnswer = {
  state: 'stored',
  stored: 20,
  dead: 0,
  reason: '',
  receivedAtMs: Date.parse('2026-01-31T12:00:00.250Z'),
};
const dead: BatchAnswer = { state: 'dead-lettered', stored: 0, dead: 3, reason: 'why', receivedAtMs: undefined };

async function failureOf(call: Promise<unknown>): Promise<ConnectError> {
  try {
    await call;
  } catch (error) {
    return ConnectError.from(error);
  }
  throw new Error('the call did not fail');
}

test('a client asks in every protocol what became of its batch, and hears when no worker knows', async () => {
  await withGateway({}, async ({ url, headers, nats }) => {
    const transports = [true, false].flatMap((useBinaryFormat) => [
      createGrpcTransport({ baseUrl: url, useBinaryFormat }),
      createGrpcWebTransport({ baseUrl: url, useBinaryFormat, httpVersion: '1.1' }),
      createConnectTransport({ baseUrl: url, useBinaryFormat, httpVersion: '2' }),
    ]);
    const client = createClient(IngestService, transports[0]!);
    const nobody = await failureOf(client.getBatchStatus({ batchId: 'b-1' }, { headers }));
    assert.is(nobody.code, Code.Unavailable);
    assert.is(nobody.findDetails(ErrorInfoSchema)[0]?.reason, 'status_unavailable');
    assert.is(nobody.findDetails(RetryInfoSchema)[0]?.retryDelay?.seconds, 1n);

    const asked: (BatchQuestion | undefined)[] = [];
    let answer: BatchAnswer | BatchRefusal | string = stored;
    const worker = nats.nc.subscribe(batchStatusSubject, {
      queue: batchStatusQueue,
      callback(_error, message) {
        asked.push(decodeQuestion(message.string()));
        message.respond(answer === 'nonsense' ? '{"state":"perhaps"' : encodeAnswer(answer as BatchAnswer));
      },
    });
    await nats.nc.flush();
    for (const transport of transports) {
      const told = await createClient(IngestService, transport).getBatchStatus({ batchId: 'b-1' }, { headers });
      assert.equal([told.state, told.stored, told.dead, told.batchId], [BatchState.STORED, 20n, 0n, 'b-1']);
      assert.equal([told.receivedAt?.seconds, told.receivedAt?.nanos], [1_769_860_800n, 250_000_000]);
    }
    assert.equal(asked.at(-1), { tenant: 'acme', batchId: 'b-1' });

    answer = dead;
    const curl = await fetch(`${url}/sluice.ingest.v1.IngestService/GetBatchStatus`, {
      method: 'POST',
      headers: { ...headers, 'content-type': 'application/json' },
      body: '{"batchId":"b-2"}',
    });
    assert.equal(await curl.json(), {
      batchId: 'b-2',
      state: 'BATCH_STATE_DEAD_LETTERED',
      stored: '0',
      dead: '3',
      reason: 'why',
    });
    answer = 'busy';
    assert.is((await failureOf(client.getBatchStatus({ batchId: 'b' }, { headers }))).code, Code.ResourceExhausted);
    for (answer of ['unavailable', 'nonsense']) {
      assert.is((await failureOf(client.getBatchStatus({ batchId: 'b' }, { headers }))).code, Code.Unavailable);
    }
    const questions = asked.length;
    for (const batchId of ['', 'a b', 'x'.repeat(65), "'; DROP"]) {
      assert.is((await failureOf(client.getBatchStatus({ batchId }, { headers }))).code, Code.InvalidArgument);
    }
    assert.is((await failureOf(client.getBatchStatus({ batchId: 'b' }))).code, Code.Unauthenticated);
    assert.is(asked.length, questions, 'nothing of that reached a worker');
    worker.unsubscribe();
  });
});

test.run();

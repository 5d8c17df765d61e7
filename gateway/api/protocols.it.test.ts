import { randomBytes } from 'node:crypto';
import { create } from '@bufbuild/protobuf';
import { Code, ConnectError, createClient, type Transport } from '@connectrpc/connect';
import { findTrailerError } from '@connectrpc/connect/protocol-grpc';
import {
  compressionGzip,
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from '@connectrpc/connect-node';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ErrorInfoSchema, RetryInfoSchema } from '#gen/google/rpc/error_details_pb.js';
import { EventBatchSchema, EventType } from '#gen/sluice/event/v1/event_pb.js';
import { IngestService, type PublishStreamResponse } from '#gen/sluice/ingest/v1/ingest_pb.js';
import type { StoredBatch } from '#gen/sluice/log/v1/log_pb.js';
import { createRandom, makeBatch } from '../../lib/testing/batches.js';
import { freeze } from '../../lib/testing/freeze.js';
import { bareCall, withSession } from '../testing/bare-call.js';
import { stored } from '../testing/ingest.js';
import { onBothPaths, type RunningGateway } from '../testing/running-gateway.js';

type Encoding = { name: string; transport: Transport; streams: boolean };

function everyEncoding(url: string): Encoding[] {
  const all: Encoding[] = [];
  for (const useBinaryFormat of [true, false]) {
    for (const gzip of [false, true]) {
      const more = gzip ? { sendCompression: compressionGzip, compressMinBytes: 0 } : {};
      const name = `${useBinaryFormat ? 'binary' : 'JSON'}${gzip ? ', gzip' : ''}`;
      const base = { baseUrl: url, useBinaryFormat, ...more };
      all.push({ name: `gRPC, ${name}`, transport: createGrpcTransport(base), streams: true });
      for (const httpVersion of ['1.1', '2'] as const) {
        const streams = httpVersion === '2';
        all.push({
          name: `gRPC-Web, HTTP/${httpVersion}, ${name}`,
          transport: createGrpcWebTransport({ ...base, httpVersion }),
          streams,
        });
        all.push({
          name: `Connect, HTTP/${httpVersion}, ${name}`,
          transport: createConnectTransport({ ...base, httpVersion }),
          streams,
        });
      }
    }
  }
  return all;
}

async function storedBatches({ nats }: RunningGateway): Promise<Map<string, StoredBatch>> {
  const messages = await stored(nats);
  return new Map(messages.flatMap(({ batches }) => batches.map((batch) => [batch.batchId, batch] as const)));
}

/** Ends a stream's requests when told to. */
function holdable<T>(first: T[]): { requests: AsyncIterable<T>; end: () => void } {
  let end = (): void => {};
  const held = new Promise<void>((resolve) => {
    end = resolve;
  });
  async function* requests(): AsyncGenerator<T> {
    yield* first;
    await held;
  }
  return { requests: requests(), end };
}

const errorOf = async (call: Promise<unknown>): Promise<ConnectError> => {
  try {
    await call;
  } catch (error) {
    return ConnectError.from(error);
  }
  throw new Error('the call did not fail');
};

/** Name of the gateway's own refusal: clients take an error without its domain for that of a proxy, and try again. */
const reasonOf = (error: ConnectError): string | undefined => {
  const [info] = error.findDetails(ErrorInfoSchema);
  return info?.domain === 'sluice' ? info.reason : undefined;
};

onBothPaths(
  test,
  'every protocol, encoding and HTTP version publishes, and the log has what was sent',
  async (withGateway) => {
    await withGateway({}, async (running) => {
      const random = createRandom(7);
      const sent = new Map<string, ReturnType<typeof makeBatch>>();
      for (const { name, transport, streams } of everyEncoding(running.url)) {
        const client = createClient(IngestService, transport);
        const { limits } = await client.getLimits({}, { headers: running.headers });
        assert.is(limits?.maxBatchBytes, 1024 * 1024, name);
        const batch = makeBatch(random, 20);
        const id = `unary:${sent.size}`;
        const { result } = await client.publish({ batch, batchId: id, attempt: 1 }, { headers: running.headers });
        assert.is(result?.accepted, 20, name);
        assert.is(result?.batchId, id, name);
        assert.is(result?.position, undefined, name);
        sent.set(id, batch);
        if (!streams) continue;
        const batches = [1, 2, 3].map((count) => ({
          batch: makeBatch(random, count),
          batchId: `stream:${sent.size}:${count}`,
          attempt: 1,
        }));
        const { requests, end } = holdable(batches);
        const answers: PublishStreamResponse['message'][] = [];
        for await (const { message } of client.publishStream(requests, { headers: running.headers })) {
          answers.push(message);
          // All answers come while the request is still open.
          if (answers.length === 4) end();
        }
        assert.is(answers[0]?.case, 'limits', name);
        const ids = answers.flatMap((answer) => (answer.case === 'accepted' ? [answer.value.batchId] : []));
        assert.equal(ids.sort(), batches.map((one) => one.batchId).sort(), name);
        for (const one of batches) sent.set(one.batchId, one.batch);
      }
      const log = await storedBatches(running);
      assert.is(log.size, sent.size);
      for (const [id, batch] of sent) {
        assert.equal(log.get(id)?.events, batch.events, id);
        assert.is(log.get(id)?.tenant, running.tenant);
        assert.is(log.get(id)?.attempt, 1);
        assert.match(log.get(id)?.client ?? '', /^connect-es\//);
      }
    });
  },
);

onBothPaths(
  test,
  'a call without a key, with a wrong one, or with none of the right form is unauthenticated in every protocol',
  async (withGateway) => {
    await withGateway({}, async ({ url }) => {
      for (const { name, transport, streams } of everyEncoding(url)) {
        const client = createClient(IngestService, transport);
        const batch = makeBatch(createRandom(1), 1);
        for (const [headers, reason] of [
          [{}, 'key_missing'],
          [{ authorization: 'Bearer nonsense' }, 'key_unknown'],
        ] as const) {
          const errors = [
            await errorOf(client.publish({ batch }, { headers })),
            await errorOf(client.getLimits({}, { headers })),
          ];
          if (streams) {
            const { requests, end } = holdable([{ batch }]);
            const stream = client.publishStream(requests, { headers })[Symbol.asyncIterator]();
            errors.push(await errorOf(stream.next()));
            end();
          }
          for (const error of errors) {
            assert.is(error.code, Code.Unauthenticated, name);
            assert.is(reasonOf(error), reason, name);
          }
        }
      }
    });
  },
);

onBothPaths(test, 'a stream that the gateway ends finally is signed by it, too', async (withGateway) => {
  await withGateway({}, async ({ url, headers }) => {
    const bad: readonly (readonly [string, Buffer])[] = [
      ['request_malformed', Buffer.from([0, 0, 0, 0, 3, 255, 255, 255])],
      ['batch_too_large', Buffer.from([0, 127, 255, 255, 255, 0])],
    ];
    for (const [reason, bytes] of bad) {
      const { trailers } = await withSession(url, (session) =>
        bareCall(session, {
          headers: {
            ':path': '/sluice.ingest.v1.IngestService/PublishStream',
            'content-type': 'application/grpc',
            te: 'trailers',
            ...headers,
          },
          pieces: [bytes],
          open: true,
        }),
      );
      const error = findTrailerError(new Headers(Object.entries(trailers) as [string, string][]));
      assert.is(error === undefined ? undefined : reasonOf(error), reason, error?.message);
    }
  });
});

onBothPaths(test, 'what is wrong with a request has the same name in every protocol', async (withGateway) => {
  await withGateway({ maxBatchBytes: 64 * 1024, maxBatchEvents: 100 }, async ({ url, headers }) => {
    for (const { name, transport } of everyEncoding(url)) {
      const client = createClient(IngestService, transport);
      const refused = async (request: Parameters<typeof client.publish>[0], code: Code, reason: string) => {
        const error = await errorOf(client.publish(request, { headers }));
        assert.is(error.code, code, `${name}: ${reason}: ${error.message}`);
        assert.is(reasonOf(error), reason, `${name}: ${error.message}`);
        assert.is(error.findDetails(RetryInfoSchema).length, 0);
      };
      await refused({}, Code.InvalidArgument, 'batch_empty');
      await refused({ batch: create(EventBatchSchema, {}) }, Code.InvalidArgument, 'batch_empty');
      const batch = makeBatch(createRandom(2), 1);
      await refused({ batch, batchId: 'a b' }, Code.InvalidArgument, 'batch_id_invalid');
      await refused({ batch, batchId: 'x'.repeat(65) }, Code.InvalidArgument, 'batch_id_invalid');
      await refused({ batch: makeBatch(createRandom(2), 101) }, Code.InvalidArgument, 'batch_too_large');
      const fat = makeBatch(createRandom(2), 1);
      const [event] = fat.events;
      if (event !== undefined) event.properties = { text: randomBytes(300_000).toString('hex') };
      // Over the limit of a request, not only of a batch.
      await refused({ batch: fat }, Code.InvalidArgument, 'batch_too_large');
    }
  });
});

onBothPaths(
  test,
  'bytes that are no request are invalid, not an internal error, and a batch that is none names the offset',
  async (withGateway) => {
    await withGateway({}, async ({ url, headers }) => {
      const path = `${url}/sluice.ingest.v1.IngestService/Publish`;
      const connect = async (body: Uint8Array) => {
        const response = await fetch(path, {
          method: 'POST',
          headers: { ...headers, 'content-type': 'application/proto' },
          body,
        });
        const answer = (await response.json()) as { code: string; message: string; details: { debug?: unknown }[] };
        assert.is(response.status, 400);
        assert.is(answer.code, 'invalid_argument');
        return answer;
      };
      // A truncated field.
      await connect(Uint8Array.of(0x0a, 0x20, 1, 2));
      // A batch that holds field 2 of an EventBatch, which there is not.
      const answer = await connect(Uint8Array.of(0x0a, 0x02, 0x12, 0x00));
      assert.match(answer.message, /offset|byte/i);
      for (const type of ['application/grpc', 'application/grpc-web+proto']) {
        const framed = Uint8Array.of(0, 0, 0, 0, 4, 0x0a, 0x20, 1, 2);
        const response = await fetch(path, {
          method: 'POST',
          headers: { ...headers, 'content-type': type },
          body: framed,
        });
        const text = (response.headers.get('grpc-status') ?? '') + (await response.text());
        if (type !== 'application/grpc') assert.match(text, /grpc-status: ?3/i);
      }
    });
  },
);

onBothPaths(
  test,
  'a stream answers a bad batch and goes on, and ends on bytes that are no message after all answers',
  async (withGateway) => {
    await withGateway({}, async ({ url, headers }) => {
      for (const { name, transport, streams } of everyEncoding(url)) {
        if (!streams) continue;
        const client = createClient(IngestService, transport);
        const { requests, end } = holdable([
          { batch: create(EventBatchSchema, {}), batchId: 'empty', attempt: 1 },
          { options: {} },
          { batch: makeBatch(createRandom(3), 2), batchId: 'not an id', attempt: 1 },
          { batch: makeBatch(createRandom(3), 2), batchId: 'good', attempt: 1 },
        ]);
        const failed = new Map<string, number>();
        let accepted = '';
        for await (const { message } of client.publishStream(requests, { headers })) {
          switch (message.case) {
            case 'failed':
              failed.set(message.value.batchId, message.value.code);
              assert.is(message.value.retryAfter, undefined, name);
              assert.not(message.value.outcomeUnknown);
              break;
            case 'accepted':
              accepted = message.value.batchId;
          }
          if (accepted !== '' && failed.size === 2) end();
        }
        assert.is(accepted, 'good', name);
        assert.equal(
          [...failed],
          [
            ['empty', Code.InvalidArgument],
            ['not an id', Code.InvalidArgument],
          ],
          name,
        );
      }
    });
  },
);

onBothPaths(
  test,
  'a call that gRPC or a proxy sends again below its application is written as attempt 0, on every path',
  async (withGateway) => {
    await withGateway({}, async (running) => {
      const batch = makeBatch(createRandom(3), 2);
      const expected = new Map<string, number>();
      const hints: [string, Record<string, string>, number][] = [
        ['first', { 'grpc-previous-rpc-attempts': '0', 'x-envoy-attempt-count': '1' }, 1],
        ['grpc', { 'grpc-previous-rpc-attempts': '1' }, 0],
        ['envoy', { 'x-envoy-attempt-count': '2' }, 0],
      ];
      for (const [i, { transport, streams }] of everyEncoding(running.url).entries()) {
        const client = createClient(IngestService, transport);
        for (const [name, hint, attempt] of hints) {
          const headers = { ...running.headers, ...hint };
          const batchId = `${name}-${i}`;
          expected.set(batchId, attempt);
          await client.publish({ batch, batchId, attempt: 1 }, { headers });
          if (!streams) continue;
          expected.set(`${batchId}-stream`, attempt);
          const { requests, end } = holdable([{ batch, batchId: `${batchId}-stream`, attempt: 1 }]);
          for await (const { message } of client.publishStream(requests, { headers })) {
            if (message.case === 'accepted') end();
          }
        }
      }
      const body = JSON.stringify({
        batchId: 'http',
        attempt: 1,
        events: [{ eventId: 'e', type: 3, occurredAt: '2026-01-31T12:00:00Z' }],
      });
      const headers = { ...running.headers, 'content-type': 'application/json', 'x-envoy-attempt-count': '3' };
      assert.is((await fetch(`${running.url}/v1/events/batch`, { method: 'POST', headers, body })).status, 202);
      expected.set('http', 0);
      const written = new Map([...(await storedBatches(running))].map(([id, { attempt }]) => [id, attempt]));
      assert.equal(written, expected);
    });
  },
);

onBothPaths(test, 'a deadline is honoured: nothing is waited for longer than the caller does', async (withGateway) => {
  await withGateway({ publishTimeout: 20_000 }, async ({ url, headers, nats }) => {
    const all = everyEncoding(url);
    // Warm: connections are there.
    for (const { transport } of all) await createClient(IngestService, transport).getLimits({}, { headers });
    await freeze(nats.process());
    try {
      const started = Date.now();
      await Promise.all(
        all.map(async ({ name, transport }) => {
          const batch = makeBatch(createRandom(4), 1);
          const error = await errorOf(
            createClient(IngestService, transport).publish({ batch, batchId: 'late' }, { headers, timeoutMs: 300 }),
          );
          assert.is(error.code, Code.DeadlineExceeded, name);
        }),
      );
      assert.ok(Date.now() - started < 3_000);
    } finally {
      nats.process().kill('SIGCONT');
    }
  });
});

onBothPaths(test, 'an event type and time in JSON arrive as the same bytes as in binary', async (withGateway) => {
  await withGateway({}, async (running) => {
    const json = {
      eventId: 'e1',
      type: 'EVENT_TYPE_PAGE',
      occurredAt: '2026-01-02T03:04:05.006Z',
      page: { path: '/' },
    };
    const response = await fetch(`${running.url}/v1/events`, {
      method: 'POST',
      headers: { ...running.headers, 'content-type': 'application/json', 'idempotency-key': 'one' },
      body: JSON.stringify(json),
    });
    assert.is(response.status, 202);
    const stored = (await storedBatches(running)).get('one');
    assert.is(stored?.events[0]?.type, EventType.PAGE);
    assert.is(stored?.events[0]?.occurredAt?.nanos, 6_000_000);
    assert.is(stored?.events[0]?.page?.path, '/');
  });
});

test.run();

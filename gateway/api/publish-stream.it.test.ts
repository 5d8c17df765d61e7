import { once } from 'node:events';
import { connect } from 'node:http2';
import { create, type MessageInitShape } from '@bufbuild/protobuf';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import { createConnectTransport, createGrpcTransport } from '@connectrpc/connect-node';
import { jetstreamManager } from '@nats-io/jetstream';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ErrorInfoSchema, RetryInfoSchema } from '#gen/google/rpc/error_details_pb.js';
import { EventBatchSchema } from '#gen/sluice/event/v1/event_pb.js';
import {
  Durability,
  IngestService,
  type PublishStreamRequestSchema,
  type PublishStreamResponse,
  StreamOptionsSchema,
} from '#gen/sluice/ingest/v1/ingest_pb.js';
import { generationOf } from '../../lib/log-streams.js';
import { committedSubject, shardStream } from '../../lib/subjects.js';
import { addTenant, revokeKey } from '../../lib/tenants.js';
import { createRandom, makeBatch } from '../../lib/testing/batches.js';
import { freeze } from '../../lib/testing/freeze.js';
import { until } from '../../lib/testing/until.js';
import { bareCall, envelopesOf, withSession } from '../testing/bare-call.js';
import { stored } from '../testing/ingest.js';
import { onBothPaths, type RunningGateway, withGateway } from '../testing/running-gateway.js';

type Request = MessageInitShape<typeof PublishStreamRequestSchema>;

/** A stream that a test writes to and looks at step by step. */
function openStream({ url, headers }: RunningGateway, timeoutMs?: number) {
  const queue: Request[] = [];
  let wake = (): void => {};
  let closed = false;
  let taken = 0;
  async function* requests(): AsyncGenerator<Request> {
    for (;;) {
      const next = queue.shift();
      if (next !== undefined) {
        taken++;
        yield next;
      } else if (closed) {
        return;
      } else {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
    }
  }
  const client = createClient(IngestService, createGrpcTransport({ baseUrl: url }));
  const answers: PublishStreamResponse['message'][] = [];
  let ended: ConnectError | 'ok' | undefined;
  const done = (async () => {
    try {
      const options = { headers, ...(timeoutMs === undefined ? {} : { timeoutMs }) };
      for await (const { message } of client.publishStream(requests(), options)) answers.push(message);
      ended = 'ok';
    } catch (error) {
      ended = ConnectError.from(error);
    }
  })();
  return {
    answers,
    done,
    /** How the stream ended. */
    get ended() {
      return ended;
    },
    /** Requests that the transport has taken. */
    get taken() {
      return taken;
    },
    send(request: Request) {
      queue.push(request);
      wake();
    },
    close() {
      closed = true;
      wake();
    },
    of(kind: PublishStreamResponse['message']['case']) {
      return answers.filter((answer) => answer.case === kind);
    },
  };
}

const batch = (id: string, events = 5): Request => ({
  batch: makeBatch(createRandom(5), events),
  batchId: id,
  attempt: 1,
});

onBothPaths(test, 'a revoked key ends its open streams within a second, and no others', async (withGateway) => {
  await withGateway({}, async (running) => {
    const stream = openStream(running);
    stream.send(batch('before'));
    await until('accepted', () => stream.of('accepted').length === 1);
    const started = Date.now();
    await revokeKey(running.nats.nc, running.keyId);
    await until('the stream ended', () => stream.ended !== undefined, 2_000);
    assert.ok(Date.now() - started < 1_000);
    assert.instance(stream.ended, ConnectError);
    if (stream.ended instanceof ConnectError) {
      assert.is(stream.ended.code, Code.Unauthenticated);
      assert.is(stream.ended.findDetails(ErrorInfoSchema)[0]?.reason, 'key_unknown');
    }
    stream.close();
    const again = openStream(running);
    again.send(batch('after'));
    await until('refused', () => again.ended !== undefined);
    assert.is((again.ended as ConnectError).code, Code.Unauthenticated);
    again.close();
  });
});

onBothPaths(test, 'a key has so many open streams, whatever ends them; others have their own', async (withGateway) => {
  await withGateway({ maxStreamsPerKey: 3 }, async (running) => {
    const { key: other } = await addTenant(running.nats.nc, { tenant: 'acme' });
    const isOpen = (stream: ReturnType<typeof openStream>): boolean => stream.of('limits').length === 1;
    const streams = [openStream(running), openStream(running), openStream(running, 1_500)];
    await until('three are open', () => streams.every(isOpen));
    const refused = openStream(running);
    refused.send(batch('refused'));
    await until('the fourth is refused', () => refused.ended !== undefined);
    const error = refused.ended as ConnectError;
    assert.is(error.code, Code.ResourceExhausted);
    assert.is(error.findDetails(ErrorInfoSchema)[0]?.reason, 'too_many_calls');
    assert.match(error.rawMessage, /This key has 3 open streams, and may have no more \(maxStreamsPerKey\)\./);
    const wait = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
    assert.ok(wait !== undefined && wait.seconds >= 2n && wait.seconds <= 6n);
    assert.is(refused.of('limits').length, 0);

    let foreign = openStream({ ...running, headers: { authorization: `Bearer ${other}` } });
    await until('another key has its own', () => {
      if (foreign.ended !== undefined)
        foreign = openStream({ ...running, headers: { authorization: `Bearer ${other}` } });
      return isOpen(foreign);
    });

    // One ends in order, one by its deadline, one with its connection.
    streams[0]?.close();
    await until('two have ended', () => streams.filter(({ ended }) => ended !== undefined).length === 2);
    const session = connect(running.url);
    const bare = session.request({
      ':method': 'POST',
      ':path': '/sluice.ingest.v1.IngestService/PublishStream',
      'content-type': 'application/grpc',
      ...running.headers,
    });
    await once(bare, 'data');
    session.destroy();
    const again: ReturnType<typeof openStream>[] = [];
    await until('both places are free again', () => {
      if (again.every(({ ended }) => ended !== undefined)) again.splice(0, 2, openStream(running), openStream(running));
      return again.every(isOpen);
    });
    for (const stream of [...streams, ...again, foreign]) stream.close();
  });
});

onBothPaths(test, 'a gateway has so many open streams of all keys', async (withGateway) => {
  // Through the RPC library a twentieth of them.
  await withGateway({ maxStreams: 8, maxStreamsPerKey: 1_000 }, async (running) => {
    const streams = Array.from({ length: 10 }, () => openStream(running));
    await until('each is open or refused', () =>
      streams.every((one) => one.ended !== undefined || one.answers.length > 0),
    );
    const refused = streams.filter(({ ended }) => ended !== undefined);
    assert.ok([2, 9].includes(refused.length), `${refused.length} are refused`);
    for (const { ended } of refused) assert.match((ended as ConnectError).rawMessage, /maxStreams/);
    for (const stream of streams) stream.close();
  });
});

onBothPaths(
  test,
  'a stream ends after a hundred refused batches in a row; a good one between them begins another row',
  async (withGateway) => {
    await withGateway({}, async (running) => {
      const patient = openStream(running);
      // Every kind of refusal: an empty batch, a batch id that is none, no valid event.
      const bad = (i: number): Request =>
        [{}, { ...batch('x'.repeat(80)) }, { batch: { events: [{ eventId: '' }] }, batchId: `bad-${i}` }][
          i % 3
        ] as Request;
      for (let i = 0; i < 396; i++) patient.send(i % 99 === 98 ? batch(`good-${i}`) : bad(i));
      await until('all are answered', () => patient.answers.length === 1 + 396);
      assert.is(patient.ended, undefined);
      patient.close();
      await patient.done;
      assert.is(patient.ended, 'ok');

      const stream = openStream(running);
      stream.send(batch('first'));
      for (let i = 0; i < 400; i++) stream.send(i % 3 === 1 ? bad(0) : bad(i));
      await until('it ends', () => stream.ended !== undefined);
      const error = stream.ended as ConnectError;
      assert.is(error.code, Code.ResourceExhausted);
      assert.is(error.findDetails(ErrorInfoSchema)[0]?.reason, 'too_many_refusals');
      assert.is(error.findDetails(RetryInfoSchema)[0]?.retryDelay?.seconds, 1n);
      assert.match(
        error.rawMessage,
        /last 100 batches of this stream were refused. The last reason: .*(?:one event into the batch|valid)/,
      );
      // All that was read is answered (STREAM-2), the good one as well, and little beyond the hundredth is read.
      assert.is(
        stream.of('accepted').filter(({ value }) => (value as { batchId: string }).batchId === 'first').length,
        1,
      );
      const refused = stream.answers.length - 2;
      assert.ok(refused >= 100 && refused < 110, `${refused} refusals`);
    });
  },
);

test('the same holds in JSON, also for texts that are none', async () => {
  await withGateway({}, async ({ url, headers }) => {
    await withSession(url, async (session) => {
      const texts = ['{}', 'x', '{"batch":{"events":[]}}', '[]'];
      const body = Buffer.concat(
        Array.from({ length: 300 }, (_, i) => {
          const text = texts[i % texts.length] as string;
          const head = Buffer.alloc(5);
          head.writeUInt32BE(text.length, 1);
          return Buffer.concat([head, Buffer.from(text)]);
        }),
      );
      const answer = await bareCall(session, {
        headers: {
          ':path': '/sluice.ingest.v1.IngestService/PublishStream',
          'content-type': 'application/grpc+json',
          te: 'trailers',
          ...headers,
        },
        pieces: [body],
      });
      assert.is(answer.trailers['grpc-status'], String(Code.ResourceExhausted));
      assert.match(String(answer.trailers['grpc-message']), /The last 100 batches of this stream were refused/);
      const answers = envelopesOf(answer.body).length - 1;
      assert.ok(answers >= 100 && answers < 110, `${answers} answers`);
    });
  });
});

onBothPaths(
  test,
  'on drain, streams hear of it, what was read is answered, and the stream ends well',
  async (withGateway) => {
    await withGateway({ drainGrace: 3_000 }, async (running) => {
      const polite = openStream(running);
      const stubborn = openStream(running);
      for (const stream of [polite, stubborn]) stream.send(batch('one'));
      await until('accepted', () => polite.of('accepted').length + stubborn.of('accepted').length === 2);
      const started = Date.now();
      const drained = running.gateway.drain();
      assert.not(running.gateway.ready);
      await until('told', () => polite.of('draining').length + stubborn.of('draining').length === 2);
      // What is on its way is still taken.
      polite.send(batch('two'));
      await until('accepted', () => polite.of('accepted').length === 2);
      polite.close();
      await until('the polite one ended', () => polite.ended !== undefined);
      assert.is(polite.ended, 'ok');
      assert.ok(Date.now() - started < 1_000);
      await until('the stubborn one ended', () => stubborn.ended !== undefined);
      assert.is(stubborn.ended, 'ok');
      await drained;
      assert.ok(Date.now() - started < 3_500, `${Date.now() - started}`);
      stubborn.close();
      const late = openStream(running);
      late.send(batch('late'));
      await until('no new connection', () => late.ended !== undefined);
      assert.is((late.ended as ConnectError).code, Code.Unavailable);
    });
  },
);

onBothPaths(test, 'an old connection is asked to go, and the next call is on a new one', async (withGateway) => {
  await withGateway({ maxConnectionAge: 1_000, drainGrace: 1_000 }, async (running) => {
    const stream = openStream(running);
    stream.send(batch('one'));
    await until('told', () => stream.of('draining').length === 1, 3_000);
    await until('ended', () => stream.ended !== undefined, 3_000);
    assert.is(stream.ended, 'ok');
    const next = openStream(running);
    next.send(batch('two'));
    await until('accepted', () => next.of('accepted').length === 1);
    next.close();
    await next.done;
    assert.is(next.ended, 'ok');
    assert.ok(running.gateway.ready);
  });
});

onBothPaths(test, 'a deadline ends the stream', async (withGateway) => {
  await withGateway({}, async (running) => {
    const stream = openStream(running, 400);
    stream.send(batch('one'));
    await until('ended', () => stream.ended !== undefined, 2_000);
    assert.is((stream.ended as ConnectError).code, Code.DeadlineExceeded);
    assert.is(stream.of('accepted').length, 1);
    stream.close();
  });
});

onBothPaths(
  test,
  'past the bound of a stream nothing more is read, and all is answered once the log is back',
  async (withGateway) => {
    await withGateway({ maxStreamBytesInFlight: 1024 ** 2, publishTimeout: 30_000 }, async (running) => {
      const stream = openStream(running);
      stream.send(batch('warm'));
      await until('accepted', () => stream.of('accepted').length === 1);
      await freeze(running.nats.process());
      const count = 400;
      // 400 × 75 KB: far more than windows and bound together.
      const one = makeBatch(createRandom(6), 500);
      for (let i = 0; i < count; i++) stream.send({ batch: one, batchId: `b${i}`, attempt: 1 });
      let before = -1;
      await until('the client is stopped', async () => {
        const still = before === stream.taken;
        before = stream.taken;
        await new Promise((resolve) => setTimeout(resolve, 200));
        return still && before > 1;
      });
      assert.ok(stream.taken < count / 2, `taken: ${stream.taken}`);
      running.nats.process().kill('SIGCONT');
      stream.close();
      await until('all answered', () => stream.ended !== undefined, 20_000);
      assert.is(stream.ended, 'ok');
      assert.is(stream.of('accepted').length, count + 1);
      assert.is(stream.of('failed').length, 0);
    });
  },
);

onBothPaths(test, 'a client that reads no answers is not read from without end', async (withGateway) => {
  await withGateway({}, async ({ url, headers }) => {
    const client = createClient(IngestService, createConnectTransport({ baseUrl: url, httpVersion: '2' }));
    let sent = 0;
    const abort = new AbortController();
    // One invalid event: the answer is longer than the request.
    const invalid = create(EventBatchSchema, { events: [{}] });
    async function* requests(): AsyncGenerator<Request> {
      for (; sent < 200_000; sent++) {
        yield { batch: invalid, batchId: `${sent}`, attempt: 1 };
        if (sent % 100 === 0) await new Promise((resolve) => setImmediate(resolve));
      }
    }
    const answers = client.publishStream(requests(), { headers, signal: abort.signal })[Symbol.asyncIterator]();
    await answers.next();
    let before = -1;
    await until(
      'the client is stopped',
      async () => {
        const still = before === sent;
        before = sent;
        await new Promise((resolve) => setTimeout(resolve, 300));
        return still;
      },
      20_000,
    );
    assert.ok(sent < 100_000, `sent: ${sent}`);
    abort.abort();
    await answers.next().catch(() => {});
  });
});

onBothPaths(
  test,
  'NATS down: failures that may be retried, the stream goes on, and accepts again when the log is back',
  async (withGateway) => {
    await withGateway({}, async (running) => {
      const stream = openStream(running);
      stream.send(batch('one'));
      await until('accepted', () => stream.of('accepted').length === 1);
      running.nats.process().kill('SIGKILL');
      await until('not ready', () => !running.gateway.ready);
      stream.send(batch('two'));
      await until('failed', () => stream.of('failed').length === 1);
      const [failure] = stream.of('failed');
      assert.is(failure?.case, 'failed');
      if (failure?.case === 'failed') {
        assert.is(failure.value.code, Code.Unavailable);
        assert.ok(failure.value.retryAfter !== undefined);
      }
      await running.nats.restart();
      await until('ready', () => running.gateway.ready, 10_000);
      stream.send({ ...batch('two'), attempt: 2 });
      await until('accepted', () => stream.of('accepted').length === 2);
      stream.close();
      await stream.done;
      assert.is(stream.ended, 'ok');
      const ids = (await stored(running.nats)).flatMap(({ batches }) => batches.map((one) => one.batchId));
      assert.equal(ids.sort(), ['one', 'two']);
    });
  },
);

onBothPaths(
  test,
  'a stream that asks for COMMITTED hears what workers say, and what NATS may have forgotten is answered as failed',
  async (withGateway) => {
    await withGateway({ shards: 1 }, async (running) => {
      const { nats } = running;
      const stream = openStream(running);
      const plain = openStream(running);
      stream.send({ options: { durability: Durability.COMMITTED } });
      stream.send(batch('one'));
      await until('accepted', () => stream.of('accepted').length === 1);
      // Of a message of its own.
      stream.send(batch('two'));
      plain.send(batch('three'));
      await until('accepted', () => stream.of('accepted').length === 2 && plain.of('accepted').length === 1);
      // Places on this stream, not sequences of the log, which another stream shares (COMMIT-6).
      const positions = [...stream.of('accepted'), ...plain.of('accepted')].map(
        (answer) => answer.case === 'accepted' && answer.value.position,
      );
      assert.equal(
        positions.map((position) => position && [position.stream, position.shard, position.sequence]),
        [['', 0, 1n], ['', 0, 2n], undefined],
      );
      const jsm = await jetstreamManager(nats.nc);
      const generation = generationOf(await jsm.streams.info(shardStream(0)));
      const tell = (sequence: number, of = generation): void =>
        nats.nc.publish(committedSubject(0), JSON.stringify({ generation: of, sequence }));
      // Of a stream that is no more: no word for this one.
      tell(1_000, 'long ago');
      tell(1);
      await until('committed', () => stream.of('committed').length === 1);
      running.nats.process().kill('SIGKILL');
      await until('in doubt', () => stream.of('failed').length === 1);
      const [failed] = stream.of('failed');
      assert.is(failed?.case === 'failed' && failed.value.batchId, 'two');
      await nats.restart();
      await until('ready', () => running.gateway.ready, 10_000);
      stream.send({ ...batch('two'), attempt: 2 });
      await until('accepted', () => stream.of('accepted').length === 3);
      await until('committed', () => {
        tell(100);
        return stream.of('committed').length === 2;
      });
      stream.close();
      plain.close();
      await Promise.all([stream.done, plain.done]);
      assert.is(stream.ended, 'ok');
      assert.is(plain.ended, 'ok');
      assert.equal([plain.of('committed').length, plain.of('failed').length], [0, 0]);
    });
  },
);

onBothPaths(
  test,
  'a stream that is done stays open for its commits, and a drain waits for them within its grace',
  async (withGateway) => {
    await withGateway({ shards: 1, drainGrace: 3_000 }, async (running) => {
      const { nats } = running;
      const options = create(StreamOptionsSchema, { durability: Durability.COMMITTED });
      const [polite, patient] = [openStream(running), openStream(running)];
      for (const stream of [polite, patient]) stream.send({ ...batch('one'), options });
      await until('accepted', () => polite.of('accepted').length + patient.of('accepted').length === 2);
      polite.close();
      await new Promise((resolve) => setTimeout(resolve, 200));
      assert.is(polite.ended, undefined);
      const jsm = await jetstreamManager(nats.nc);
      const info = await jsm.streams.info(shardStream(0));
      const hint = { generation: generationOf(info), sequence: 1 };
      nats.nc.publish(committedSubject(0), JSON.stringify(hint));
      const streams = [polite, patient];
      await until('one has its commit', () => streams.some((stream) => stream.of('committed').length === 1));
      // The one whose batch came first; the other is still waiting when the drain begins.
      const drained = running.gateway.drain();
      nats.nc.publish(committedSubject(0), JSON.stringify({ ...hint, sequence: 2 }));
      await until('both', () => streams.every((stream) => stream.of('committed').length > 0));
      patient.close();
      await Promise.all([polite.done, patient.done, drained]);
      assert.equal([polite.ended, patient.ended], ['ok', 'ok']);
    });
  },
);

onBothPaths(test, 'batches of one stream are answered as each is settled, many at a time', async (withGateway) => {
  await withGateway({}, async (running) => {
    const stream = openStream(running);
    for (let i = 0; i < 500; i++) stream.send(batch(`b${i}`, 2));
    await until('all answered', () => stream.of('accepted').length === 500);
    const ids = stream.answers.flatMap((answer) => (answer.case === 'accepted' ? [answer.value.batchId] : []));
    assert.is(new Set(ids).size, 500);
    // Fewer messages than batches: some were in flight together and shared one.
    const messages = (await stored(running.nats)).length;
    assert.ok(messages < 500, `messages: ${messages}`);
    stream.close();
    await stream.done;
    assert.is(stream.ended, 'ok');
  });
});

test.run();

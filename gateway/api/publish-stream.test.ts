import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Durability, RejectionCode } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { allAtOnce } from '../../lib/contract/json/index.js';
import { SluiceError } from '../../lib/errors.js';
import { type CommitWatch, createCommitWatch } from '../ingest/committed.js';
import type { IngestResult } from '../ingest/ingest.js';
import { createConnection } from '../listener/connection.js';
import { readStreamRequest } from './json-request.js';
import { openStreamCall, type StreamCall } from './stream-call.js';
import type { BatchMessage } from './view.js';

interface Setting {
  readonly stream: StreamCall;
  readonly commits: CommitWatch;
  /** Takes a batch, which the log acknowledges at this sequence of shard 0 at once; 0: it has no valid event. */
  send(
    batchId: string,
    sequence: number,
    durability?: Durability,
    rejected?: IngestResult['rejections'],
  ): Promise<boolean>;
  /** What there is to write, in short. */
  answers(): string[];
  /** Lets so many ms pass. */
  pass(ms: number): void;
  drain(graceMs: number): void;
}

function setting(maxUncommitted = 100, isFull = false): Setting {
  const commits = createCommitWatch(() => {});
  commits.seen(0, 'g');
  const timers = new Set<{ at: number; run: () => void }>();
  let now = 0;
  const connection = createConnection(undefined);
  const sequences = new Map<string, number>();
  const rejections = new Map<string, IngestResult['rejections']>();
  const stream = openStreamCall({
    call: {
      caller: { tenant: 'acme', keyId: 'k' },
      facts: {} as never,
      openedAt: 0,
      resent: false,
      deadlineAt: undefined,
      name: 'x',
    },
    connection,
    onRevoked: () => () => {},
    maxBytesInFlight: 1_000_000,
    maxUncommitted,
    publish: async (_call, { batchId }): Promise<IngestResult> => {
      const sequence = sequences.get(batchId) ?? 0;
      if (sequence < 0) throw new SluiceError('log_full', 'The log is full.', { retryAfterMs: 5 });
      const position = { stream: 'EV_0', shard: 0, sequence: BigInt(sequence) };
      return {
        batchId,
        accepted: 1,
        rejected: 0,
        rejections: rejections.get(batchId) ?? [],
        position: sequence === 0 ? undefined : position,
      };
    },
    room: async () => {},
    commits,
    onFailed: () => {},
    wake: () => {},
    isFull: () => isFull,
    after: (ms, run) => {
      const timer = { at: now + ms, run };
      timers.add(timer);
      return () => timers.delete(timer);
    },
  });
  return {
    stream,
    commits,
    send: (batchId, sequence, durability, rejected = []) => {
      sequences.set(batchId, sequence);
      rejections.set(batchId, rejected);
      const message: BatchMessage = {
        batch: Uint8Array.of(1),
        batchId,
        attempt: 1,
        sentAt: undefined,
        durability,
      };
      return Promise.resolve(stream.take(message));
    },
    answers: () => {
      const all: string[] = [];
      for (let next = stream.next(); next !== undefined; next = stream.next()) {
        if (next.case === 'accepted') all.push(`accepted ${next.value.batchId}`);
        else if (next.value.case === 'committed') all.push(`committed ${next.value.value.upTo?.sequence}`);
        else if (next.value.case === 'failed') {
          const { batchId, code, retryAfter, outcomeUnknown } = next.value.value;
          all.push(`failed ${batchId} ${code} ${retryAfter === undefined ? 'final' : 'retry'} ${outcomeUnknown}`);
        } else all.push(String(next.value.case));
      }
      return all;
    },
    pass: (ms) => {
      now += ms;
      for (const timer of [...timers].sort((a, b) => a.at - b.at)) {
        if (timer.at <= now && timers.delete(timer)) timer.run();
      }
    },
    drain: (graceMs) => connection.end({ reason: 'bye', graceMs }),
  };
}

/** Lets what was acknowledged reach the stream. */
const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

test('STREAM-1: while the transport takes nothing, no more is read from 64 answers on', async () => {
  for (const isFull of [false, true]) {
    const { stream, send, answers } = setting(100, isFull);
    for (let i = 0; i < 64; i++) await send(`a${i}`, 1 + i);
    await settle();
    let taken = false;
    const sending = send('b', 100).then(() => {
      taken = true;
    });
    await settle();
    assert.is(taken, !isFull);
    assert.is(answers().length, isFull ? 64 : 65);
    await sending;
    await settle();
    assert.is(answers().length, isFull ? 1 : 0);
    stream.close();
  }
});

test('STREAM-1: while the transport takes nothing, no more is read from 64 KiB of answers on, and they count with their texts', async () => {
  const rejection = { index: 1, field: 'type', code: RejectionCode.REQUIRED, message: 'x'.repeat(300) };
  const { stream, send, answers } = setting(100, true);
  for (const id of ['a', 'b']) await send(id, 1, undefined, Array(100).fill(rejection));
  await settle();
  assert.ok(stream.unread > 2 * 100 * 500, `${stream.unread} bytes`);
  let taken = false;
  const sending = send('c', 3).then(() => {
    taken = true;
  });
  await settle();
  assert.is(taken, false);
  assert.equal(answers(), ['accepted a', 'accepted b']);
  assert.is(stream.unread, 0);
  await sending;
  await settle();
  assert.ok(stream.unread > 0);
  stream.close();
  assert.is(stream.unread, 0, 'a stream that is over keeps no answers');
});

test('STREAM-4: a stream that did not ask hears nothing of ClickHouse, and does not stay open for it', async () => {
  for (const durability of [undefined, Durability.UNSPECIFIED, Durability.ACCEPTED]) {
    const { stream, commits, send, answers } = setting();
    await send('a', 10, durability);
    // Too late to ask.
    await send('b', 11, Durability.COMMITTED);
    await settle();
    stream.finish();
    assert.equal(answers(), ['accepted a', 'accepted b']);
    assert.is(stream.end, 'ok');
    assert.is(commits.uncommitted, 0);
    stream.close();
  }
});

test('STREAM-4: a stream that asked hears one watermark for many batches, and ends when all are committed', async () => {
  const { stream, commits, send, answers } = setting();
  await send('a', 10, Durability.COMMITTED);
  for (let i = 0; i < 5; i++) await send(`b${i}`, 11 + i);
  await send('empty', 0);
  await settle();
  assert.is(answers().length, 7);
  commits.hint(0, 'g', 14);
  assert.equal(answers(), ['committed 5']);
  stream.finish();
  assert.is(stream.end, undefined);
  commits.hint(0, 'g', 15);
  assert.equal(answers(), ['committed 6']);
  assert.is(stream.end, 'ok');
  stream.close();
});

test('COMMIT-4: a watermark comes after the acceptance that it covers, also when it was known before', async () => {
  const { stream, commits, send, answers } = setting();
  commits.hint(0, 'g', 20);
  await send('a', 19, Durability.COMMITTED);
  await settle();
  assert.equal(answers(), ['accepted a', 'committed 1']);
  stream.close();
});

test('COMMIT-2: accepted batches in doubt are answered once more, as failed and to be sent again', async () => {
  const { stream, commits, send, answers } = setting();
  await send('a', 10, Durability.COMMITTED);
  await send('b', 11);
  await settle();
  commits.hint(0, 'g', 10);
  commits.doubt('the connection to NATS was lost');
  await send('b', 12);
  await settle();
  commits.hint(0, 'g', 30);
  assert.equal(answers(), [
    'accepted a',
    'accepted b',
    'committed 1',
    'failed b 14 retry true',
    'accepted b',
    'committed 3',
  ]);
  stream.finish();
  assert.is(stream.end, 'ok');
  stream.close();
});

test('STREAM-4: with too many batches of its tenant not committed a stream is not read, until its own are', async () => {
  const { stream, commits, send } = setting(100_000);
  const other = commits.follow('acme', { committed: () => {}, doubted: () => {} });
  for (let i = 1; i <= 65_536; i++) {
    other.accepted('x', { stream: 'EV_0', shard: 0, sequence: BigInt(10 + i) }, () => {});
  }
  assert.ok(await send('a1', 1, Durability.COMMITTED), 'it has none');
  await settle();
  let taken = false;
  const second = send('a2', 2).then((reading) => {
    taken = true;
    return reading;
  });
  await settle();
  assert.not(taken);
  commits.hint(0, 'g', 1);
  assert.ok(await second);
  stream.close();
  other.close();
  assert.is(commits.uncommitted, 0);
});

test('STREAM-4: with too many batches not committed the stream is not read, until some are, or it ends', async () => {
  const { stream, commits, send, answers } = setting(3);
  for (let i = 1; i <= 3; i++) await send(`a${i}`, i, Durability.COMMITTED);
  await settle();
  answers();
  let taken = false;
  const fourth = send('a4', 4).then((reading) => {
    taken = true;
    return reading;
  });
  await settle();
  assert.not(taken);
  commits.hint(0, 'g', 1);
  assert.ok(await fourth);
  answers();
  const fifth = send('a5', 5);
  stream.close();
  assert.not(await fifth);
  assert.is(commits.uncommitted, 0);
});

test('STREAM-4: a stream whose client is done waits a minute for commits, then ends in order', async () => {
  const { stream, send, answers, pass } = setting();
  await send('a', 10, Durability.COMMITTED);
  await settle();
  answers();
  stream.finish();
  pass(59_000);
  assert.is(stream.end, undefined);
  pass(1_000);
  assert.is(stream.end, 'ok');
  stream.close();
});

test('STREAM-4: a stream that drains ends before the grace is over, committed or not', async () => {
  const { stream, send, answers, pass, drain } = setting();
  await send('a', 10, Durability.COMMITTED);
  await settle();
  drain(10_000);
  assert.equal(answers(), ['accepted a', 'draining']);
  pass(5_000);
  // Nothing is read any more, but what is not committed is waited for.
  assert.not(await send('b', 11));
  assert.is(stream.end, undefined);
  pass(4_000);
  assert.is(stream.end, 'ok');
  stream.close();
});

test('STREAM-4: bytes that are no message end the stream at once; what is not committed is for the client to send again', async () => {
  const { stream, send, answers } = setting();
  await send('a', 10, Durability.COMMITTED);
  await settle();
  stream.finish({ thrown: new SluiceError('batch_malformed', 'no') });
  assert.equal(answers(), ['accepted a']);
  assert.instance(stream.end, Error);
  stream.close();
});

test('the options of a first message hold although its batch was refused while it was read', async () => {
  const { stream, commits, send, answers } = setting();
  const refused = allAtOnce(
    readStreamRequest(Buffer.from('{"attempt":-1,"options":{"durability":"DURABILITY_COMMITTED"},"batchId":"a"}'), {
      maxEvents: 10,
      maxBytes: 1_000,
      ignoreUnknownFields: false,
    }),
  );
  assert.ok(await stream.take(refused));
  await send('b', 10);
  await settle();
  commits.hint(0, 'g', 10);
  assert.equal(answers(), ['failed a 3 final false', 'accepted b', 'committed 1']);
  stream.finish();
  assert.is(stream.end, 'ok');
  stream.close();
});

test('STREAM-1: failures of refused messages wait for a client that reads no answers', async () => {
  const { stream, send, answers } = setting();
  const limits = { maxEvents: 10, maxBytes: 1_000, ignoreUnknownFields: false };
  // A good one now and then, for a hundred refusals in a row would end the stream (STREAM-5).
  for (let i = 0; i < 1_024; i++) {
    const good = i % 50 === 49;
    assert.ok(
      await (good ? send(`good-${i}`, i) : stream.take(allAtOnce(readStreamRequest(Buffer.from('no'), limits)))),
    );
  }
  let taken = false;
  const next = Promise.resolve(stream.take(allAtOnce(readStreamRequest(Buffer.from('no'), limits)))).then(() => {
    taken = true;
  });
  await settle();
  assert.not(taken);
  assert.is(answers().length, 1_024);
  await next;
  stream.close();
});

test('a batch that failed is no batch to be committed', async () => {
  const { stream, commits, send, answers } = setting();
  await send('a', -1, Durability.COMMITTED);
  await settle();
  assert.equal(answers(), ['failed a 8 retry false']);
  assert.is(commits.uncommitted, 0);
  stream.finish();
  assert.is(stream.end, 'ok');
  stream.close();
});

test.run();

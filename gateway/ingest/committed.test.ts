import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type CommitTrouble, createCommitWatch } from './committed.js';
import { readHint } from './committed-hints.js';

const told = (): void => {};

function setting() {
  const troubles: CommitTrouble[] = [];
  const watch = createCommitWatch((trouble) => troubles.push(trouble));
  watch.seen(0, 'g0');
  watch.seen(1, 'g1');
  const stream = (tenant = 'acme') => {
    const heard: string[] = [];
    const follower = watch.follow(tenant, {
      committed: ({ shard, place }) => heard.push(`${shard} to ${place}`),
      doubted: (ids) => heard.push(`doubted ${ids.join(' ')}`),
    });
    return {
      heard,
      follower,
      accept: (batchId: string, sequence: number, shard = 0) =>
        follower.accepted(batchId, { stream: `EV_${shard}`, shard, sequence: BigInt(sequence) }, told),
    };
  };
  return { watch, troubles, stream };
}

test('COMMIT-1: a stream hears of a watermark that passes its batches, once for all of them, and of no other', () => {
  const { watch, stream } = setting();
  const [one, other, none] = [stream(), stream(), stream()];
  one.accept('a', 10);
  one.accept('b', 12);
  one.accept('c', 3, 1);
  other.accept('d', 20);
  assert.is(watch.uncommitted, 4);
  watch.hint(0, 'g0', 9);
  assert.equal([...one.heard, ...other.heard], []);
  watch.hint(0, 'g0', 15);
  assert.equal(one.heard, ['0 to 2']);
  watch.hint(0, 'g0', 16);
  assert.equal(one.heard, ['0 to 2']);
  watch.hint(1, 'g1', 3);
  assert.equal(one.heard, ['0 to 2', '1 to 1']);
  assert.is(one.follower.uncommitted, 0);
  assert.equal([...other.heard, ...none.heard], []);
  assert.is(other.follower.uncommitted, 1);
  assert.equal(watch.counts, { committed: 3, doubted: 0 });
});

test('COMMIT-1: an older word changes nothing, and one of another stream says so', () => {
  const { watch, stream, troubles } = setting();
  const one = stream();
  assert.ok(watch.hint(0, 'g0', 15));
  assert.ok(watch.hint(0, 'g0', 7));
  assert.is(watch.lastCommitted(0), 15);
  one.accept('a', 20);
  assert.not(watch.hint(0, 'made later', 25));
  assert.not(watch.hint(7, 'g7', 25));
  assert.equal(one.heard, []);
  watch.hint(0, 'g0', 20);
  assert.equal(one.heard, ['0 to 1']);
  assert.equal(troubles, []);
});

test('COMMIT-4: a batch that is accepted below a watermark is answered at once, and acks out of order are as good', () => {
  const { watch, stream } = setting();
  const one = stream();
  watch.hint(0, 'g0', 15);
  one.accept('a', 14);
  assert.equal(one.heard, ['0 to 1']);
  one.accept('c', 30);
  one.accept('b', 20);
  watch.hint(0, 'g0', 25);
  assert.is(one.follower.uncommitted, 1);
  // Its place is behind that of c.
  assert.equal(one.heard, ['0 to 1']);
  watch.doubt('x');
  assert.equal(one.heard, ['0 to 1', 'doubted c', '0 to 3']);
});

test('COMMIT-2: a lost connection puts all that is not committed in doubt, and a later watermark does not speak of it', () => {
  const { watch, stream, troubles } = setting();
  const [one, other] = [stream(), stream()];
  one.accept('a', 10);
  one.accept('b', 11, 1);
  other.accept('c', 12);
  watch.hint(0, 'g0', 10);
  watch.doubt('the connection to NATS was lost');
  assert.equal(one.heard, ['0 to 1', 'doubted b']);
  assert.equal(other.heard, ['doubted c']);
  watch.hint(0, 'g0', 50);
  assert.is(other.heard.length, 1);
  assert.is(watch.uncommitted, 0);
  assert.equal(watch.counts, { committed: 1, doubted: 2 });
  assert.equal(troubles, [{ kind: 'doubt', reason: 'the connection to NATS was lost', batches: 2 }]);
  // Nothing to doubt: nothing to tell.
  watch.doubt('again');
  assert.is(troubles.length, 1);
});

test('COMMIT-2: a batch whose log falls into doubt between its ack and its answer is in doubt', () => {
  const { watch, stream } = setting();
  const one = stream();
  const position = (shard: number) => ({ stream: `EV_${shard}`, shard, sequence: 5n, history: watch.history(shard) });
  const [before, other] = [position(0), position(1)];
  // All of it may come in one piece of what the socket has: the ack, the word of a new leader, and how far ClickHouse is since.
  watch.doubt('another leader', 0);
  watch.hint(0, 'g0', 7);
  one.follower.accepted('a', before, told);
  one.follower.accepted('b', other, told);
  assert.equal(one.heard, ['doubted a']);
  one.follower.accepted('c', position(0), told);
  assert.equal(one.heard, ['doubted a', '0 to 2']);
  assert.equal(watch.counts, { committed: 1, doubted: 1 });
  assert.is(watch.uncommitted, 1);
});

test('COMMIT-2: a stream that was made again puts its shard in doubt, and its watermark begins again', () => {
  const { watch, stream } = setting();
  const one = stream();
  watch.hint(0, 'g0', 15);
  one.accept('a', 20);
  one.accept('b', 20, 1);
  watch.seen(0, 'g0');
  assert.equal(one.heard, []);
  watch.seen(0, 'g00');
  assert.equal(one.heard, ['doubted a']);
  one.accept('c', 3);
  assert.is(watch.lastCommitted(0), 0);
  assert.not(watch.hint(0, 'g0', 30));
  watch.hint(0, 'g00', 3);
  watch.hint(1, 'g1', 20);
  assert.equal(one.heard, ['doubted a', '0 to 2', '1 to 1']);
});

test('COMMIT-3: a sequence at or below one that was acknowledged before the message was sent: the log went backwards', () => {
  const { watch, stream, troubles } = setting();
  const one = stream();
  const send = (): [number, number] => [watch.lastAcked(0), watch.lastCommitted(0)];
  assert.ok(watch.acked(0, 10, ...send()));
  const [second, third] = [send(), send()];
  // Two in flight at once may be acknowledged in any order.
  assert.ok(watch.acked(0, 12, ...second));
  assert.ok(watch.acked(0, 11, ...third));
  assert.equal(troubles, []);
  one.accept('a', 12);
  // It is in the log, and above what ClickHouse has: accepted. What was there before is in doubt.
  assert.ok(watch.acked(0, 6, ...send()));
  assert.equal(one.heard, ['doubted a']);
  assert.equal(troubles[0], { kind: 'backwards', shard: 0, sequence: 6, after: 12 });
  assert.is(watch.lastAcked(0), 6);
  assert.ok(watch.acked(0, 7, ...send()));
  assert.is(troubles.length, 2);
});

test('COMMIT-3: a message at or below the committed watermark would never be loaded, so it does not count', () => {
  const { watch, stream } = setting();
  const one = stream();
  one.accept('a', 40);
  watch.hint(0, 'g0', 30);
  // The connection was lost, the log came back shorter than ClickHouse knows it.
  watch.doubt('the connection to NATS was lost');
  const before: [number, number] = [watch.lastAcked(0), watch.lastCommitted(0)];
  assert.equal(before, [0, 30]);
  assert.not(watch.acked(0, 29, ...before));
  assert.not(watch.acked(0, 30, ...before));
  assert.ok(watch.acked(0, 31, ...before));
  // Loaded between its sending and its ack: that is merely quick.
  watch.hint(0, 'g0', 33);
  assert.ok(watch.acked(0, 32, ...before));
});

test('a stream that is closed hears nothing, counts for nothing, and may close while it hears', () => {
  const { watch, stream } = setting();
  const [one, other] = [stream(), stream()];
  one.accept('a', 10);
  one.follower.close();
  one.follower.close();
  one.accept('b', 11);
  assert.is(watch.uncommitted, 0);
  other.accept('c', 12);
  const late = watch.follow('acme', { committed: () => late.close(), doubted: () => {} });
  late.accepted('d', { stream: 'EV_0', shard: 0, sequence: 1n }, told);
  watch.hint(0, 'g0', 12);
  assert.equal(one.heard, []);
  assert.equal(other.heard, ['0 to 1']);
  assert.is(watch.uncommitted, 0);
});

test('COMMIT-6: what a stream hears depends on its own batches alone, and covers each of them in the end', () => {
  const { watch, stream } = setting();
  const one = stream();
  const places: string[] = [];
  const accept = (batchId: string, sequence: number): void =>
    one.follower.accepted(batchId, { stream: 'EV_0', shard: 0, sequence: BigInt(sequence) }, (place) =>
      places.push(`${batchId} ${place} after ${one.heard.length}`),
    );
  for (const [batchId, sequence] of [
    ['a', 5_000],
    ['b', 7_000],
    ['c', 6_000],
    ['d', 9_000],
  ] as const)
    accept(batchId, sequence);
  watch.hint(0, 'g0', 6_500);
  assert.equal(one.heard, ['0 to 1']);
  watch.hint(0, 'g0', 8_000);
  assert.equal(one.heard, ['0 to 1', '0 to 3']);
  accept('e', 7_500);
  // Its own acceptance is sent first.
  assert.equal(places, ['a 1 after 0', 'b 2 after 0', 'c 3 after 0', 'd 4 after 0', 'e 5 after 2']);
  watch.hint(0, 'g0', 1_000_000);
  assert.equal(one.heard, ['0 to 1', '0 to 3', '0 to 5']);
  assert.is(one.follower.uncommitted, 0);
});

test('COMMIT-5: a tenant has a share of what there may be in all, and a stream without a batch gets on', () => {
  const { watch, stream } = setting();
  const share = 32_768;
  const streams = ['a', 'b', 'c', 'd'].map((tenant) => stream(tenant));
  const [first] = streams;
  const second = stream('a');
  assert.ok(first);
  for (let i = 1; i <= share; i++) {
    assert.not(first.follower.full);
    first.accept('x', i);
  }
  assert.ok(first.follower.full);
  assert.not(second.follower.full, 'one without any gets on');
  second.accept('x', share);
  assert.ok(second.follower.full);
  second.follower.close();
  for (const { accept, follower } of streams.slice(1)) {
    for (let i = 1; i <= share; i++) {
      assert.not(follower.full, 'others have their own');
      accept('x', i, 1);
    }
  }
  const fifth = stream('e');
  fifth.accept('x', 1, 1);
  assert.ok(fifth.follower.full);
  watch.hint(0, 'g0', share);
  assert.not(fifth.follower.full);
  assert.not(first.follower.full);
});

test('what is no word of a worker is not read', () => {
  const hint = (subject: string, text: string) =>
    readHint({ subject, data: new TextEncoder().encode(text), string: () => text });
  assert.equal(hint('sluice.committed.12', '{"generation":"g","sequence":5}'), {
    shard: 12,
    generation: 'g',
    sequence: 5,
  });
  for (const [subject, text] of [
    ['sluice.committed.x', '{"generation":"g","sequence":5}'],
    ['sluice.committed.99999', '{"generation":"g","sequence":5}'],
    ['sluice.committed.1', ''],
    ['sluice.committed.1', 'null'],
    ['sluice.committed.1', '{"generation":1,"sequence":5}'],
    ['sluice.committed.1', '{"generation":"g","sequence":-1}'],
    ['sluice.committed.1', '{"generation":"g","sequence":1.5}'],
    ['sluice.committed.1', `{"generation":"${'g'.repeat(300)}","sequence":5}`],
  ] as const) {
    assert.is(hint(subject, text), undefined, `${subject} ${text.slice(0, 60)}`);
  }
});

test.run();

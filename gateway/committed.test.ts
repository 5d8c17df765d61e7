import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type CommitTrouble, createCommitWatch } from './committed.js';
import { readHint } from './committed-hints.js';

function setting() {
  const troubles: CommitTrouble[] = [];
  const watch = createCommitWatch((trouble) => troubles.push(trouble));
  watch.seen(0, 'g0');
  watch.seen(1, 'g1');
  const stream = () => {
    const heard: string[] = [];
    const follower = watch.follow({
      committed: ({ stream: name, shard, sequence }) => heard.push(`${name}/${shard} ${sequence}`),
      doubted: (ids) => heard.push(`doubted ${ids.join(' ')}`),
    });
    return {
      heard,
      follower,
      accept: (batchId: string, sequence: number, shard = 0) =>
        follower.accepted(batchId, { stream: `EV_${shard}`, shard, sequence: BigInt(sequence) }),
    };
  };
  return { watch, troubles, stream };
}

test('W1: a stream hears of a watermark that passes its batches, once for all of them, and of no other', () => {
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
  assert.equal(one.heard, ['EV_0/0 15']);
  watch.hint(0, 'g0', 16);
  assert.equal(one.heard, ['EV_0/0 15']);
  watch.hint(1, 'g1', 3);
  assert.equal(one.heard, ['EV_0/0 15', 'EV_1/1 3']);
  assert.is(one.follower.uncommitted, 0);
  assert.equal([...other.heard, ...none.heard], []);
  assert.is(other.follower.uncommitted, 1);
  assert.equal(watch.counts, { committed: 3, doubted: 0 });
});

test('W1: an older word changes nothing, and one of another stream says so', () => {
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
  assert.equal(one.heard, ['EV_0/0 20']);
  assert.equal(troubles, []);
});

test('W4: a batch that is accepted below a watermark is told at once, and acks out of order are as good', () => {
  const { watch, stream } = setting();
  const one = stream();
  watch.hint(0, 'g0', 15);
  one.accept('a', 14);
  assert.equal(one.heard, ['EV_0/0 15']);
  one.accept('c', 30);
  one.accept('b', 20);
  watch.hint(0, 'g0', 25);
  assert.is(one.follower.uncommitted, 1);
  watch.doubt('x');
  assert.equal(one.heard, ['EV_0/0 15', 'EV_0/0 25', 'doubted c']);
});

test('W2: a lost connection puts all that is not committed in doubt, and a later watermark does not speak of it', () => {
  const { watch, stream, troubles } = setting();
  const [one, other] = [stream(), stream()];
  one.accept('a', 10);
  one.accept('b', 11, 1);
  other.accept('c', 12);
  watch.hint(0, 'g0', 10);
  watch.doubt('the connection to NATS was lost');
  assert.equal(one.heard, ['EV_0/0 10', 'doubted b']);
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

test('W2: a batch whose log came to be in doubt between its ack and the telling of it is in doubt', () => {
  const { watch, stream } = setting();
  const one = stream();
  const position = (shard: number) => ({ stream: `EV_${shard}`, shard, sequence: 5n, history: watch.history(shard) });
  const [before, other] = [position(0), position(1)];
  // All of it may come in one piece of what the socket has: the ack, the word of a new leader, and how far the warehouse is since.
  watch.doubt('another leader', 0);
  watch.hint(0, 'g0', 7);
  one.follower.accepted('a', before);
  one.follower.accepted('b', other);
  assert.equal(one.heard, ['doubted a']);
  one.follower.accepted('c', position(0));
  assert.equal(one.heard, ['doubted a', 'EV_0/0 7']);
  assert.equal(watch.counts, { committed: 1, doubted: 1 });
  assert.is(watch.uncommitted, 1);
});

test('W2: a stream that was made anew puts its shard in doubt, and its watermark begins anew', () => {
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
  assert.equal(one.heard, ['doubted a', 'EV_0/0 3', 'EV_1/1 20']);
});

test('W3: a sequence at or below one that was acknowledged before the message was sent: the log went backwards', () => {
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
  // It is in the log, and above what the warehouse has: accepted. What was there before is in doubt.
  assert.ok(watch.acked(0, 6, ...send()));
  assert.equal(one.heard, ['doubted a']);
  assert.equal(troubles[0], { kind: 'backwards', shard: 0, sequence: 6, after: 12 });
  assert.is(watch.lastAcked(0), 6);
  assert.ok(watch.acked(0, 7, ...send()));
  assert.is(troubles.length, 2);
});

test('W3: a message at or below the committed watermark would never be loaded, so it does not count', () => {
  const { watch, stream } = setting();
  const one = stream();
  one.accept('a', 40);
  watch.hint(0, 'g0', 30);
  // The connection was lost, the log came back shorter than the warehouse knows it.
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
  const late = watch.follow({ committed: () => late.close(), doubted: () => {} });
  late.accepted('d', { stream: 'EV_0', shard: 0, sequence: 1n });
  watch.hint(0, 'g0', 12);
  assert.equal(one.heard, []);
  assert.equal(other.heard, ['EV_0/0 12']);
  assert.is(watch.uncommitted, 0);
});

test('W5: in all, there is a most', () => {
  const { watch, stream } = setting();
  const one = stream();
  for (let i = 1; i <= 262_144; i++) {
    assert.not(watch.full);
    one.accept('x', i);
  }
  assert.ok(watch.full);
  watch.hint(0, 'g0', 1);
  assert.not(watch.full);
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

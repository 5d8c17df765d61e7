import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createDelivery, type Delivery, type DeliveryOptions, type Outcome } from './delivery.js';
import { createFakeGateway, type FakeGateway, type FakeStream } from './testing/fake-gateway.js';
import { createManualClock, type ManualClock } from './testing/manual-clock.js';

interface Setting {
  readonly delivery: Delivery;
  readonly gateway: FakeGateway;
  readonly clock: ManualClock;
  /** By batch: `accepted` or the code of the refusal. */
  readonly outcomes: string[];
  readonly errors: string[];
  /** Ids of batches, each time an answer accepts one. */
  readonly accepted: string[];
  add(events?: number): void;
}

/** Dice that always show the ceiling: waits are exactly 100, 200, 400 … ms. */
function setting(options: Partial<DeliveryOptions> = {}): Setting {
  const gateway = createFakeGateway();
  const clock = createManualClock();
  const outcomes: string[] = [];
  const errors: string[] = [];
  const accepted: string[] = [];
  let ids = 0;
  const delivery = createDelivery({
    durability: 'accepted',
    commitTimeoutMs: 300_000,
    maxBatchesInFlight: 4,
    maxBytesInFlight: 1_000,
    retry: { baseMs: 100, capMs: 1_000 },
    ackTimeoutMs: 60_000,
    connectTimeoutMs: 10_000,
    refusalGraceMs: 3_000,
    clock,
    random: () => 1,
    makeId: () => `b${++ids}`,
    open: (events) => gateway.open(events),
    onAccepted: (batch) => accepted.push(batch.batchId),
    onSettled: (batch, outcome: Outcome) =>
      outcomes.push(`${batch.batchId} ${outcome.kind === 'delivered' ? 'accepted' : outcome.code}`),
    onHungry: () => undefined,
    onError: (error) => errors.push(error.code),
    ...options,
  });
  // One event of 10 bytes: tag, length 8, 8 bytes.
  const event = [0x0a, 8, 1, 1, 1, 1, 1, 1, 1, 1];
  return {
    delivery,
    gateway,
    clock,
    outcomes,
    errors,
    accepted,
    add: (events = 1) => delivery.add({ bytes: Uint8Array.from(Array(events).fill(event).flat() as number[]), events }),
  };
}

const shown = (gateway: FakeGateway): string[] => gateway.last.sent.map((batch) => `${batch.batchId}:${batch.attempt}`);

test('DELIVER-1: sends nothing before it has the limits, then each batch with attempt 1', () => {
  const { delivery, gateway, add } = setting();
  assert.is(gateway.streams.length, 0);
  add();
  add();
  assert.is(gateway.streams.length, 1);
  assert.equal(shown(gateway), []);
  assert.not(delivery.stats().connected);
  gateway.last.limits();
  assert.equal(shown(gateway), ['b1:1', 'b2:1']);
  assert.ok(delivery.stats().connected);
});

test('DELIVER-2: a batch is settled once, whatever the gateway answers twice or makes up', () => {
  const { delivery, gateway, outcomes, add } = setting();
  add();
  gateway.last.limits();
  const [sent] = gateway.last.sent;
  gateway.last.accept(sent);
  gateway.last.accept(sent);
  gateway.last.fail(sent, { retryAfterMs: 0 });
  gateway.last.accept({ batchId: 'made-up', bytes: new Uint8Array(0), attempt: 1 });
  assert.equal(outcomes, ['b1 accepted']);
  assert.is(delivery.stats().batches, 0);
  assert.is(delivery.bytes, 0);
});

test('DELIVER-2: an answer that does not count the events of its batch is none: the stream ends, and the batch goes out again', () => {
  for (const [accepted, rejected] of [
    [0, 0],
    [2, 0],
    [4, 4],
    [3, 1],
  ] as const) {
    const { gateway, clock, outcomes, errors, add } = setting();
    add(3);
    gateway.last.limits();
    gateway.last.miscount(gateway.last.sent[0], accepted, rejected);
    assert.equal(outcomes, []);
    assert.equal(errors, ['internal']);
    assert.ok(gateway.last.aborted);
    clock.advance(100);
    gateway.last.limits();
    assert.equal(shown(gateway), ['b1:2']);
    gateway.last.accept(gateway.last.sent[0]);
    assert.equal(outcomes, ['b1 accepted']);
  }
});

test('DELIVER-3: no more batches and bytes are in flight than allowed, by the client or by the gateway', () => {
  const { delivery, gateway, add } = setting({ maxBytesInFlight: 100 });
  for (let i = 0; i < 6; i++) add();
  gateway.last.limits();
  assert.is(delivery.stats().batchesInFlight, 4);
  gateway.last.accept(gateway.last.sent[2]);
  assert.is(gateway.last.sent.length, 5);

  const small = setting({ maxBytesInFlight: 100 });
  for (let i = 0; i < 3; i++) small.add(4);
  small.gateway.last.limits({ maxBytesInFlight: 50 });
  assert.is(small.delivery.stats().bytesInFlight, 40);
  small.gateway.last.accept(small.gateway.last.sent[0]);
  assert.is(small.gateway.last.sent.length, 2);
});

test('DELIVER-3: a batch larger than the window is sent when nothing else is in flight', () => {
  const { gateway, add } = setting({ maxBytesInFlight: 5 });
  add();
  add();
  gateway.last.limits();
  assert.equal(shown(gateway), ['b1:1']);
});

test('DELIVER-4: a failed batch goes out again with attempt + 1, no earlier than asked, and nothing new before it', () => {
  const { delivery, gateway, clock, outcomes, add } = setting();
  add();
  gateway.last.limits();
  clock.advance(1);
  gateway.last.fail(gateway.last.sent[0], { code: 'resource_exhausted', retryAfterMs: 500 });
  add();
  assert.not(delivery.hungry);
  clock.advance(599);
  assert.equal(shown(gateway), ['b1:1']);
  clock.advance(1);
  assert.equal(shown(gateway), ['b1:1', 'b1:2', 'b2:1']);
  assert.is(delivery.stats().retries, 1);
  assert.equal(outcomes, []);
});

test('DELIVER-4: waits grow with failures in a row up to the cap, batches that failed together count once, an ack resets', () => {
  const { gateway, clock, add } = setting();
  for (let i = 0; i < 3; i++) add();
  gateway.last.limits();
  const failLatest = (count: number): void => {
    clock.advance(1);
    for (const sent of gateway.last.sent.slice(-count)) gateway.last.fail(sent, { retryAfterMs: 0 });
  };
  for (const wait of [100, 200, 400, 800, 1_000, 1_000]) {
    const before = gateway.last.sent.length;
    failLatest(3);
    clock.advance(wait - 1);
    assert.is(gateway.last.sent.length, before, `before ${wait} ms`);
    clock.advance(1);
    assert.is(gateway.last.sent.length, before + 3, `after ${wait} ms`);
  }
  gateway.last.accept(gateway.last.sent.at(-1));
  const before = gateway.last.sent.length;
  clock.advance(1);
  gateway.last.fail(gateway.last.sent.at(-2), { retryAfterMs: 0 });
  clock.advance(100);
  assert.is(gateway.last.sent.length, before + 1);
});

test('DELIVER-4: when the wait is over it asks for what was gathered meanwhile, also when nothing else is left to send', () => {
  let hungryAt: number | undefined;
  const { delivery, gateway, clock, add } = setting({
    refusalGraceMs: 0,
    onHungry: () => {
      hungryAt = clock.now();
    },
  });
  add();
  gateway.last.limits();
  gateway.last.fail(gateway.last.sent[0], { retryAfterMs: 5_000 });
  gateway.last.end('unavailable');
  clock.advance(1_000);
  gateway.last.refuse('unauthenticated');
  assert.is(delivery.stats().batches, 0);
  hungryAt = undefined;
  clock.advance(4_099);
  assert.is(hungryAt, undefined);
  clock.advance(1);
  assert.is(hungryAt, 5_100);
});

test('a failure without a retry delay is final, and the stream continues', () => {
  const { gateway, outcomes, add } = setting();
  add();
  gateway.last.limits();
  gateway.last.fail(gateway.last.sent[0], { code: 'invalid_argument' });
  add();
  gateway.last.accept(gateway.last.sent[1]);
  assert.equal(outcomes, ['b1 invalid_argument', 'b2 accepted']);
  assert.is(gateway.streams.length, 1);
});

test('DELIVER-5: when a stream breaks, what was in flight goes first on the next one, with attempt + 1', () => {
  const { gateway, clock, errors, add } = setting({ maxBatchesInFlight: 2 });
  for (let i = 0; i < 3; i++) add();
  gateway.last.limits();
  assert.equal(shown(gateway), ['b1:1', 'b2:1']);
  clock.advance(10);
  gateway.last.end('unavailable');
  assert.equal(errors, ['unavailable']);
  clock.advance(99);
  assert.is(gateway.streams.length, 1);
  clock.advance(1);
  assert.is(gateway.streams.length, 2);
  gateway.last.limits();
  assert.equal(shown(gateway), ['b1:2', 'b2:2']);
  // Late answers of the old stream are no answers.
  gateway.streams[0]?.accept(gateway.streams[0]?.sent[0]);
  assert.equal(shown(gateway), ['b1:2', 'b2:2']);
});

test('connects again no earlier than RetryInfo says, and with growing waits while the gateway is down', () => {
  const { gateway, clock, add } = setting();
  add();
  gateway.last.end('unavailable', 2_000);
  clock.advance(2_099);
  assert.is(gateway.streams.length, 1);
  clock.advance(1);
  assert.is(gateway.streams.length, 2);
  gateway.last.end('unavailable');
  clock.advance(199);
  assert.is(gateway.streams.length, 2);
  clock.advance(1);
  assert.is(gateway.streams.length, 3);
});

test('does not connect again after a stream ended while there is nothing to send', () => {
  const { gateway, clock, add } = setting();
  add();
  gateway.last.limits();
  gateway.last.accept(gateway.last.sent[0]);
  gateway.last.end();
  clock.advance(120_000);
  assert.is(gateway.streams.length, 1);
  add();
  assert.is(gateway.streams.length, 2);
});

test('on Draining nothing more goes to the old stream, another is opened, and late acks of the old one still count', () => {
  const { gateway, clock, outcomes, add } = setting();
  add();
  add();
  gateway.last.limits();
  const [old] = gateway.streams;
  old?.drain();
  old?.drain();
  assert.ok(old?.finished);
  add();
  clock.advance(100);
  assert.is(gateway.streams.length, 2);
  gateway.last.limits();
  assert.equal(shown(gateway), ['b3:1']);
  old?.accept(old.sent[0]);
  assert.equal(outcomes, ['b1 accepted']);
  old?.end();
  assert.equal(shown(gateway), ['b3:1', 'b2:2']);
});

test('a gateway that drains each stream before it sends its limits is reported, and asked ever more seldom', () => {
  const { gateway, clock, errors, add } = setting();
  add();
  for (const wait of [100, 200, 400, 800, 1_000, 1_000]) {
    gateway.last.drain();
    assert.ok(gateway.last.aborted);
    const before = gateway.streams.length;
    clock.advance(wait - 1);
    assert.is(gateway.streams.length, before);
    clock.advance(1);
    assert.is(gateway.streams.length, before + 1);
  }
  assert.equal(errors, Array(6).fill('unavailable'));
  gateway.last.limits();
  assert.equal(shown(gateway), ['b1:1']);
});

test('DELIVER-6: a batch that ends every stream is found and refused; the others get through', () => {
  const { gateway, clock, outcomes, add } = setting();
  for (let i = 0; i < 4; i++) add();
  for (let round = 0; round < 20 && outcomes.length < 4; round++) {
    clock.advance(2_000);
    const stream = gateway.last;
    stream.limits();
    for (let i = 0; i < stream.sent.length; i++) {
      if (stream.sent.some((batch) => batch.batchId === 'b3')) {
        stream.refuse('invalid_argument');
        break;
      }
      stream.accept(stream.sent[i]);
    }
  }
  assert.equal([...outcomes].sort(), ['b1 accepted', 'b2 accepted', 'b3 invalid_argument', 'b4 accepted']);
});

test('DELIVER-6: a batch under which a proxy ends every stream goes alone and ever more seldom, is reported, and blocks no other', () => {
  const messages: string[] = [];
  const { gateway, clock, outcomes, add } = setting({ onError: ({ message }) => messages.push(message) });
  for (let i = 0; i < 4; i++) add();
  let allowed = false;
  let ends = 0;
  const serve = (ms: number): void => {
    for (const until = clock.now() + ms; clock.now() < until; clock.advance(10)) {
      const stream = gateway.last;
      if (!stream.finished && stream.sent.length === 0) stream.limits();
      for (const sent of stream.sent.slice()) {
        if (sent.batchId === 'b3' && !allowed) {
          if (gateway.streams.length > ends) stream.end('unknown');
          ends = gateway.streams.length;
          break;
        }
        stream.accept(sent);
      }
    }
  };
  serve(5_000);
  assert.equal([...outcomes].sort(), ['b1 accepted', 'b2 accepted', 'b4 accepted']);
  const before = gateway.streams.length;
  for (let i = 0; i < 20; i++) {
    add();
    serve(2_000);
  }
  assert.is(outcomes.length, 23);
  // 8 times the cap of the waits, and as long again for what is random.
  assert.ok(gateway.streams.length - before <= 8, `${gateway.streams.length - before} streams in 40 s`);
  assert.match(messages.at(-1) ?? '', /Batch b3 was alone on the stream, and \d+ streams in a row ended under it/);
  const alone = gateway.streams.filter(({ sent }) => sent.some(({ batchId }) => batchId === 'b3')).slice(2);
  for (const { sent } of alone) assert.is(sent.at(-1)?.batchId, 'b3');
  allowed = true;
  serve(20_000);
  assert.ok(outcomes.includes('b3 accepted'));
});

test('DELIVER-7: what a proxy says is never final, whatever its code', () => {
  for (const code of ['unauthenticated', 'permission_denied', 'unimplemented', 'invalid_argument'] as const) {
    const { gateway, clock, outcomes, errors, add } = setting();
    add();
    for (let i = 0; i < 20; i++) {
      gateway.last.end(code);
      clock.advance(1_000);
    }
    assert.equal(outcomes, []);
    assert.is(errors.length, 20);
    gateway.last.limits();
    gateway.last.end(code);
    clock.advance(1_000);
    gateway.last.limits();
    gateway.last.accept(gateway.last.sent[0]);
    assert.equal(outcomes, ['b1 accepted'], code);
  }
});

test('a stream that ends in order before it has sent or answered what it should is reported', () => {
  const { gateway, clock, errors, add } = setting();
  add();
  gateway.last.end();
  assert.equal(errors, ['unavailable']);
  clock.advance(100);
  gateway.last.limits();
  gateway.last.end();
  assert.equal(errors, ['unavailable', 'unavailable']);
  clock.advance(1_000);
  gateway.last.limits();
  gateway.last.accept(gateway.last.sent[0]);
  gateway.last.end();
  assert.is(errors.length, 2);
});

test('DELIVER-7: a refused key is tried again for the grace time, then all that waits is refused; a later key may work', () => {
  const { delivery, gateway, clock, outcomes, add } = setting();
  add();
  add();
  while (clock.now() < 2_900) {
    gateway.last.refuse('unauthenticated');
    assert.equal(outcomes, []);
    clock.advance(1_000);
  }
  clock.advance(1_000);
  gateway.last.refuse('unauthenticated');
  assert.equal(outcomes, ['b1 unauthenticated', 'b2 unauthenticated']);
  assert.is(delivery.stats().batches, 0);
  const streams = gateway.streams.length;
  clock.advance(60_000);
  assert.is(gateway.streams.length, streams);
  add();
  assert.is(gateway.streams.length, streams + 1);
  gateway.last.limits();
  gateway.last.accept(gateway.last.sent[0]);
  assert.is(outcomes[2], 'b3 accepted');
});

test('a batch that is never answered is sent again on another stream', () => {
  const { gateway, clock, errors, add } = setting();
  add();
  gateway.last.limits();
  clock.advance(59_999);
  assert.not(gateway.last.aborted);
  clock.advance(1);
  assert.ok(gateway.streams[0]?.aborted);
  assert.equal(errors, ['deadline_exceeded']);
  clock.advance(100);
  gateway.last.limits();
  assert.equal(shown(gateway), ['b1:2']);
});

test('a stream that never tells its limits is given up', () => {
  const { gateway, clock, errors, add } = setting();
  add();
  clock.advance(10_000);
  assert.ok(gateway.streams[0]?.aborted);
  assert.equal(errors, ['deadline_exceeded']);
  clock.advance(100);
  assert.is(gateway.streams.length, 2);
  clock.advance(10_000);
  assert.ok(gateway.streams[1]?.aborted);
});

test('what was closed before the limits were known is cut to fit, and flush waits for every part', async () => {
  const { delivery, gateway, outcomes, add } = setting();
  add(5);
  let flushed = false;
  const flush = delivery.settled().then(() => {
    flushed = true;
  });
  gateway.last.limits({ maxBatchBytes: 25 });
  assert.equal(
    gateway.last.sent.map((batch) => batch.bytes.length),
    [20, 20, 10],
  );
  assert.is(new Set(gateway.last.sent.map((batch) => batch.batchId)).size, 3);
  assert.is(delivery.stats().events, 5);
  for (const sent of gateway.last.sent) {
    await Promise.resolve();
    assert.not(flushed);
    gateway.last.accept(sent);
  }
  await flush;
  assert.is(outcomes.length, 3);
  assert.is(delivery.stats().events, 0);
});

test('settled waits for what was added before it, not for what comes later', async () => {
  const { delivery, gateway, add } = setting();
  add();
  gateway.last.limits();
  const first = delivery.settled();
  add();
  gateway.last.accept(gateway.last.sent[0]);
  await first;
  assert.is(delivery.stats().batches, 1);
});

test('close ends busy streams at once, finishes idle ones, stops all timers and hears nothing more', () => {
  const busy = setting();
  busy.add();
  busy.gateway.last.limits();
  busy.delivery.close();
  assert.ok(busy.gateway.last.aborted);
  assert.is(busy.clock.timers, 0);
  busy.gateway.last.accept(busy.gateway.last.sent[0]);
  assert.equal(busy.outcomes, []);

  const idle = setting();
  idle.add();
  idle.gateway.last.limits();
  idle.gateway.last.accept(idle.gateway.last.sent[0]);
  idle.delivery.close();
  assert.ok(idle.gateway.last.finished);
  assert.not(idle.gateway.last.aborted);
  assert.is(idle.clock.timers, 0);
});

/** With durability `committed`. */
const committing = (options: Partial<DeliveryOptions> = {}): Setting =>
  setting({ durability: 'committed', ...options });

test('DELIVER-8: an accepted batch is kept, with its bytes, until its stream tells a position at or above its own', () => {
  const { delivery, gateway, outcomes, accepted, add } = committing();
  for (let i = 0; i < 3; i++) add();
  const [stream] = [gateway.last];
  stream.limits();
  stream.accept(stream.sent[0], 10);
  stream.accept(stream.sent[1], 11);
  stream.accept(stream.sent[2], 5, 1);
  assert.equal(accepted, ['b1', 'b2', 'b3']);
  assert.equal(outcomes, []);
  assert.is(delivery.bytes, 30);
  assert.equal(delivery.stats().accepted, { batches: 3, events: 3 });
  assert.is(delivery.stats().batchesInFlight, 0);
  stream.commit(9);
  assert.equal(outcomes, []);
  stream.commit(10);
  assert.equal(outcomes, ['b1 accepted']);
  stream.commit(100, 2);
  stream.commit(11);
  assert.equal(outcomes, ['b1 accepted', 'b2 accepted']);
  stream.commit(5, 1);
  assert.equal(outcomes, ['b1 accepted', 'b2 accepted', 'b3 accepted']);
  assert.is(delivery.bytes, 0);
  assert.equal(delivery.stats().accepted, { batches: 0, events: 0 });
  assert.is(gateway.sends.length, 3);
});

test('DELIVER-8: a watermark covers nothing that is accepted after it, and nothing of another stream', () => {
  const { gateway, clock, outcomes, add } = committing();
  add();
  const old = gateway.last;
  old.limits();
  old.commit(50);
  old.accept(old.sent[0], 20);
  assert.equal(outcomes, []);
  old.drain();
  add();
  clock.advance(100);
  gateway.last.limits();
  gateway.last.accept(gateway.last.sent[0], 21);
  gateway.last.commit(50);
  assert.equal(outcomes, ['b2 accepted']);
  old.commit(20);
  assert.equal(outcomes, ['b2 accepted', 'b1 accepted']);
});

test('DELIVER-8: a batch without one valid event is settled when it is accepted', () => {
  const { gateway, outcomes, add } = committing();
  add();
  gateway.last.limits();
  gateway.last.acceptNothing(gateway.last.sent[0]);
  assert.equal(outcomes, ['b1 accepted']);
});

test('DELIVER-3, DELIVER-10: kept batches do not count as in flight, and are bounded by what the gateway tells', () => {
  const { delivery, gateway, add } = committing();
  for (let i = 0; i < 12; i++) add();
  gateway.last.limits({ maxUncommitted: 6 });
  for (let i = 0; i < 6; i++) gateway.last.accept(gateway.last.sent[i], i + 1);
  assert.is(gateway.last.sent.length, 6);
  assert.is(delivery.stats().batchesInFlight, 0);
  assert.not(delivery.hungry);
  gateway.last.commit(2);
  assert.is(gateway.last.sent.length, 8);
});

test('DELIVER-9: what a stream accepted and did not commit goes out again when it ends, before what was in flight', () => {
  const { gateway, clock, outcomes, accepted, add } = committing();
  for (let i = 0; i < 3; i++) add();
  const [first] = [gateway.last];
  first.limits();
  first.accept(first.sent[1], 7);
  first.accept(first.sent[2], 8);
  first.commit(7);
  assert.equal(outcomes, ['b2 accepted']);
  first.end('unavailable');
  clock.advance(100);
  gateway.last.limits();
  assert.equal(shown(gateway), ['b3:2', 'b1:2']);
  // The old stream has no say any more.
  first.commit(100);
  assert.equal(outcomes, ['b2 accepted']);
  gateway.last.accept(gateway.last.sent[0], 9);
  gateway.last.commit(9);
  assert.equal(outcomes, ['b2 accepted', 'b3 accepted']);
  // Told once, however often it is accepted.
  assert.equal(accepted, ['b2', 'b3']);
});

test('DELIVER-9: a batch that failed after it was accepted goes out again no earlier than asked', () => {
  const { gateway, clock, outcomes, add } = committing();
  add();
  gateway.last.limits();
  gateway.last.accept(gateway.last.sent[0], 7);
  clock.advance(1);
  gateway.last.fail(gateway.last.sent[0], { retryAfterMs: 500 });
  // The watermark of a log that has forgotten the batch.
  gateway.last.commit(10);
  assert.equal(outcomes, []);
  clock.advance(599);
  assert.is(gateway.last.sent.length, 1);
  clock.advance(1);
  assert.equal(shown(gateway), ['b1:1', 'b1:2']);
  gateway.last.accept(gateway.last.sent[1], 11);
  gateway.last.commit(11);
  assert.equal(outcomes, ['b1 accepted']);
});

test('DELIVER-9: a commit that never comes: the batch goes out again on another stream, each time after twice as long', () => {
  const { gateway, clock, errors, outcomes, add } = committing({ commitTimeoutMs: 10_000 });
  add();
  for (const wait of [10_000, 20_000, 40_000, 80_000, 160_000, 160_000]) {
    gateway.last.limits();
    const before = gateway.sends.length;
    gateway.last.accept(gateway.last.sent[0], 7);
    clock.advance(wait - 1);
    assert.not(gateway.last.aborted);
    clock.advance(1);
    assert.ok(gateway.last.aborted, `after ${wait} ms`);
    clock.advance(1_000);
    assert.is(gateway.sends.length, before);
  }
  assert.equal([...new Set(errors)], ['deadline_exceeded']);
  gateway.last.limits();
  gateway.last.accept(gateway.last.sent[0], 8);
  gateway.last.commit(8);
  assert.equal(outcomes, ['b1 accepted']);
  // It moves again: the next one waits the shorter time.
  add();
  gateway.last.accept(gateway.last.sent[1], 9);
  clock.advance(10_000);
  assert.ok(gateway.last.aborted);
});

test('DELIVER-10: a gateway that tells no commits is one that does not know the method', () => {
  const { gateway, clock, outcomes, errors, add } = committing();
  add();
  while (clock.now() < 6_000 && outcomes.length === 0) {
    gateway.last.limits({ maxUncommitted: 0 });
    assert.equal(gateway.last.sent, []);
    clock.advance(1_500);
  }
  assert.equal(outcomes, ['b1 unimplemented']);
  assert.equal([...new Set(errors)], ['unimplemented']);
});

test('DELIVER-6: suspects that are accepted one at a time are none any more, committed or not', () => {
  const { delivery, gateway, clock, outcomes, add } = committing();
  for (let i = 0; i < 4; i++) add();
  for (let round = 0; round < 20 && delivery.stats().accepted.batches < 3; round++) {
    clock.advance(2_000);
    const stream = gateway.last;
    stream.limits();
    for (let i = 0; i < stream.sent.length; i++) {
      if (stream.sent.some((batch) => batch.batchId === 'b3')) {
        stream.refuse('invalid_argument');
        break;
      }
      stream.accept(stream.sent[i], i + 1);
    }
  }
  assert.equal(outcomes, ['b3 invalid_argument']);
  // The window is open again.
  const before = gateway.last.sent.length;
  for (let i = 0; i < 4; i++) add();
  assert.is(gateway.last.sent.length, before + 4);
});

test('close aborts a stream with kept batches, stops all timers, and settled waits for commits', async () => {
  const { delivery, gateway, clock, add } = committing();
  add();
  gateway.last.limits();
  let flushed = false;
  const flush = delivery.settled().then(() => {
    flushed = true;
  });
  gateway.last.accept(gateway.last.sent[0], 1);
  await Promise.resolve();
  assert.not(flushed);
  delivery.close();
  assert.ok(gateway.last.aborted);
  assert.is(clock.timers, 0);
  await flush;
});

/** Numbers in [0, 1) that follow from the seed. */
function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state / 2 ** 32;
  };
}

/** Adds batches now and then, and lets `act` do something each time, until all are settled. */
function untilSettled(
  { delivery, gateway, clock, add }: Pick<Setting, 'delivery' | 'gateway' | 'clock' | 'add'>,
  batches: number,
  dice: () => number,
  act: (stream: FakeStream) => void,
): void {
  let added = 0;
  for (let step = 0; added < batches || delivery.stats().batches > 0; step++) {
    assert.ok(step < 400_000, `stuck with ${delivery.stats().batches} batches`);
    if (added < batches && dice() < 0.5) {
      add();
      added++;
    }
    clock.advance(Math.floor(dice() * 30));
    const stream = gateway.streams.at(-1);
    if (stream !== undefined) act(stream);
  }
}

/** Attempts of each batch count 1, 2, 3 …. @returns the highest */
function checkAttempts(gateway: FakeGateway): number {
  const attempts = new Map<string, number>();
  for (const { batchId, attempt } of gateway.sends) {
    assert.is(attempt, (attempts.get(batchId) ?? 0) + 1, batchId);
    attempts.set(batchId, attempt);
  }
  return Math.max(...attempts.values());
}

/** A gateway that accepts, fails, ends and drains at random. */
function misbehave(gateway: FakeGateway, stream: FakeStream, dice: () => number): void {
  if (!stream.aborted && dice() < 0.3) stream.limits();
  const roll = dice();
  const any = stream.sent[Math.floor(dice() * stream.sent.length)];
  if (roll < 0.6) for (const sent of stream.sent.slice(-8)) stream.accept(sent);
  else if (roll < 0.7) stream.fail(any, { retryAfterMs: dice() * 50 });
  else if (roll < 0.72) stream.fail(any, {});
  else if (roll < 0.75) stream.end('unavailable');
  else if (roll < 0.77) stream.drain();
  else if (roll < 0.8 && gateway.streams.length > 1) gateway.streams.at(-2)?.end();
}

test('random faults for thousands of batches: each is settled once, attempts of a batch count 1, 2, 3 … without a gap', () => {
  const dice = seeded(42);
  const world = setting({ random: dice, maxBatchesInFlight: 8 });
  const { delivery, gateway, outcomes } = world;
  untilSettled(world, 3_000, dice, (stream) => {
    misbehave(gateway, stream, dice);
    assert.ok(delivery.stats().batchesInFlight <= 8);
    // Old streams end sooner or later; ones that keep their batches forever are the ack timeout's business.
    if (gateway.streams.length > 2) for (const old of gateway.streams.slice(0, -2)) old.end();
  });
  assert.ok(checkAttempts(gateway) > 3);
  assert.is(outcomes.length, 3_000);
  assert.is(new Set(outcomes.map((outcome) => outcome.split(' ')[0])).size, 3_000);
  assert.is(delivery.stats().bytes, 0);
  assert.is(delivery.stats().batchesInFlight, 0);
});

/** A log that gateways write, ClickHouse that is loaded from it, and what each stream has accepted and not answered again. */
function createStorage(dice: () => number) {
  const stored = new Set<string>();
  let log: string[] = [];
  let loaded = 0;
  const accepted = new Map<FakeStream, Map<string, number>>();
  return {
    stored,
    accept(stream: FakeStream): void {
      const own = accepted.get(stream) ?? new Map<string, number>();
      for (const sent of stream.sent.slice(-8)) {
        if (own.has(`${sent.batchId}:${sent.attempt}`)) continue;
        log.push(sent.batchId);
        own.set(`${sent.batchId}:${sent.attempt}`, log.length);
        stream.accept(sent, log.length);
      }
    },
    /** A worker loads some more, and its watermark goes to every stream that has accepted something. */
    load(): void {
      loaded = Math.max(loaded, loaded + Math.floor(dice() * (log.length - loaded + 1)));
      for (const id of log.slice(0, loaded)) stored.add(id);
      for (const each of accepted.keys()) each.commit(loaded);
    },
    /** The log forgets what was not loaded yet; every gateway notices, and says so of all that is not committed. */
    loseEnd(): void {
      log = log.slice(0, loaded + Math.floor(dice() * (log.length - loaded)));
      for (const [each, ids] of accepted) {
        for (const id of ids.keys())
          each.fail({ batchId: id.split(':')[0] ?? '', bytes: new Uint8Array(), attempt: 0 }, { retryAfterMs: 5 });
      }
    },
    open(stream: FakeStream): void {
      if (!accepted.has(stream)) accepted.set(stream, new Map());
    },
    end(stream: FakeStream): void {
      if (accepted.delete(stream)) stream.end();
    },
  };
}

test('random faults, commits and logs that lose their end: settled means that ClickHouse has it, each once', () => {
  const dice = seeded(4_711);
  const storage = createStorage(dice);
  const settled: string[] = [];
  const world = committing({
    random: dice,
    maxBatchesInFlight: 8,
    onSettled: ({ batchId }, { kind }) => {
      if (kind === 'delivered') assert.ok(storage.stored.has(batchId), `${batchId} is settled and not in ClickHouse`);
      settled.push(batchId);
    },
  });
  const { delivery, gateway } = world;
  untilSettled(world, 2_000, dice, (stream) => {
    if (!stream.aborted && dice() < 0.3) stream.limits({ maxUncommitted: 20 });
    storage.open(stream);
    const roll = dice();
    if (roll < 0.5) storage.accept(stream);
    else if (roll < 0.8) storage.load();
    else if (roll < 0.82) storage.loseEnd();
    else if (roll < 0.84) stream.end('unavailable');
    else if (roll < 0.86) stream.drain();
    for (const old of gateway.streams.slice(0, -2)) storage.end(old);
  });
  assert.is(settled.length, 2_000);
  assert.is(new Set(settled).size, 2_000);
  assert.is(delivery.stats().bytes, 0);
  checkAttempts(gateway);
});

test.run();

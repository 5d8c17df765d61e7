import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { quantiles } from '../lib/testing/latency.js';
import { createGenerator, type Generator } from './generator.js';
import { createClosedLoop, createOpenLoop } from './pace.js';
import { prepare } from './payload.js';
import type { BatchSlot, Sender } from './sender.js';

const message = prepare({ target: 'gateway', events: 3, seed: 1, tenant: 't' });

/** A generator on a clock of the test's own, and a sender that keeps what it was given. */
function rig(inFlight: number) {
  const state = { now: 0, room: true };
  const sent: { slot: BatchSlot; number: number; attempt: number }[] = [];
  const generator: Generator = createGenerator({
    messages: [message],
    inFlight,
    run: 1,
    now: () => state.now,
    wallClock: () => 1_790_000_000_000,
  });
  const sender: Sender = {
    ready: () => state.room,
    send: (slot) => {
      sent.push({ slot, number: slot.number, attempt: slot.message.bytes[slot.message.attemptOffset] ?? 0 });
      return true;
    },
    close: async () => undefined,
  };
  generator.attach(sender);
  const accept = (of: { slot: BatchSlot; number: number } | undefined) => {
    if (of === undefined) throw new Error('nothing was sent');
    generator.events.outcome(of.slot.index, of.number, { kind: 'accepted', accepted: 3, rejected: 0 });
  };
  return { state, sent, generator, accept };
}

test('latency counts from the intended time, so a stall is felt by every batch that it delays', () => {
  const { state, sent, generator, accept } = rig(100);
  generator.mark();
  generator.pace(createOpenLoop(100, 0)); // one batch each 10 ms
  // No tick for 100 ms, then an ack at once for everything: 11 batches waited 100, 90 … 0 ms.
  state.now = 100;
  generator.tick();
  assert.is(sent.length, 11);
  for (const one of sent) accept(one);
  const { ack, lag, counts } = generator.window();
  assert.is(counts.acked, 33);
  assert.ok(Math.abs(quantiles(ack).p50 - 50) < 1);
  assert.ok(Math.abs(ack.maxValue / 1000 - 100) < 1);
  assert.ok(Math.abs(lag.maxValue / 1000 - 100) < 1);
});

test('back-pressure does not move the schedule either', () => {
  const { state, sent, generator, accept } = rig(100);
  generator.mark();
  generator.pace(createOpenLoop(100, 0));
  state.room = false;
  state.now = 50;
  generator.tick();
  assert.is(sent.length, 0);
  state.room = true;
  generator.tick();
  assert.is(sent.length, 6);
  accept(sent[0]);
  assert.ok(Math.abs(generator.window().ack.maxValue / 1000 - 50) < 1);
});

test('a closed loop keeps exactly the allowed number in flight', () => {
  const { sent, generator, accept } = rig(4);
  generator.pace(createClosedLoop());
  generator.tick();
  generator.tick();
  assert.is(sent.length, 4);
  assert.is(generator.inFlight, 4);
  accept(sent[0]);
  generator.tick();
  assert.is(sent.length, 5);
  assert.is(new Set(sent.map((one) => one.number)).size, 5);
});

test('a failed batch is sent again under its name with the next attempt, not before it may', () => {
  const { state, sent, generator, accept } = rig(1);
  generator.mark();
  generator.pace(createClosedLoop());
  generator.tick();
  generator.events.outcome(0, 0, { kind: 'retry', afterMs: 100, reason: 'busy' });
  state.now = 99;
  generator.tick();
  assert.is(sent.length, 1);
  state.now = 100;
  generator.tick();
  assert.is(sent.length, 2);
  assert.equal([sent[1]?.number, sent[1]?.attempt], [0, 2]);
  generator.events.outcome(0, 0, { kind: 'retry', afterMs: 0, reason: 'busy' });
  generator.tick();
  assert.is(sent[2]?.attempt, 3);
  state.now = 150;
  accept(sent[2]);
  const { counts, ack } = generator.window();
  assert.is(counts.resends, 2);
  assert.is(counts.acked, 3);
  assert.ok(Math.abs(ack.maxValue / 1000 - 150) < 1, 'latency spans all attempts');
});

test('acks after the end of the window give latency but no throughput', () => {
  const { state, sent, generator, accept } = rig(10);
  generator.pace(createOpenLoop(100, 0));
  generator.tick(); // batch 0: before the window
  state.now = 10;
  generator.mark();
  generator.tick(); // batch 1: in it
  accept(sent[0]);
  state.now = 15;
  generator.close();
  generator.pace(undefined);
  state.now = 40;
  accept(sent[1]);
  const { counts, ack, ms } = generator.window();
  assert.is(ms, 5);
  assert.is(counts.acked, 3);
  assert.is(ack.totalCount, 1);
  assert.ok(Math.abs(ack.maxValue / 1000 - 30) < 1);
  assert.is(generator.total.acked, 6);
  assert.is(generator.inFlight, 0);
});

test('a refused batch is counted and not sent again', () => {
  const { sent, generator } = rig(1);
  generator.pace(createClosedLoop());
  generator.tick();
  generator.events.outcome(0, 0, { kind: 'refused', reason: 'malformed' });
  assert.is(generator.total.refused, 1);
  assert.is(generator.inFlight, 0);
  generator.tick();
  assert.is(sent[1]?.number, 1);
});

test('an answer for a batch that is not in flight ends the run', () => {
  const { generator } = rig(1);
  generator.events.outcome(0, 5, { kind: 'accepted', accepted: 3, rejected: 0 });
  assert.ok(generator.error);
});

test.run();

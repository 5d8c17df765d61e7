import { fromBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { EventType } from '#gen/sluice/event/v1/event_pb.js';
import { PublishRequestSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { quantiles, unpackHistograms } from '../../lib/testing/latency.js';
import { type Client, createCrowd } from './crowd.js';
import { createDueQueue } from './due.js';
import { typesInTurn } from './mix.js';
import type { Group, Plan } from './plan.js';

const group = (more: Partial<Group> = {}): Group => ({
  customer: 0,
  clients: 20,
  calls: 'stream',
  batch: 5,
  mix: undefined,
  rates: [2],
  ...more,
});

/** A crowd on a clock that jumps from call to call, and a caller that answers `answer` says, `after` ms later. */
function simulate(
  plan: Plan,
  answer: (client: Client, n: number) => 'accepted' | 'retry' | 'refused' | 'closed',
  after = 10,
) {
  let now = 0;
  let n = 0;
  const sent: { at: number; client: number; batchId: string; attempt: number; ids: string[] }[] = [];
  const answers: { at: number; give: () => void }[] = [];
  const crowd = createCrowd({ plan, seed: 1, run: 7, now: () => now, wallClock: () => 1_700_000_000_000 + now });
  let down = false;
  crowd.attach({
    send(client) {
      const kind = answer(client, n++);
      if (kind === 'closed') {
        down = true;
        return false;
      }
      const { number } = client;
      const request = fromBinary(PublishRequestSchema, client.message.bytes.subarray(5));
      sent.push({
        at: now,
        client: client.index,
        batchId: request.batchId,
        attempt: request.attempt,
        ids: request.batch?.events.map((event) => event.eventId) ?? [],
      });
      answers.push({
        at: now + after,
        give: () =>
          crowd.events.outcome(
            client.index,
            number,
            kind === 'accepted'
              ? { kind, accepted: client.group.batch, rejected: 0 }
              : kind === 'retry'
                ? { kind, afterMs: 50, reason: 'busy' }
                : { kind, reason: 'no' },
          ),
      });
      return true;
    },
  });
  for (let steps = 0; steps < 1_000_000 && !crowd.done && crowd.error === undefined; steps++) {
    const wait = crowd.tick();
    now += Math.max(0.25, Math.min(wait, 1));
    while ((answers[0]?.at ?? Number.POSITIVE_INFINITY) <= now) answers.shift()!.give();
    if (down) {
      down = false;
      crowd.events.writable();
    }
  }
  return { crowd, sent, result: crowd.tally.result() };
}

const oneGroup = (more: Partial<Group> = {}): Plan => ({
  phases: [
    { name: 'warm', seconds: 1, warmUp: true },
    { name: 'all', seconds: 10 },
  ],
  customers: ['x'],
  groups: [group({ rates: [2, 2], ...more })],
});

test('every call of the plan is made once, with its own batch and events, and is counted', () => {
  const { sent, result, crowd } = simulate(oneGroup(), () => 'accepted');
  assert.ok(crowd.done);
  assert.ok(Math.abs(sent.length - 440) < 30, `${sent.length} calls`);
  assert.is(new Set(sent.map((call) => call.batchId)).size, sent.length);
  assert.is(new Set(sent.flatMap((call) => call.ids)).size, sent.length * 5);
  assert.is(result.unresolved, 0);
  assert.equal(result.acked[0]?.batches, { 5: sent.length });
  const ids = sent.flatMap((call) => call.ids);
  const sum = ids.reduce((total, id) => (total + Number.parseInt(id.slice(0, 8), 16)) % 2 ** 32, 0);
  assert.is(result.acked[0]?.idSum, sum, 'the sum that ClickHouse is compared with');
  assert.is(result.parts[0]![0]!.ok + result.parts[1]![0]!.ok, sent.length);
});

test('a client has one call in flight at most, and late calls are measured from when they should have left', () => {
  // Answers take 2 s, and a client calls every 0.5 s.
  const busy = new Map<number, number>();
  const { sent, result } = simulate(
    oneGroup({ clients: 3 }),
    (client) => {
      busy.set(client.index, (busy.get(client.index) ?? 0) + 1);
      return 'accepted';
    },
    2_000,
  );
  for (const index of busy.keys()) {
    const times = sent.filter((call) => call.client === index).map((call) => call.at);
    assert.ok(times.slice(1).every((at, i) => at - times[i]! >= 2_000));
  }
  // The last of about 22 calls leaves after 42 s, and was due at 11.
  const { p99 } = quantiles(unpackHistograms([result.parts[1]![0]!.ack]));
  assert.ok(p99 > 25_000, `${p99}`);
});

test('a failed call comes again as the same batch with a higher attempt, counts as a failure, and is measured whole', () => {
  const { sent, result } = simulate(oneGroup(), (_, n) => (n % 10 === 3 ? 'retry' : 'accepted'));
  const byId = new Map<string, typeof sent>();
  for (const call of sent) byId.set(call.batchId, [...(byId.get(call.batchId) ?? []), call]);
  const again = [...byId.values()].filter((calls) => calls.length > 1);
  assert.ok(again.length > 30);
  for (const calls of again) {
    assert.equal(
      calls.slice(0, 2).map((call) => call.attempt),
      [1, 2],
    );
    assert.equal(calls[0]!.ids, calls[1]!.ids);
  }
  const failed = result.parts.reduce((sum, [part]) => sum + part!.failed, 0);
  assert.is(failed, sent.length - byId.size);
  assert.is(result.acked[0]!.batches[5], byId.size);
  assert.is(result.unresolved, 0);
  assert.is(result.lastReason, 'busy');
});

test('a refused batch is a failure and is not waited for; the client goes on', () => {
  const { sent, result, crowd } = simulate(oneGroup(), (_, n) => (n === 5 ? 'refused' : 'accepted'));
  assert.ok(crowd.done);
  assert.is(result.acked[0]!.batches[5], sent.length - 1);
  assert.is(result.unresolved, 0);
});

test('without a connection a call waits for one, and is not lost', () => {
  const { sent, result } = simulate(oneGroup(), (_, n) => (n % 7 === 2 ? 'closed' : 'accepted'));
  assert.is(result.acked[0]!.batches[5], sent.length);
  assert.is(new Set(sent.map((call) => call.batchId)).size, sent.length);
  assert.is(result.unresolved, 0);
});

test('an answer without a waiting send, or of an invalid event, ends the run', () => {
  const crowd = createCrowd({ plan: oneGroup(), seed: 1, run: 1, now: () => 0 });
  crowd.events.outcome(0, 99, { kind: 'accepted', accepted: 5, rejected: 0 });
  assert.match(crowd.error?.message ?? '', /not in flight/);
});

test('customers are counted apart, and a slot tells what ended in it', () => {
  const plan: Plan = {
    phases: [{ name: 'all', seconds: 10 }],
    customers: ['x', 'y'],
    groups: [group(), group({ customer: 1, clients: 5, batch: 20 })],
  };
  const { result, crowd } = simulate(plan, () => 'accepted');
  const [x, y] = result.acked;
  assert.is(x!.events, x!.batches[5]! * 5);
  assert.is(y!.events, y!.batches[20]! * 20);
  const slot = crowd.tally.slot(10_000);
  assert.is(slot.ok, x!.batches[5]! + y!.batches[20]!);
  assert.is(slot.acked, x!.events + y!.events);
  assert.is(slot.waiting, 0);
  assert.is(crowd.tally.slot(10_250).ok, 0);
});

test('a mix is kept as exactly as whole events can', () => {
  const next = typesInTurn({ install: 8, click: 37, impression: 48, conversion: 7 });
  const counts = new Map<EventType, number>();
  for (let i = 0; i < 1_000; i++) {
    const type = next();
    counts.set(type, (counts.get(type) ?? 0) + 1);
  }
  assert.equal(
    [EventType.INSTALL, EventType.CLICK, EventType.IMPRESSION, EventType.CONVERSION].map((type) => counts.get(type)),
    [80, 370, 480, 70],
  );
});

test('a mix reaches the batches of its clients', () => {
  const mix = { install: 10, click: 40, impression: 45, conversion: 5 };
  const crowd = createCrowd({ plan: oneGroup({ clients: 40, mix }), seed: 1, run: 1, now: () => 0 });
  const types = crowd.clients.flatMap(
    (client) =>
      fromBinary(PublishRequestSchema, client.message.bytes.subarray(5)).batch?.events.map((e) => e.type) ?? [],
  );
  const share = (type: EventType) => types.filter((one) => one === type).length / types.length;
  assert.is(types.length, 200);
  assert.ok(Math.abs(share(EventType.CLICK) - 0.4) < 0.01 && Math.abs(share(EventType.CONVERSION) - 0.05) < 0.01);
});

test('clients come out of the queue in the order of their time', () => {
  const queue = createDueQueue();
  const times = Array.from({ length: 500 }, (_, i) => (i * 7919) % 1_009);
  for (const [client, at] of times.entries()) queue.push(at, client);
  const out: number[] = [];
  while (queue.size > 0) {
    const first = queue.first;
    assert.is(times[queue.pop()], first);
    out.push(first);
  }
  assert.equal(
    out,
    [...times].sort((a, b) => a - b),
  );
  assert.is(queue.first, Number.POSITIVE_INFINITY);
  assert.throws(() => queue.pop(), 'none is due');
});

test.run();

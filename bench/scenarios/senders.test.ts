import { fromBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { PublishRequestSchema } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { quantiles, unpackHistograms } from '../../lib/testing/latency.js';
import type { SendOutcome } from '../sender.js';
import { type Group, type Plan, phaseAt } from './plan.js';
import { createSenders } from './senders.js';

const group = (more: Partial<Group> = {}): Group => ({
  customer: 0,
  clients: 20,
  calls: 'stream',
  batch: 5,
  rates: [20, 40],
  ...more,
});
const planOf = (...groups: Group[]): Plan => ({
  phases: [
    { name: 'warm', seconds: 1, warmUp: true },
    { name: 'all', seconds: 10 },
  ],
  customers: ['x', 'y'],
  groups,
});
const accepted: SendOutcome = { kind: 'accepted', accepted: 5, rejected: 0 };

interface Call {
  readonly at: number;
  readonly group: Group;
  readonly batchId: string;
  readonly attempt: number;
  readonly ids: readonly string[];
}

/** Runs a plan on a clock that jumps; each call is answered `afterMs` later. @param answer undefined: there is no room for the call */
function run(plan: Plan, answer: (n: number) => SendOutcome | undefined, afterMs = 10, untilMs = 60_000) {
  let now = 0;
  const calls: Call[] = [];
  const answers: { at: number; give: () => void }[] = [];
  const senders = createSenders({
    plan,
    seed: 1,
    run: 7,
    now: () => now,
    wake: () => undefined,
    open: (of, events) => ({
      ready: () => true,
      send({ index, number, message }) {
        const outcome = answer(calls.length);
        const { batchId, attempt, batch } = fromBinary(PublishRequestSchema, message.bytes.subarray(5));
        calls.push({ at: now, group: of, batchId, attempt, ids: batch?.events.map(({ eventId }) => eventId) ?? [] });
        if (outcome === undefined) return false;
        answers.push({ at: now + afterMs, give: () => events.outcome(index, number, outcome) });
        return true;
      },
      close: async () => undefined,
    }),
  });
  for (; now < 11_100 || (!senders.idle && now < untilMs); now++) {
    senders.tick();
    while ((answers[0]?.at ?? Number.POSITIVE_INFINITY) <= now) answers.shift()!.give();
  }
  return { senders, calls, result: senders.tally.result() };
}

test('every call of the plan is made once, with its own batch and events, and counted by phase and customer', () => {
  const plan = planOf(group(), group({ customer: 1, clients: 2, rates: [0, 10] }));
  const { calls, result, senders } = run(plan, () => accepted);
  assert.is(senders.error, undefined);
  assert.ok(senders.idle);
  assert.is(new Set(calls.map((call) => call.batchId)).size, calls.length);
  const ids = calls.flatMap((call) => call.ids);
  assert.is(new Set(ids).size, calls.length * 5);
  for (const [phase, counts] of [
    [0, [20, 0]],
    [1, [400, 100]],
  ] as const) {
    for (const [customer, count] of counts.entries()) {
      const { due, ok, failed } = result.parts[phase]![customer]!;
      assert.ok(Math.abs(due - count) <= 1 && ok === due && failed === 0, `${phase} ${customer}: ${due} of ${count}`);
    }
  }
  const sum = ids.reduce((total, id) => (total + Number.parseInt(id.slice(0, 8), 16)) % 2 ** 32, 0);
  assert.is(
    (result.acked[0]!.idSum + result.acked[1]!.idSum) % 2 ** 32,
    sum,
    'the sum that ClickHouse is compared with',
  );
  assert.is(result.unresolved, 0);
});

test('a group has at most as many calls in flight as clients, and late calls are measured from when they should have left', () => {
  // Three clients with answers that take 2 s make 1.5 calls a second, of 6 that are due.
  const { result, calls } = run(planOf(group({ clients: 3, rates: [0, 6] })), () => accepted, 2_000);
  assert.ok(calls.every((call, i) => i < 3 || call.at - calls[i - 3]!.at >= 2_000));
  assert.ok(quantiles(unpackHistograms([result.parts[1]![0]!.ack])).p99 > 25_000);
});

test('a failed call comes again as the same batch with a higher attempt, and counts as a failure', () => {
  const { calls, result } = run(planOf(group()), (n) =>
    n % 10 === 3 ? { kind: 'retry', afterMs: 50, reason: 'busy' } : accepted,
  );
  const batches = new Map(calls.map((call) => [call.batchId, calls.filter(({ batchId }) => batchId === call.batchId)]));
  const again = [...batches.values()].filter((of) => of.length > 1);
  assert.ok(again.length > 30);
  for (const [first, second] of again) {
    assert.equal([first!.attempt, second!.attempt], [1, 2]);
    assert.equal(first!.ids, second!.ids);
  }
  assert.is(
    result.parts.reduce((sum, [part]) => sum + part!.failed, 0),
    calls.length - batches.size,
  );
  assert.is(result.acked[0]!.batches[5], batches.size);
  assert.is(result.lastReason, 'busy');
});

test('a refused batch is a failure that is not waited for; without room a call waits, and is not lost', () => {
  const refused = run(planOf(group()), (n) => (n === 5 ? { kind: 'refused', reason: 'no' } : accepted));
  assert.is(refused.result.acked[0]!.batches[5], refused.calls.length - 1);
  assert.is(refused.result.unresolved, 0);
  const full = run(planOf(group()), (n) => (n % 7 === 2 ? undefined : accepted));
  const due = full.result.parts.reduce((sum, [part]) => sum + part!.due, 0);
  assert.ok(Math.abs(due - 420) <= 1 && full.result.acked[0]!.batches[5] === due, `${due} calls`);
});

test('calls that could not leave count as waiting, and at the end as calls without an answer', () => {
  const { senders } = run(planOf(group()), () => undefined, 10, 11_100);
  const waiting = senders.tally.slot(11_100, senders.overdue).waiting;
  assert.ok(Math.abs(waiting - 420) <= 1, `${waiting}`);
  senders.giveUp();
  assert.is(senders.tally.result().unresolved, waiting);
  assert.is(senders.overdue, 0);
});

test('an invalid event ends the run; a moment lies in the phase that it falls in', () => {
  assert.match(run(planOf(group()), () => ({ ...accepted, rejected: 1 })).senders.error?.message ?? '', /invalid/);
  const { phases } = planOf();
  assert.equal(
    [0, 999, 1_000, 99_999].map((at) => phaseAt(phases, at)),
    [0, 0, 1, 1],
  );
});

test.run();

/**
 * Virtual clients against a real gateway: every way of calling, keys, connections that are asked to go.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { addTenant } from '../../lib/tenants.js';
import { type Stack, withStack } from '../stack.js';
import { openCalls } from './calls.js';
import { type Crowd, createCrowd } from './crowd.js';
import type { CallKind, Plan } from './plan.js';

const plan = (calls: readonly CallKind[], seconds: number): Plan => ({
  phases: [{ name: 'all', seconds }],
  customers: calls.map((kind) => `by-${kind}`),
  groups: calls.map((kind, customer) => ({
    customer,
    clients: 20,
    calls: kind,
    batch: 4,
    mix: undefined,
    rates: [5],
  })),
});

async function keysOf(stack: Stack, of: Plan): Promise<string[]> {
  const keys: string[] = [];
  for (const tenant of of.customers) keys.push((await addTenant(stack.nc, { tenant })).key);
  return keys;
}

/** Runs the crowd in this process until all calls have their answer. */
async function drive(of: Plan, url: string, keys: readonly string[], until: (crowd: Crowd) => boolean): Promise<Crowd> {
  const started = performance.now();
  const crowd = createCrowd({ plan: of, seed: 1, run: process.pid, now: () => performance.now() - started });
  const calls = openCalls({ url, keys, connections: 3 }, crowd.clients, crowd.events);
  crowd.attach(calls);
  const deadline = performance.now() + 60_000;
  try {
    while (!until(crowd) && crowd.error === undefined) {
      crowd.tick();
      await new Promise((resolve) => setTimeout(resolve, 2));
      if (performance.now() > deadline) throw new Error(`not done: ${JSON.stringify(crowd.tally.result())}`);
    }
    return crowd;
  } finally {
    calls.close();
  }
}

const kinds: readonly CallKind[] = ['stream', 'connect', 'grpc'];
const gatewayOnly = { gateways: 1, workers: 0, shards: 2, telemetry: false, profile: undefined } as const;

test('each way of calling gets every batch acknowledged, under the key of its customer', async () => {
  await withStack({ ...gatewayOnly, flags: {} }, async (stack) => {
    const of = plan(kinds, 2);
    const crowd = await drive(of, stack.gatewayUrl, await keysOf(stack, of), (one) => one.done);
    assert.is(crowd.error, undefined);
    const { parts, acked, unresolved } = crowd.tally.result();
    assert.is(unresolved, 0);
    for (const [i, kind] of kinds.entries()) {
      const part = parts[0]![i]!;
      assert.is(part.failed, 0, kind);
      assert.ok(part.ok > 150 && part.ok === part.due, `${kind}: ${part.ok} of ${part.due}`);
      assert.equal(acked[i]!.batches, { 4: part.ok });
    }
  });
});

test('connections that the gateway asks to go are left for new ones, and no call fails', async () => {
  await withStack({ ...gatewayOnly, flags: { gateway: ['--max-connection-age', '1s'] } }, async (stack) => {
    const of = plan(kinds, 4);
    const crowd = await drive(of, stack.gatewayUrl, await keysOf(stack, of), (one) => one.done);
    assert.is(crowd.error, undefined);
    const { parts, unresolved, lastReason } = crowd.tally.result();
    assert.is(unresolved, 0);
    for (const [i, kind] of kinds.entries()) {
      assert.is(parts[0]![i]!.failed, 0, `${kind}: ${lastReason}`);
      assert.ok(parts[0]![i]!.ok > 350, kind);
    }
  });
});

test('a key that is not valid makes every call a failure, and says why', async () => {
  await withStack({ ...gatewayOnly, flags: {} }, async (stack) => {
    const of = plan(['connect', 'grpc', 'stream'], 1);
    const wrong = of.customers.map(() => 'slk_000000000000_wrong');
    const crowd = await drive(of, stack.gatewayUrl, wrong, (one) => {
      const { parts } = one.tally.result();
      return parts[0]!.every((part) => part.failed >= 20);
    });
    const { parts, acked, lastReason } = crowd.tally.result();
    assert.ok(parts[0]!.every((part) => part.ok === 0));
    assert.ok(acked.every((one) => one.events === 0));
    assert.match(lastReason ?? '', /key|16|401/);
  });
});

test.run();

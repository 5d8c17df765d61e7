import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createRandom } from '../../lib/testing/batches.js';
import { arrivals, type Group, type Plan, phaseAt, plannedRate, planSeconds } from './plan.js';

const group = (rates: number[], more: Partial<Group> = {}): Group => ({
  customer: 0,
  clients: 10,
  calls: 'stream',
  batch: 5,
  mix: undefined,
  rates,
  ...more,
});
const plan = (...groups: Group[]): Plan => ({
  phases: [
    { name: 'a', seconds: 10 },
    { name: 'b', seconds: 20 },
    { name: 'c', seconds: 10 },
  ],
  customers: ['x'],
  groups,
});
const all = (of: Plan, which: Group, index: number, seed = index): number[] => {
  const next = arrivals(of, which, index, createRandom(seed));
  const times: number[] = [];
  for (let at = next(); Number.isFinite(at); at = next()) times.push(at);
  return times;
};

test('each phase gets the calls that its rate asks for, clients together', () => {
  const g = group([2, 6, 1], { clients: 200 });
  const of = plan(g);
  const counts = [0, 0, 0];
  for (let i = 0; i < 200; i++) for (const at of all(of, g, i)) counts[phaseAt(of.phases, at)]!++;
  for (const [i, want] of [2 * 10 * 200, 6 * 20 * 200, 1 * 10 * 200].entries()) {
    assert.ok(Math.abs(counts[i]! - want) < want * 0.03, `phase ${i}: ${counts[i]} calls for ${want}`);
  }
});

test('intended times ascend, think times vary by half, and clients do not call in step', () => {
  const g = group([5, 5, 5]);
  const of = plan(g);
  const times = all(of, g, 3);
  const gaps = times.slice(1).map((at, i) => at - times[i]!);
  assert.ok(gaps.every((gap) => gap >= 100 - 1e-6 && gap <= 300 + 1e-6));
  assert.ok(Math.max(...gaps) - Math.min(...gaps) > 100);
  const random = createRandom(1);
  const firsts = Array.from({ length: 50 }, (_, i) => arrivals(of, g, i, random)());
  assert.ok(Math.max(...firsts) > 150 && Math.min(...firsts) < 50);
});

test('a phase without calls passes in silence, and no call comes after the last phase', () => {
  const g = group([5, 0, 5]);
  const times = all(plan(g), g, 0);
  assert.ok(times.some((at) => at < 10_000) && times.some((at) => at >= 30_000));
  assert.not(times.some((at) => at >= 10_000 && at < 30_000));
  assert.ok(times.every((at) => at < 40_000));
});

test('clients join when their phase has room for them', () => {
  const g = group([1, 1, 1], { active: [1, 5, 10] });
  const of = plan(g);
  assert.ok(all(of, g, 0)[0]! < 10_000);
  assert.ok(all(of, g, 4)[0]! >= 10_000 && all(of, g, 4)[0]! < 30_000);
  assert.ok(all(of, g, 9)[0]! >= 30_000);
  assert.equal(
    of.phases.map((_, i) => plannedRate(of, i)),
    [5, 25, 50],
  );
});

test('a moment lies in the phase that it falls in', () => {
  const { phases } = plan();
  assert.equal(
    [0, 9_999, 10_000, 29_999, 30_000, 99_999].map((at) => phaseAt(phases, at)),
    [0, 0, 1, 1, 2, 2],
  );
  assert.is(planSeconds(plan()), 40);
});

test.run();

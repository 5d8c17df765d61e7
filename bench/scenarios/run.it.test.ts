/**
 * A small scenario through the real stack, to the end: what was acknowledged is compared with what ClickHouse has.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { judge, linesOf } from './judge.js';
import { runScenario } from './run.js';
import { customers } from './shapes.js';
import { judgeStored } from './verdicts.js';

test('a scenario runs through the whole stack, and its verdicts rest on what is stored', async () => {
  const scenario = customers({
    calls: 'mixed',
    customers: 3,
    clients: 4,
    rate: 600,
    batch: 5,
    seconds: 3,
    greedy: 3,
    warmUp: 1,
  });
  const progress: string[] = [];
  const facts = await runScenario(
    scenario,
    { connections: 3, workers: 1, shards: 2, seed: 1, telemetry: false, profile: undefined, flags: {} },
    (line) => progress.push(line),
  );
  const summary = judge(scenario, facts, 10_000);
  const verdict = (name: string) => summary.verdicts.find((one) => one.name === name);
  assert.is(verdict('nothing lost')?.passed, true, verdict('nothing lost')?.found ?? '');
  assert.is(verdict('errors')?.passed, true, verdict('errors')?.found ?? '');

  const events = facts.tally.acked.reduce((sum, one) => sum + one.events, 0);
  assert.ok(events > 3_000, `${events} events`);
  assert.is(
    facts.stored.reduce((sum, row) => sum + row.rows * row.batches, 0),
    events,
  );
  const [first, second] = facts.tally.acked;
  assert.ok(first!.events > 1.5 * second!.events, 'the first customer is the greedy one');
  assert.ok(facts.slots.length > 20 && facts.lag.length > 10 && facts.lag.every((sample) => sample.value >= 0));
  for (const role of ['gateway', 'nats', 'worker', 'clickhouse', 'load']) {
    assert.ok((facts.cpu[role] ?? 0) > 0 && (facts.rss[role]?.length ?? 0) > 10, role);
  }
  assert.ok(progress.some((line) => line.includes('events/s acked')));
  assert.match(linesOf(scenario, facts, summary).join('\n'), /passed {2}nothing lost/);

  // The comparison would have seen one event less, and another one in its place.
  const [row] = facts.stored;
  const { customers: names } = scenario.plan;
  const short = facts.stored.map((one) => (one === row ? { ...one, batches: one.batches - 1 } : one));
  const other = facts.stored.map((one) => (one === row ? { ...one, idSum: (one.idSum + 1) % 2 ** 32 } : one));
  for (const wrong of [short, other]) assert.not(judgeStored(names, facts.tally.acked, wrong, 0).passed);
});

test.run();

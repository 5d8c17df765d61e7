import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type CallGate, createCallGate, type GatedCall } from './call-gate.js';

interface TestCall extends GatedCall {
  received: number | undefined;
}

/** A gate with a clock by hand: as a rule for four calls, three of a tenant. The first letter of a call is its tenant. */
function scene(max = 4, maxOfTenant = 3) {
  const timers: { callback: () => void; at: number }[] = [];
  const entered: string[] = [];
  const calls = new Map<string, TestCall>();
  let time = 0;
  const gate: CallGate = createCallGate({
    max,
    maxOfTenant,
    holdMs: 2_000,
    maxSkippedBytes: 1_000,
    now: () => time,
    after: (ms, callback) => timers.push({ callback, at: time + ms }),
  });
  const of = (name: string): TestCall => calls.get(name) as TestCall;
  return {
    gate,
    entered,
    timers,
    of,
    call(...names: string[]): void {
      for (const name of names) {
        const call = { tenant: name[0] as string, received: 0, enter: () => void entered.push(name) };
        calls.set(name, call);
        gate.pass(call);
      }
    },
    leave: (name: string) => gate.leave(of(name)),
    advance(ms: number): void {
      for (let rest = ms; rest > 0; rest -= 50) {
        time += Math.min(rest, 50);
        for (const timer of timers.splice(0)) {
          if (timer.at <= time) timer.callback();
          else timers.push(timer);
        }
      }
    },
  };
}

test('GATE-1: no more than the bounds are inside, in all and of a tenant', () => {
  const { gate, entered, call, leave } = scene();
  call('a1', 'a2', 'a3', 'a4', 'b1', 'b2');
  assert.equal(entered, ['a1', 'a2', 'a3', 'b1']);
  leave('a2');
  leave('a2');
  assert.equal(entered.slice(4), ['a4'], 'leaving twice counts once');
  for (const name of ['a1', 'a3', 'a4', 'b1', 'b2']) leave(name);
  assert.equal(entered.slice(5), ['b2']);
  assert.equal([gate.inside, gate.waiting], [0, 0]);
});

test('GATE-1: a tenant alone has more seats, and leaves enough for the next one', () => {
  const { gate, entered, call, leave } = scene(6, 2);
  call('a1', 'a2', 'a3', 'a4', 'a5', 'a6');
  assert.equal(entered, ['a1', 'a2', 'a3', 'a4']);
  call('b1', 'b2', 'b3', 'c1');
  assert.equal(entered.slice(4), ['b1', 'b2']);
  leave('a1');
  leave('a2');
  assert.equal(entered.slice(6), ['c1'], 'seats beyond its right are for those who have fewer');
  for (const name of ['b1', 'b2', 'b3', 'c1']) leave(name);
  assert.equal(entered.slice(7), ['b3', 'a5', 'a6']);
  for (const name of ['a3', 'a4', 'a5', 'a6']) leave(name);
  assert.equal([gate.inside, gate.waiting], [0, 0]);
});

test('GATE-2: tenants are served in turn, whatever the length of their lines', () => {
  const { entered, call, leave } = scene();
  call('a1', 'a2', 'a3', 'b1', 'a4', 'a5', 'a6', 'b2', 'c1');
  for (const name of ['a1', 'a2', 'a3', 'b1', 'a4']) leave(name);
  assert.equal(entered.slice(4).sort(), ['a4', 'a5', 'a6', 'b2', 'c1']);
  const place = (name: string): number => entered.indexOf(name);
  assert.ok(place('b2') < place('a5') && place('c1') < place('a6'));
});

test('GATE-2: a call that goes away while it waits never enters', () => {
  const { gate, entered, call, leave } = scene();
  call('a1', 'a2', 'a3', 'a4', 'a5');
  leave('a4');
  leave('a1');
  assert.equal(entered, ['a1', 'a2', 'a3', 'a5']);
  assert.is(gate.waiting, 0);
});

test('GATE-3: a body that drips gives its seat up at once, one that flows keeps it, both for two seconds at most', () => {
  const { gate, entered, call, advance, of, leave } = scene();
  call('a1', 'a2', 'a3', 'a4');
  of('a1').received = 10;
  of('a2').received = 300;
  of('a3').received = undefined;
  advance(250);
  assert.equal(entered.slice(3), ['a4']);
  call('a5');
  of('a4').received = 100_000;
  for (let tenths = 0; tenths < 17; tenths++) {
    advance(100);
    of('a2').received = (of('a2').received as number) + 200;
    of('a4').received = (of('a4').received as number) + 200;
  }
  assert.equal(entered.slice(4), []);
  advance(250);
  assert.equal(entered.slice(4), ['a5']);
  leave('a2');
  assert.is(gate.inside, 2, 'it has not counted for long');
});

test('no timer runs while none waits', () => {
  const { call, timers, advance, leave } = scene();
  call('a1', 'a2', 'a3');
  assert.is(timers.length, 0);
  call('a4', 'a5');
  assert.is(timers.length, 1);
  for (const name of ['a1', 'a2', 'a3', 'a4', 'a5']) leave(name);
  advance(1_000);
  assert.is(timers.length, 0);
});

test('GATE-4: whole calls need no seat, up to so many bytes', () => {
  const { gate, call, entered } = scene();
  assert.is(gate.skip(600), true);
  assert.is(gate.skip(500), false);
  assert.is(gate.skip(400), true);
  assert.is(gate.skip(1), false);
  gate.skipped(600);
  assert.is(gate.skip(600), true);
  // They take no seat from others.
  call('a1', 'a2', 'a3', 'b1');
  assert.equal(entered, ['a1', 'a2', 'a3', 'b1']);
});

test.run();

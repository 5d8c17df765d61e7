import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createCallGate, type GatedCall } from './call-gate.js';

/** A gate for two, with a clock by hand. */
function scene() {
  const timers: { callback: () => void; at: number }[] = [];
  const entered: string[] = [];
  const calls = new Map<string, GatedCall>();
  let time = 0;
  const gate = createCallGate({
    most: 2,
    holdMs: 1000,
    now: () => time,
    schedule: (callback, ms) => timers.push({ callback, at: time + ms }),
  });
  const call = (name: string): void => {
    const one = { enter: () => void entered.push(name) };
    calls.set(name, one);
    gate.pass(one);
  };
  const advance = (ms: number): void => {
    time += ms;
    for (const timer of timers.splice(0)) {
      if (timer.at <= time) timer.callback();
      else timers.push(timer);
    }
  };
  return { gate, entered, call, advance, timers, leave: (name: string) => gate.leave(calls.get(name) as GatedCall) };
}

test('G1, G2: no more than the bound are inside, and the line moves up in order', () => {
  const { gate, entered, call, leave } = scene();
  for (const name of ['a', 'b', 'c', 'd']) call(name);
  assert.equal(entered, ['a', 'b']);
  leave('b');
  assert.equal(entered, ['a', 'b', 'c']);
  leave('b');
  assert.equal([gate.inside, gate.waiting], [2, 1], 'leaving twice counts once');
  leave('a');
  leave('c');
  leave('d');
  assert.equal(entered, ['a', 'b', 'c', 'd']);
  assert.equal([gate.inside, gate.waiting], [0, 0]);
});

test('G2: who goes away while waiting never enters', () => {
  const { gate, entered, call, leave } = scene();
  for (const name of ['a', 'b', 'c', 'd']) call(name);
  leave('c');
  leave('a');
  assert.equal(entered, ['a', 'b', 'd']);
  assert.is(gate.waiting, 0);
});

test('G1: slow callers do not keep the others out', () => {
  const { gate, entered, call, advance, leave } = scene();
  call('slow');
  advance(600);
  call('slower');
  call('c');
  call('d');
  advance(399);
  assert.equal(entered, ['slow', 'slower']);
  advance(1);
  assert.equal(entered, ['slow', 'slower', 'c']);
  advance(599);
  assert.equal(entered, ['slow', 'slower', 'c']);
  advance(1);
  assert.equal(entered, ['slow', 'slower', 'c', 'd']);
  leave('slow');
  assert.is(gate.inside, 2, 'it has not counted for long');
});

test('no timer runs while nobody waits', () => {
  const { call, timers, advance, leave } = scene();
  for (const name of ['a', 'b']) call(name);
  assert.is(timers.length, 0);
  call('c');
  call('d');
  assert.is(timers.length, 1);
  for (const name of ['a', 'b', 'c', 'd']) leave(name);
  advance(1_000);
  assert.is(timers.length, 0);
});

test.run();

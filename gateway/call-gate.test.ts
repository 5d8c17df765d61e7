import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createCallGate } from './call-gate.js';

/** A gate for two, with a clock by hand. */
function scene() {
  const timers = new Set<() => void>();
  const entered: string[] = [];
  const leave = new Map<string, () => void>();
  const gate = createCallGate(2, 1000, (callback) => {
    timers.add(callback);
    return () => timers.delete(callback);
  });
  const call = (name: string): void =>
    gate.pass({ enter: () => entered.push(name), onLeft: (listener) => leave.set(name, listener) });
  return { gate, entered, call, leave: (name: string) => leave.get(name)?.(), expire: () => [...timers][0]?.() };
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
  const { gate, entered, call, expire, leave } = scene();
  for (const name of ['slow', 'slower', 'c']) call(name);
  expire();
  assert.equal(entered, ['slow', 'slower', 'c']);
  leave('slow');
  assert.is(gate.inside, 2);
});

test.run();

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type AddressLimits, burstSeconds, createAddressLimits, maxDebtSeconds, networkOf } from './address-limits.js';

/** Limits with a clock that the test turns, ms. */
function limitsOf(connections: number, newPerSecond: number): { limits: AddressLimits; clock: { now: number } } {
  const clock = { now: 1_000 };
  return { limits: createAddressLimits({ connections, newPerSecond, now: () => clock.now }), clock };
}

/** How many tokens the address gives at once. */
function tokensOf(limits: AddressLimits, address: string): number {
  const entry = limits.of(address);
  let count = 0;
  while (limits.takeToken(entry)) count++;
  return count;
}

test('an IPv4 address counts for itself, also when it is mapped into IPv6; IPv6 counts by /64', () => {
  assert.is(networkOf('203.0.113.9'), '203.0.113.9');
  assert.is(networkOf('::ffff:203.0.113.9'), '203.0.113.9');
  assert.is(networkOf('::FFFF:203.0.113.9'), '203.0.113.9');
  assert.is(networkOf('2001:db8:1:2:3:4:5:6'), '2001:db8:1:2::/64');
  assert.is(networkOf('2001:db8:1:2::'), '2001:db8:1:2::/64');
  assert.is(networkOf('2001:0DB8:0001:0002::9'), '2001:db8:1:2::/64');
  assert.is(networkOf('2001:db8::1'), '2001:db8:0:0::/64');
  assert.is(networkOf('::1'), '0:0:0:0::/64');
  assert.is(networkOf('fe80::1%eth0'), 'fe80:0:0:0::/64');
  assert.is(networkOf('64:ff9b::192.0.2.1'), '64:ff9b:0:0::/64');
  assert.is.not(networkOf('2001:db8:1:2::1'), networkOf('2001:db8:1:3::1'));
});

test('an address has as many connections as it may have, and room again when one ends', () => {
  const { limits } = limitsOf(2, 0);
  const entry = limits.of('192.0.2.1');
  limits.opened(entry);
  assert.not(limits.isFull(entry));
  limits.opened(entry);
  assert.ok(limits.isFull(entry));
  assert.not(limits.isFull(limits.of('192.0.2.2')));
  assert.is(limits.of('192.0.2.1'), entry);
  limits.closed(entry);
  assert.not(limits.isFull(entry));
});

test('new connections come at a rate, with some seconds of them at once', () => {
  const { limits, clock } = limitsOf(0, 50);
  assert.is(tokensOf(limits, '192.0.2.1'), 50 * burstSeconds);
  assert.is(tokensOf(limits, '192.0.2.2'), 50 * burstSeconds, 'of another address');
  clock.now += 100;
  assert.is(tokensOf(limits, '192.0.2.1'), 5);
  clock.now += 3_600_000;
  assert.is(tokensOf(limits, '192.0.2.1'), 50 * burstSeconds);
});

test('abuse costs an address new connections, each time more, up to a debt with a bound', () => {
  const { limits, clock } = limitsOf(0, 50);
  const entry = limits.of('192.0.2.1');
  assert.not(limits.punish(entry));
  assert.is(entry.tokens, 50 * (burstSeconds - 2));
  assert.ok(limits.punish(entry), 'in debt');
  assert.is(entry.tokens, 50 * (burstSeconds - 6));
  for (let i = 0; i < 1_000; i++) limits.punish(entry);
  clock.now += maxDebtSeconds * 1_000;
  assert.is(tokensOf(limits, '192.0.2.1'), 0);
  clock.now += 1_000;
  assert.is(tokensOf(limits, '192.0.2.1'), 50);
});

test('what an address did is forgotten once it has all of its tokens', () => {
  const { limits, clock } = limitsOf(0, 50);
  const entry = limits.of('192.0.2.1');
  for (let i = 0; i < 3; i++) {
    assert.not(limits.punish(entry));
    clock.now += 2_000;
    assert.is(limits.takeToken(entry), true);
    clock.now += 1_000;
    assert.is(limits.takeToken(entry), true);
  }
});

test('without limits nothing is refused', () => {
  const { limits } = limitsOf(0, 0);
  const entry = limits.of('192.0.2.1');
  for (let i = 0; i < 10_000; i++) {
    assert.ok(limits.takeToken(entry));
    assert.not(limits.isFull(entry));
    limits.opened(entry);
    limits.punish(entry);
  }
});

test('an address is forgotten when it has no connection and all of its tokens, and not before', () => {
  const { limits, clock } = limitsOf(10, 50);
  const [gone, stays, owes] = ['192.0.2.1', '192.0.2.2', '192.0.2.3'].map((address) => limits.of(address));
  if (gone === undefined || stays === undefined || owes === undefined) throw new Error('three');
  for (const entry of [gone, stays, owes]) {
    limits.takeToken(entry);
    limits.opened(entry);
  }
  limits.closed(gone);
  limits.closed(owes);
  for (let i = 0; i < 10; i++) limits.punish(owes);
  limits.sweep();
  assert.is(limits.size, 3, 'a token is missing');
  clock.now += 1_000;
  limits.sweep();
  assert.is(limits.size, 2);
  assert.is(limits.of('192.0.2.3'), owes);
  clock.now += 60_000;
  limits.sweep();
  assert.is(limits.size, 1);
  assert.is(limits.of('192.0.2.2'), stays);
});

test('the table of addresses is bounded, whatever number of them come and go', () => {
  const { limits } = limitsOf(10, 50);
  const held = Array.from({ length: 100 }, (_, i) => limits.of(`192.0.2.${i}`));
  for (const entry of held) limits.opened(entry);
  for (let i = 0; i < 60_000; i++) {
    const entry = limits.of(`2001:db8:${(i >> 16).toString(16)}:${(i & 0xffff).toString(16)}::1`);
    limits.takeToken(entry);
    limits.opened(entry);
    limits.closed(entry);
  }
  assert.ok(limits.size <= 16_384 + 100, String(limits.size));
  for (const [i, entry] of held.entries()) assert.is(limits.of(`192.0.2.${i}`), entry);
});

test.run();

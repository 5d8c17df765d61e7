import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UnreadCalls } from './unread-owners.js';

const call = (owner: string, connection: string, bytes: number) => ({ owner, connection, bytes });

test('the eldest call goes first, of the connection and the owner that have the most bytes', () => {
  const calls = new UnreadCalls<ReturnType<typeof call>>();
  const modest = call('tenant a', 'c1', 10);
  const first = call('tenant b', 'c2', 30);
  const second = call('tenant b', 'c3', 20);
  const third = call('tenant b', 'c3', 15);
  for (const one of [modest, first, second, third]) calls.add(one);
  const order = [];
  for (let next = calls.next(); next !== undefined; next = calls.next()) {
    order.push(next);
    calls.delete(next);
    calls.delete(next);
  }
  assert.equal(order, [second, first, third, modest]);
  assert.is(calls.bytes, 0);
});

test('a call whose tenant becomes known counts as that of the tenant', () => {
  const calls = new UnreadCalls<ReturnType<typeof call>>();
  const one = call('address', 'c1', 10);
  const other = call('address', 'c1', 10);
  const greedy = call('tenant b', 'c2', 15);
  for (const each of [one, other, greedy]) calls.add(each);
  assert.is(calls.next(), one);
  calls.move(one, 'tenant a');
  assert.is(calls.next(), greedy);
  assert.is(calls.bytes, 35);
});

test.run();

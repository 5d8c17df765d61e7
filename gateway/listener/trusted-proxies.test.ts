import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UsageError } from '../../lib/errors.js';
import { createClientAddress, createIsTrusted } from './trusted-proxies.js';

const clientOf = createClientAddress(createIsTrusted(['10.0.0.0/8', '127.0.0.1', '2001:db8::/32']));
const at = (remote: string, headers: Record<string, string>) => clientOf((name) => headers[name], remote);
const forwardedFor = (value: string, remote = '127.0.0.1') => at(remote, { 'x-forwarded-for': value });
const forwarded = (value: string) => at('127.0.0.1', { forwarded: value });

test('a client cannot say where it is: only proxies that are trusted can, and they are read from the right', () => {
  assert.is(forwardedFor('203.0.113.9', '198.51.100.1'), '198.51.100.1');
  assert.is(forwardedFor('203.0.113.9'), '203.0.113.9');
  assert.is(forwardedFor('6.6.6.6, 203.0.113.9'), '203.0.113.9');
  assert.is(forwardedFor('6.6.6.6, 203.0.113.9, 10.1.2.3 ,10.4.5.6', '::ffff:10.0.0.1'), '203.0.113.9');
  assert.is(forwardedFor('10.1.1.1, 10.2.2.2'), '10.1.1.1', 'all trusted: the one furthest away');
  assert.is(forwardedFor('[2001:db8::7]:443, 10.0.0.2'), '2001:db8::7');
  assert.is(forwardedFor('203.0.113.9:51234'), '203.0.113.9');
  assert.is(at('10.0.0.1', {}), '10.0.0.1');
  assert.is(
    clientOf(() => undefined, undefined),
    undefined,
  );
});

test('what a proxy does not know is unknown, and not the address of the proxy', () => {
  for (const value of ['unknown', '_hidden', '', '1.2.3', '6.6.6.6, nonsense', '<script>'])
    assert.is(forwardedFor(value), undefined, value);
});

test('Forwarded is read as RFC 7239 writes it, before X-Forwarded-For', () => {
  assert.is(forwarded('for=192.0.2.43'), '192.0.2.43');
  assert.is(forwarded('For="[2001:db9:cafe::17]:4711"'), '2001:db9:cafe::17');
  assert.is(forwarded('for=6.6.6.6, for=192.0.2.60;proto=http;by=203.0.113.43, for=10.9.9.9'), '192.0.2.60');
  assert.is(forwarded('by="a, for=6.6.6.6";for=192.0.2.60'), '192.0.2.60');
  assert.is(forwarded('proto=https, for="_gazonk"'), undefined);
  assert.is(at('127.0.0.1', { forwarded: 'for=192.0.2.1', 'x-forwarded-for': '192.0.2.2' }), '192.0.2.1');
});

test('without trusted proxies the headers mean nothing, and a wrong entry is named', () => {
  assert.is(
    createClientAddress(createIsTrusted([]))(() => '203.0.113.9', '10.0.0.1'),
    '10.0.0.1',
  );
  for (const entry of ['10.0.0.0/33', 'proxy.example', '10.0.0', '::1/129', '10.0.0.0/8/9', '10.0.0.0/', '']) {
    assert.throws(
      () => createIsTrusted([entry]),
      (error: unknown) => error instanceof UsageError && error.message.includes(`"${entry}"`),
    );
  }
});

test.run();

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createClientAddress, createIsTrusted } from '../listener/trusted-proxies.js';
import { addressBytes, clientOf, readFacts, traceparentOf, wasResent } from './request-facts.js';

test('the client is the first product of a user agent: name and version only', () => {
  assert.is(clientOf('sluice-node/0.1.0 (linux; x64) connect-es/2.1.2'), 'sluice-node/0.1.0');
  assert.is(clientOf('grpc-go/1.60.1'), 'grpc-go/1.60.1');
  assert.is(clientOf('curl/8.5.0'), 'curl/8.5.0');
  for (const bad of [null, undefined, '', 'nothing', '<b>/1', `${'x'.repeat(41)}/1`, `x/${'1'.repeat(24)}`, 'a b/1']) {
    assert.is(clientOf(bad), undefined, String(bad));
  }
});

test('trace context is passed on only when it is valid', () => {
  const good = `00-${'4bf92f3577b34da6a3ce929d0e0e4736'}-00f067aa0ba902b7-01`;
  assert.is(traceparentOf(good), good);
  for (const bad of [
    '',
    good.toUpperCase(),
    `${good}-more`,
    good.replace('00-4', '01-4'),
    `00-${'0'.repeat(32)}-00f067aa0ba902b7-01`,
    `00-4bf92f3577b34da6a3ce929d0e0e4736-${'0'.repeat(16)}-01`,
  ]) {
    assert.is(traceparentOf(bad), undefined, bad);
  }
});

test('addresses are stored as 4 or 16 bytes', () => {
  assert.equal([...(addressBytes('10.1.2.3') ?? [])], [10, 1, 2, 3]);
  assert.equal([...(addressBytes('::ffff:10.1.2.3') ?? [])], [10, 1, 2, 3]);
  const hex = (address: string) => Buffer.from(addressBytes(address) ?? []).toString('hex');
  assert.is(hex('::1'), '00000000000000000000000000000001');
  assert.is(hex('::'), '00000000000000000000000000000000');
  assert.is(hex('2001:db8::ff00:42:8329'), '20010db8000000000000ff0000428329');
  assert.is(hex('fe80::1%eth0'), 'fe800000000000000000000000000001');
  assert.is(hex('1:2:3:4:5:6:7:8'), '00010002000300040005000600070008');
  assert.is(addressBytes('not an address'), undefined);
  assert.is(addressBytes(undefined), undefined);
});

const clientAddress = (_header: unknown, remote: string | undefined) => remote;

test('user agent and address are stored only when that is asked for', () => {
  const header = (name: string) => (name === 'user-agent' ? 'Mozilla/5.0 \u0007bell' : null);
  const none = readFacts(header, '10.1.2.3', { storeClientAddress: false, storeUserAgent: false, clientAddress });
  assert.equal([none.userAgent, none.clientAddress], [undefined, undefined]);
  const both = readFacts(header, '10.1.2.3', { storeClientAddress: true, storeUserAgent: true, clientAddress });
  assert.is(both.userAgent, 'Mozilla/5.0 bell');
  assert.is(both.clientAddress?.length, 4);
});

test('the stored address is the one that the proxies vouch for', () => {
  const clientAddress = createClientAddress(createIsTrusted(['10.0.0.0/8']));
  const options = { storeClientAddress: true, storeUserAgent: false, clientAddress };
  const of = (remote: string) =>
    readFacts((name) => ({ 'x-forwarded-for': '192.0.2.7' })[name], remote, options).clientAddress;
  assert.equal([...(of('10.1.2.3') ?? [])], [192, 0, 2, 7]);
  assert.equal([...(of('198.51.100.1') ?? [])], [198, 51, 100, 1]);
});

test('a retry below the application is known by the header of gRPC or of Envoy', () => {
  const resent = (headers: Record<string, string>) => wasResent((name) => headers[name]);
  for (const headers of [{}, { 'grpc-previous-rpc-attempts': '0' }, { 'x-envoy-attempt-count': '1' }]) {
    assert.not(resent(headers), JSON.stringify(headers));
  }
  for (const name of ['grpc-previous-rpc-attempts', 'x-envoy-attempt-count']) {
    for (const value of ['2', '10', '', 'x', '-1', '1, 2']) assert.ok(resent({ [name]: value }), `${name}: ${value}`);
  }
  assert.ok(resent({ 'grpc-previous-rpc-attempts': '1' }));
});

test.run();

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { connectTimeout, grpcTimeout, roundTimeout, timeoutOf } from './call-timeout.js';

test('grpc-timeout is read in all six units, in whole milliseconds, rounded up', () => {
  const all: [string, number][] = [
    ['2H', 7_200_000],
    ['99999999H', 359_999_996_400_000],
    ['3M', 180_000],
    ['5S', 5_000],
    ['250m', 250],
    ['9997299u', 9_998],
    ['1001000u', 1_001],
    ['3000u', 3],
    ['1u', 1],
    ['99999999n', 100],
    ['7000000n', 7],
    ['1n', 1],
    ['0n', 0],
    ['0H', 0],
  ];
  for (const [text, ms] of all) assert.is(grpcTimeout(text), ms, text);
});

test('what is no timeout is none', () => {
  for (const text of [
    '',
    '5',
    'S',
    '-5S',
    '+5S',
    '5s',
    '5 S',
    ' 5S',
    '5S ',
    '1.5S',
    '0x5S',
    '123456789S',
    '5Sm',
    '٥S',
  ]) {
    assert.is(grpcTimeout(text), undefined, text);
  }
  for (const text of ['', '-1', '1.5', '1e3', '12345678901', ' 1', '1m'])
    assert.is(connectTimeout(text), undefined, text);
  assert.is(connectTimeout('0'), 0);
  assert.is(connectTimeout('1500'), 1_500);
});

test('each protocol has its own header, and a far-away deadline is none', () => {
  const of = (headers: Record<string, string>) => timeoutOf((name) => headers[name]);
  const both = { 'grpc-timeout': '1S', 'connect-timeout-ms': '5' };
  assert.is(of({ ...both, 'content-type': 'application/grpc' }), 1_000);
  assert.is(of({ ...both, 'content-type': 'application/grpc-web+json' }), 1_000);
  assert.is(of({ ...both, 'content-type': 'application/proto' }), 5);
  assert.is(of({ ...both }), 5);
  assert.is(of({ 'content-type': 'application/grpc' }), undefined);
  assert.is(of({ 'content-type': 'application/grpc', 'grpc-timeout': '99999999H' }), undefined);
  assert.is(of({ 'connect-timeout-ms': '9999999999' }), undefined);
});

test('the library gets the same milliseconds, less those that the call has waited', () => {
  const grpc = (timeout: string, waited?: number) => {
    const headers: Record<string, string> = { 'content-type': 'application/grpc', 'grpc-timeout': timeout };
    roundTimeout(headers, waited);
    return headers['grpc-timeout'];
  };
  assert.is(grpc('9997299u'), '9998m');
  assert.is(grpc('1n'), '1m');
  assert.is(grpc('5S', 1_200.5), '3800m');
  assert.is(grpc('1S', 5_000), '0m');
  assert.is(grpc('30H'), '108000S');
  assert.is(grpc('99999999H'), undefined);
  assert.is(grpc('nonsense'), 'nonsense');
  const connect: Record<string, string> = { 'content-type': 'application/json', 'connect-timeout-ms': '300' };
  roundTimeout(connect, 100);
  assert.is(connect['connect-timeout-ms'], '200');
});

test.run();

import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { isOwnHost } from './own-host.js';

test('a server on loopback takes its own names, with and without a port', () => {
  for (const header of [
    '127.0.0.1',
    '127.0.0.1:8123',
    '127.0.1.1',
    'localhost',
    'LOCALHOST:1',
    'localhost.',
    '[::1]',
    '[::1]:80',
  ]) {
    assert.ok(isOwnHost(header, '127.0.0.1'), header);
  }
  assert.ok(isOwnHost('[::1]:8123', '::1'));
  assert.ok(isOwnHost(undefined, '127.0.0.1'), 'HTTP/1.0 has none');
});

test('it takes no other', () => {
  const foreign = [
    'evil.example',
    'evil.example:8123',
    '127.0.0.1.evil.example',
    'localhost.evil.example',
    '[::1',
    '[evil]',
    '',
  ];
  for (const header of [...foreign, '0.0.0.0', '10.0.0.1', '127.0.0.1@evil.example', '1270.0.0.1']) {
    for (const listensOn of ['127.0.0.1', '::1', 'localhost']) assert.not.ok(isOwnHost(header, listensOn), header);
  }
});

test('a server on another address takes every name: it cannot know them', () => {
  for (const listensOn of ['0.0.0.0', '::', '10.0.0.1', 'gateway']) {
    assert.ok(isOwnHost('gateway:7071', listensOn));
    assert.ok(isOwnHost('10.0.0.1', listensOn));
    assert.not.ok(isOwnHost('', listensOn));
  }
});

test.run();

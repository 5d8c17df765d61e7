import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { SluiceError } from '../lib/errors.js';
import { explain, plainGrpcMessage } from './rpc-errors.js';

test('what happened and what to do are two sentences', () => {
  for (const message of ['The batch has no events', 'The batch has no events.']) {
    const text = explain(new SluiceError('batch_empty', message));
    assert.is(text, 'The batch has no events. Put at least one event into the batch.');
  }
});

test('a message of gRPC is encoded where it must be, and nowhere else', () => {
  const text = 'The "key", 100% of it; is (not) <known>: é \n ~{|}';
  const plain = plainGrpcMessage(encodeURIComponent(text));
  assert.is(plain, 'The "key", 100%25 of it; is (not) <known>: %C3%A9 %0A ~{|}');
  assert.is(decodeURIComponent(plain), text);
});

test.run();

import { Code, ConnectError } from '@connectrpc/connect';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { SluiceError } from '../../lib/errors.js';
import { classify, explain, plainGrpcMessage } from './rpc-errors.js';

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

test("every refusal of the library has a name, and bytes that are broken are not the gateway's fault", () => {
  const cases: [string, Code, string, Code][] = [
    ['decompression failed', Code.Internal, 'request_malformed', Code.InvalidArgument],
    ['protocol error: incomplete envelope', Code.InvalidArgument, 'request_malformed', Code.InvalidArgument],
    ['protocol error: invalid grpc timeout value: 1x', Code.InvalidArgument, 'request_malformed', Code.InvalidArgument],
    ['Publish takes one message.', Code.InvalidArgument, 'request_malformed', Code.InvalidArgument],
    ['the operation timed out', Code.DeadlineExceeded, 'deadline', Code.DeadlineExceeded],
    // gRPC prescribes these codes.
    ['received compressed envelope, but do not know how to …', Code.Internal, 'request_malformed', Code.Internal],
    [
      'unknown compression "br": supported encodings are gzip',
      Code.Unimplemented,
      'content_encoding',
      Code.Unimplemented,
    ],
  ];
  for (const [message, code, reason, answered] of cases) {
    const { rpc, unexpected } = classify(new ConnectError(message, code, { 'grpc-accept-encoding': 'gzip' }));
    assert.is(rpc.code, answered, message);
    assert.is((rpc.details[0] as { value?: { reason?: string } }).value?.reason, reason, message);
    assert.not(unexpected);
  }
});

test.run();

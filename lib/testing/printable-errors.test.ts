import { Code, ConnectError } from '@connectrpc/connect';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import './printable-errors.js';

test('details can be split as uvu does, whether an error was made with them or got them later, and are what they were', () => {
  const error = new ConnectError('no', Code.Unavailable);
  const linesOf = (): string[] => (error.details as unknown as { split: (by: string) => string[] }).split('\n');
  assert.equal(error.details, []);
  assert.equal(linesOf(), []);
  const details = [{ type: 'sluice.Test', value: new Uint8Array([1]) }];
  error.details = details;
  assert.is(error.details, details);
  assert.match(linesOf().join('\n'), /sluice\.Test/);
  assert.is(ConnectError.from(error), error);
});

test.run();

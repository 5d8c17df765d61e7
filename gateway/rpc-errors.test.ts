import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { SluiceError } from '../lib/errors.js';
import { explain } from './rpc-errors.js';

test('what happened and what to do are two sentences', () => {
  for (const message of ['The batch has no events', 'The batch has no events.']) {
    const text = explain(new SluiceError('batch_empty', message));
    assert.is(text, 'The batch has no events. Put at least one event into the batch.');
  }
});

test.run();

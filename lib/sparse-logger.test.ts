import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createSparseLogger } from './sparse-logger.js';

test('of each message there is one line a second, and the next one counts those that were left out', () => {
  let now = 0;
  const lines: unknown[] = [];
  const record = (fields: object, message: string): void => void lines.push([message, fields]);
  const logger = createSparseLogger({ warn: record, error: record } as never, () => now);
  for (let i = 0; i < 1_000; i++) logger.warn({ i }, 'refused');
  logger.error({}, 'failed');
  now = 999;
  logger.warn({ i: -1 }, 'refused');
  now = 1_000;
  logger.warn({ i: -2 }, 'refused');
  now = 5_000;
  logger.warn({ i: -3 }, 'refused');
  assert.equal(lines, [
    ['refused', { i: 0 }],
    ['failed', {}],
    ['refused', { i: -2, suppressed: 1_000 }],
    ['refused', { i: -3 }],
  ]);
});

test.run();

/** What the scanner accepts, the engine stores with the values that a full decoder sees. */
import { test } from 'uvu';
import { assertEngineAgrees } from '../../testing/engine-agreement.js';

test('2,500 oddly encoded batches, and small blocks of them, are stored with the values that protobuf-es decodes', () =>
  assertEngineAgrees({ from: 1, small: 60, large: 1 }));

test.run();

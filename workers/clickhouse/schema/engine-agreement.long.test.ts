/** What the scanner accepts, the engine stores with the values that a full decoder sees: more of what engine-agreement.it.test.ts does. */
import { test } from 'uvu';
import { assertEngineAgrees } from '../../testing/engine-agreement.js';

test('17,500 more oddly encoded batches are stored with the values that protobuf-es decodes', () =>
  assertEngineAgrees({ from: 62, small: 0, large: 7 }));

test.run();

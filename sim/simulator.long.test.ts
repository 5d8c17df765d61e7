/** Of ten thousand worlds none may lose or double an event: all that simulator.test.ts leaves out. */
import { test } from 'uvu';
import { assertBroken, assertWhole } from './testing/worlds.js';

test('worlds 501 to 10,000: all that was acknowledged is stored once, and every world comes to rest', () =>
  assertWhole(501, 10_000));

test('a log that loses its end, or a stream that is removed: only what it forgot is lost, and nothing that was committed', () =>
  assertBroken(10_101, 11_000));

test.run();

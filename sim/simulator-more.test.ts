/** Of ten thousand worlds none may lose or double an event: the second half. In a file of its own, for the sake of the time-out. */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { halves } from './testing/worlds.js';

test('worlds 5,001 to 10,000: all that was acknowledged is stored once, and every world comes to rest', async () => {
  const totals = await halves(5_001, 10_000);
  assert.is(totals.worlds, 5_000);
  assert.is(totals.faults, 0);
  // What happened in them must have been worth it.
  assert.ok(totals.acked > 80_000, `${totals.acked} acknowledged`);
  assert.ok(totals.duplicates > 10_000, `${totals.duplicates} duplicates left out`);
  assert.ok(totals.dead > 200, `${totals.dead} dead`);
  assert.is(totals.forgotten, 0);
});

test('a log that loses its end, or a stream that is removed: only what it forgot is lost, and nothing that was committed', async () => {
  const totals = await halves(10_501, 11_000, '--break-log');
  assert.is(totals.faults, 0);
  assert.ok(totals.forgotten > 0, 'no log forgot what it had acknowledged');
});

test.run();

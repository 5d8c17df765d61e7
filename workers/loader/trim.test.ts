import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { createTrimLedger } from './trim.js';

const calm = { streamBytes: 100, maxBytes: 10_000, replayMs: 60_000 };

test('what is loaded stays for the replay window and goes after it (LOAD-8)', () => {
  const ledger = createTrimLedger();
  ledger.begin(0, 0);
  ledger.loaded({ hi: 10, bytes: 50, timeMs: 1_000 });
  ledger.loaded({ hi: 20, bytes: 50, timeMs: 31_000 });
  assert.is(ledger.point({ ...calm, nowMs: 61_000 }), undefined);
  // A little later, so that more goes at once.
  assert.is(ledger.point({ ...calm, nowMs: 62_000 }), undefined);
  assert.is(ledger.point({ ...calm, nowMs: 62_001 }), 10);
  assert.is(ledger.point({ ...calm, nowMs: 99_000 }), 20);
});

test('an eighth past half of the limit loaded messages go early, oldest first, down to the half and no more', () => {
  const ledger = createTrimLedger();
  for (let i = 1; i <= 4; i++) ledger.loaded({ hi: i * 10, bytes: 100, timeMs: 0 });
  assert.is(ledger.point({ nowMs: 1, streamBytes: 500, maxBytes: 1_000, replayMs: 60_000 }), undefined);
  assert.is(ledger.point({ nowMs: 1, streamBytes: 624, maxBytes: 1_000, replayMs: 60_000 }), undefined);
  assert.is(ledger.point({ nowMs: 1, streamBytes: 650, maxBytes: 1_000, replayMs: 60_000 }), 20);
  // Unloaded messages fill the stream: everything loaded may go, and nothing else.
  assert.is(ledger.point({ nowMs: 1, streamBytes: 9_000, maxBytes: 1_000, replayMs: 60_000 }), 40);
  ledger.trimmed(40);
  assert.is(ledger.point({ nowMs: 1, streamBytes: 9_000, maxBytes: 1_000, replayMs: 60_000 }), undefined);
});

test('what an earlier worker loaded counts from now on, and goes first when space is short', () => {
  const ledger = createTrimLedger();
  ledger.begin(100, 5_000);
  ledger.loaded({ hi: 110, bytes: 10, timeMs: 5_000 });
  assert.is(ledger.point({ ...calm, nowMs: 64_000 }), undefined);
  assert.is(ledger.point({ ...calm, nowMs: 64_000, streamBytes: 9_000 }), 100);
  assert.is(ledger.point({ ...calm, nowMs: 67_000 }), 110);
});

test('a recovery keeps what is known, and never lets the point pass what ClickHouse reports', () => {
  const ledger = createTrimLedger();
  ledger.loaded({ hi: 10, bytes: 10, timeMs: 0 });
  ledger.loaded({ hi: 20, bytes: 10, timeMs: 0 });
  ledger.begin(10, 50_000);
  assert.is(ledger.point({ ...calm, nowMs: 70_000 }), 10);
  ledger.begin(30, 50_000);
  assert.is(ledger.point({ ...calm, nowMs: 70_000 }), 10);
  assert.is(ledger.point({ ...calm, nowMs: 120_000 }), 30);
});

test('memory stays bounded over many small blocks', () => {
  const ledger = createTrimLedger();
  for (let i = 1; i <= 100_001; i++) ledger.loaded({ hi: i, bytes: 1, timeMs: i });
  assert.is(ledger.point({ ...calm, nowMs: 10_000_000 }), 100_001);
  assert.is(
    ledger.point({ nowMs: 100_001, streamBytes: 70_000, maxBytes: 100_000, replayMs: 1e9 }) !== undefined,
    true,
  );
});

test.run();

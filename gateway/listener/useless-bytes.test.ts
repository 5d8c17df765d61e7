import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { KiB, MiB } from '../../lib/units.js';
import { tlsBytes, UselessBytes } from './useless-bytes.js';

const window = 64 * KiB;

/** Looks once a second at a peer that sends so much each second. True: it was kept for a minute. */
function kept(perSecond: { bytes: number; payload: number; calls: number; cutShort: number }): boolean {
  const useless = new UselessBytes(0);
  for (let s = 1; s <= 60; s++) {
    const { bytes, payload, calls, cutShort } = perSecond;
    if (
      !useless.look(
        { bytes: s * bytes, payload: s * payload, calls: s * calls, cutShort: s * cutShort, window },
        s * 1_000,
      )
    )
      return false;
  }
  return true;
}

test('bytes of bodies are never too many, in frames of any usual size', () => {
  assert.ok(kept({ bytes: 300 * MiB, payload: 299 * MiB, calls: 1, cutShort: 0 }));
  // Messages of ten bytes, each in a frame with a head of nine.
  assert.ok(kept({ bytes: 1_900_000, payload: 1_000_000, calls: 0, cutShort: 0 }));
});

test('calls with large headers and no body are never too many', () => {
  assert.ok(kept({ bytes: 5_000 * 8_000, payload: 0, calls: 5_000, cutShort: 0 }));
});

test('pings and window updates of an honest peer are forgiven', () => {
  assert.ok(kept({ bytes: 60 * KiB, payload: 0, calls: 0, cutShort: 0 }));
});

test('frames without effect end the connection', () => {
  assert.not(kept({ bytes: 10 * MiB, payload: 0, calls: 0, cutShort: 0 }));
  assert.not(kept({ bytes: 128 * KiB, payload: 0, calls: 0, cutShort: 0 }), 'slowly, too');
});

test('over TLS, records of an honest peer count once, and those that carry nothing many times', () => {
  const record = 22;
  const overTls = (records: number, each: number): number =>
    tlsBytes(4_000 + records * (record + each), records * each);
  assert.is(overTls(0, 0), 4_000);
  assert.is(overTls(100_000, 13), 4_000 + 100_000 * 35);
  assert.ok(overTls(5_000, 1) > 1_000_000);
  assert.ok(tlsBytes(4_000 + 5_000 * 27, 0) > 1_000_000, 'KeyUpdates');
});

test('bodies in frames of one byte end the connection', () => {
  assert.not(kept({ bytes: 10_000_000, payload: 1_000_000, calls: 0, cutShort: 0 }));
});

test('bodies that are refused and dropped unseen do not end the connection', () => {
  assert.ok(kept({ bytes: 200 * 64 * KiB, payload: 0, calls: 200, cutShort: 200 }));
});

test('streams that are refused long after their beginning, with their windows under way, do not end the connection', () => {
  const useless = new UselessBytes(0);
  const opened = { bytes: 250 * window, payload: 250 * window, calls: 250, cutShort: 0, window };
  assert.ok(useless.look(opened, 1_000));
  const refused = { ...opened, cutShort: 250 };
  assert.ok(useless.look(refused, 60_000));
  assert.ok(useless.look({ ...refused, bytes: 500 * window }, 60_250), 'far away, they hear it later');
  assert.not(useless.look({ ...refused, bytes: 600 * window }, 60_500), 'and no more than once');
});

test.run();

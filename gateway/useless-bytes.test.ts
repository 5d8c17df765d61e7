import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UselessBytes } from './useless-bytes.js';

const MiB = 1024 ** 2;

/** Looks once a second at a peer that sends so much each second. True: it was kept for a minute. */
function kept(perSecond: { bytes: number; payload: number; calls: number; bodies: number }): boolean {
  const useless = new UselessBytes(0);
  for (let s = 1; s <= 60; s++) {
    const { bytes, payload, calls, bodies } = perSecond;
    if (!useless.look({ bytes: s * bytes, payload: s * payload, calls: s * calls, bodies: s * bodies }, s * 1_000))
      return false;
  }
  return true;
}

test('bytes of bodies are never too many, in frames of any usual size', () => {
  assert.ok(kept({ bytes: 300 * MiB, payload: 299 * MiB, calls: 1, bodies: 0 }));
  // Messages of ten bytes, each in a frame with a head of nine.
  assert.ok(kept({ bytes: 1_900_000, payload: 1_000_000, calls: 0, bodies: 0 }));
});

test('calls with large headers and no body are never too many', () => {
  assert.ok(kept({ bytes: 5_000 * 8_000, payload: 0, calls: 5_000, bodies: 0 }));
});

test('pings and window updates of an honest peer are forgiven', () => {
  assert.ok(kept({ bytes: 60 * 1024, payload: 0, calls: 0, bodies: 0 }));
});

test('frames without effect end the connection', () => {
  assert.not(kept({ bytes: 10 * MiB, payload: 0, calls: 0, bodies: 0 }));
  assert.not(kept({ bytes: 128 * 1024, payload: 0, calls: 0, bodies: 0 }), 'slowly, too');
});

test('bodies in frames of one byte end the connection', () => {
  assert.not(kept({ bytes: 10_000_000, payload: 1_000_000, calls: 0, bodies: 0 }));
});

test('bodies that are refused and dropped unseen do not end the connection', () => {
  assert.ok(kept({ bytes: 200 * MiB, payload: 0, calls: 200, bodies: 200 }));
});

test.run();

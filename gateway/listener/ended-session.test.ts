import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { EndedSession } from './ended-session.js';

/** A session whose PINGs wait in its queue until they are sent. */
function createPeer() {
  const ended = new EndedSession();
  const peer = {
    bytes: 100,
    pings: 0,
    queue: 0,
    unsent: 0,
    answer: undefined as ((error: Error | null) => void) | undefined,
    look: (now: number) =>
      ended.look(
        session,
        () => peer.bytes,
        () => peer.unsent,
        now,
      ),
    /** The PING goes out, and its answer comes. */
    pong() {
      peer.queue = 0;
      peer.bytes += 17;
      peer.answer?.(null);
    },
  };
  const session = {
    get state() {
      return { outboundQueueSize: peer.queue };
    },
    ping(callback: (error: Error | null) => void) {
      peer.pings++;
      peer.queue++;
      peer.answer = callback;
      return true;
    },
  };
  return peer;
}

test('a session whose PING does not leave its queue within 2 s has ended', () => {
  const peer = createPeer();
  assert.equal([0, 900, 1_000, 2_900, 3_000].map(peer.look), [false, false, false, false, true]);
  assert.is(peer.pings, 1);
});

test('a session whose PING was sent lives, answered or not', () => {
  const peer = createPeer();
  peer.look(0);
  peer.look(1_000);
  peer.queue = 0;
  assert.not(peer.look(60_000));
  assert.is(peer.pings, 1);
});

test('a peer that answers is asked again only after it has sent something else, and at most every 5 s', () => {
  const peer = createPeer();
  peer.look(0);
  peer.look(1_000);
  peer.pong();
  for (let now = 1_250; now < 100_000; now += 250) assert.not(peer.look(now));
  assert.is(peer.pings, 1);
  for (let now = 100_000; now < 120_000; now += 250) {
    // A call every 2 s.
    if (now % 2_000 === 0) peer.bytes += 50;
    assert.not(peer.look(now));
    if (peer.queue > 0) peer.pong();
  }
  assert.ok(peer.pings >= 4 && peer.pings <= 5, String(peer.pings));
});

test('a PING that waits behind what the peer does not read proves nothing', () => {
  const peer = createPeer();
  peer.look(0);
  peer.look(1_000);
  peer.unsent = 1;
  assert.not(peer.look(30_000));
  peer.unsent = 0;
  assert.ok(peer.look(30_250));
});

test('bytes that come show that the session lives, whatever its queue holds', () => {
  const peer = createPeer();
  peer.look(0);
  peer.look(1_000);
  peer.bytes++;
  assert.not(peer.look(3_000));
});

test.run();

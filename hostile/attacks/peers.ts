/** Many connections of one attacker, for attacks that need more streams than one connection takes. */
import type { Field } from '../attack.js';
import { H1Peer } from '../wire/h1.js';
import { type H2Options, H2Peer } from '../wire/h2.js';

/** How long a whole request waits for its answer. */
const patienceMs = 20_000;
/** Streams that the gateway takes on one connection. */
export const streamsPerConnection = 256;

/** Opens up to `count` HTTP/2 connections; those that the gateway does not take are left out. */
export async function openMany(field: Field, count: number, options: H2Options = {}): Promise<H2Peer[]> {
  const peers: H2Peer[] = [];
  for (let i = 0; i < count && !field.over; i++) {
    const peer = await H2Peer.open(field.target, field.counts, options);
    if (peer !== undefined) peers.push(peer);
  }
  return peers;
}

/** The same over HTTP/1.1, `atOnce` at a time. */
export async function openManyH1(field: Field, count: number, atOnce = 50): Promise<H1Peer[]> {
  const peers: H1Peer[] = [];
  for (let i = 0; i < count && !field.over; i += atOnce) {
    const some = Array.from({ length: Math.min(atOnce, count - i) }, () => H1Peer.open(field.target, field.counts));
    for (const peer of await Promise.all(some)) if (peer !== undefined) peers.push(peer);
  }
  return peers;
}

/** Waits for answers that are owed, also when the time is over, and counts those that have not come after 20 s. */
export async function settle(field: Field, peers: readonly (H1Peer | H2Peer)[]): Promise<void> {
  await Promise.all(peers.map((peer) => peer.untilAnswered(patienceMs)));
  field.counts.unanswered += peers.reduce((sum, peer) => sum + peer.unanswered, 0);
}

/**
 * Random worlds for the whole client, without a network: nothing that was tracked may ever lie still. As long as something is pending there is a
 * timer, and once peers behave everything is settled in time, although older connections stay silent.
 */
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { EventType } from '../gen/sluice/event/v1/event_pb.js';
import { SluiceClient } from './client.js';
import type { Durability, Link, LinkEvents } from './delivery.js';
import { type FailureCode, SluiceClientError } from './errors.js';

import { createFakeGateway, type FakeStream } from './testing/fake-gateway.js';
import { createManualClock, type ManualClock } from './testing/manual-clock.js';

const ackTimeoutMs = 6_000;
const connectTimeoutMs = 3_000;
const commitTimeoutMs = 10_000;
const retryCapMs = 500;
/** A silent connection, then a silent start, then waits and the lone batches of DELIVER-6. */
const settledWithinMs = ackTimeoutMs + commitTimeoutMs + connectTimeoutMs + 30_000 + 60_000;

function seeded(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

interface Peer {
  readonly stream: FakeStream;
  told: boolean;
  over: boolean;
  answered: number;
}

/** As the real link does, it ends a stream that was finished and is not ended by the peer. */
function patientLink(clock: ManualClock, open: (events: LinkEvents) => Link, events: LinkEvents): Link {
  let over = false;
  const link = open({
    ...events,
    onEnd(error) {
      if (over) return;
      over = true;
      events.onEnd(error);
    },
  });
  let cancel: (() => void) | undefined;
  return {
    send: link.send,
    finish(withinMs) {
      link.finish(withinMs);
      cancel = clock.after(withinMs, () => {
        if (over) return;
        over = true;
        events.onEnd(new SluiceClientError('deadline_exceeded', 'not ended'));
      });
    },
    abort() {
      over = true;
      cancel?.();
      link.abort();
    },
  };
}

const codes: readonly FailureCode[] = [
  'unavailable',
  'internal',
  'unauthenticated',
  'invalid_argument',
  'unimplemented',
];

/** A client among peers that do what the seed says. */
interface World {
  readonly name: string;
  readonly random: () => number;
  readonly clock: ManualClock;
  readonly client: SluiceClient;
  readonly peers: readonly Peer[];
  readonly durability: Durability;
}

const pick = <T>(random: () => number, items: readonly T[]): T => items[Math.floor(random() * items.length)] as T;

function createWorld(seed: number, durability: Durability): World {
  const random = seeded(seed);
  const clock = createManualClock();
  const gateway = createFakeGateway();
  const peers: Peer[] = [];
  const open = (events: LinkEvents): Link => {
    const link = gateway.open(events);
    peers.push({ stream: gateway.last, told: false, over: false, answered: 0 });
    return link;
  };
  const client = new SluiceClient(
    {
      ...{ baseUrl: 'http://127.0.0.1:1', key: 'k', clock, random, durability },
      ...{ ackTimeoutMs, connectTimeoutMs, commitTimeoutMs, retryCapMs },
      refusalGraceMs: pick(random, [0, 3_000]),
      batchEvents: pick(random, [1, 3, 100]),
      lingerMs: pick(random, [0, 20]),
      maxBatchesInFlight: pick(random, [1, 4]),
      maxBytesInFlight: pick(random, [100, 10_000]),
    },
    (events) => patientLink(clock, open, events),
  );
  return { name: `seed ${seed}`, random, clock, client, peers, durability };
}

function tellLimits({ durability }: World, peer: Peer): void {
  peer.told = true;
  peer.stream.limits({ maxUncommitted: durability === 'committed' ? 8 : 0, maxBatchBytes: 400 });
}

function accept(peer: Peer): void {
  for (; peer.answered < peer.stream.sent.length; peer.answered++) {
    peer.stream.accept(peer.stream.sent[peer.answered], peer.answered + 1);
  }
}

function end({ random }: World, peer: Peer): void {
  peer.over = true;
  if (random() < 0.3) peer.stream.end();
  else if (random() < 0.5) peer.stream.refuse(pick(random, codes));
  else peer.stream.end(pick(random, codes), random() < 0.3 ? random() * 2_000 : undefined);
}

function act(world: World, peer: Peer): void {
  const { random } = world;
  const { stream } = peer;
  const roll = random();
  if (!peer.told && roll < 0.7) tellLimits(world, peer);
  else if (roll < 0.35) accept(peer);
  else if (roll < 0.5) stream.commit(peer.answered);
  else if (roll < 0.65)
    stream.fail(pick(random, stream.sent), random() < 0.8 ? { retryAfterMs: random() * 2_000 } : {});
  else if (roll < 0.75) stream.drain();
  else if (roll < 0.9) end(world, peer);
}

/** As long as something is pending there is a timer. */
function isLive({ client, clock, name }: World, when: string): void {
  const { pending } = client.stats();
  assert.ok(pending === 0 || clock.timers > 0, `${name}, ${when}: ${pending} events lie still`);
}

/** Events and faults at random. */
function live(world: World): void {
  const { random, client, clock, peers } = world;
  for (let step = 0; step < 80; step++) {
    if (random() < 0.5) client.track({ type: EventType.CLICK, name: 'n'.repeat(Math.floor(random() * 60)) });
    if (random() < 0.05) void client.flush();
    clock.advance(random() < 0.1 ? random() * 8_000 : random() * 40);
    const peer = random() < 0.7 ? peers.at(-1) : pick(random, peers);
    if (peer !== undefined && !peer.over && !peer.stream.aborted) act(world, peer);
    isLive(world, `step ${step}`);
  }
}

/** New connections behave, what is open stays silent, and all is settled in time. */
function rest(world: World): void {
  const { client, clock, peers, name } = world;
  const silent = peers.length;
  for (const until = clock.now() + settledWithinMs; client.stats().pending > 0; clock.advance(25)) {
    const { pending } = client.stats();
    assert.ok(clock.now() < until, `${name}: ${pending} events are pending after ${settledWithinMs} ms`);
    isLive(world, 'at rest');
    for (const peer of peers.slice(silent)) {
      if (peer.stream.aborted) continue;
      if (!peer.told) tellLimits(world, peer);
      accept(peer);
      peer.stream.commit(peer.answered);
    }
  }
  const { tracked, delivered, rejected } = client.stats();
  assert.is(delivered + rejected, tracked);
}

for (const durability of ['accepted', 'committed'] as const) {
  test(`${durability}: in hundreds of random worlds nothing that was tracked lies still`, () => {
    for (let seed = 1; seed <= 200; seed++) {
      const world = createWorld(seed, durability);
      live(world);
      rest(world);
    }
  });
}

test.run();

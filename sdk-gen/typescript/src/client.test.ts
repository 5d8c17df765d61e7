import { readFileSync } from 'node:fs';
import { fromBinary } from '@bufbuild/protobuf';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { EventBatchSchema, EventType } from '../gen/sluice/event/v1/event_pb.js';
import { clientVersion, SluiceClient } from './client.js';
import type { Rejected, SluiceClientOptions } from './options.js';
import { createFakeGateway, type FakeGateway } from './testing/fake-gateway.js';
import { createManualClock, type ManualClock } from './testing/manual-clock.js';

interface Setting {
  readonly client: SluiceClient;
  readonly gateway: FakeGateway;
  readonly clock: ManualClock;
  readonly rejected: Rejected[];
}

function setting(options: Partial<SluiceClientOptions> = {}): Setting {
  const gateway = createFakeGateway();
  const clock = createManualClock();
  const rejected: Rejected[] = [];
  const client = new SluiceClient(
    {
      baseUrl: 'http://127.0.0.1:1',
      key: 'k',
      clock,
      random: () => 1,
      onRejected: (one) => rejected.push(one),
      ...options,
    },
    (events) => gateway.open(events),
  );
  return { client, gateway, clock, rejected };
}

const click = { type: EventType.CLICK };
const eventsOf = (bytes: Uint8Array | undefined) => fromBinary(EventBatchSchema, bytes ?? new Uint8Array(0)).events;

test('sends a batch when the oldest event has lingered long enough, with ids and times filled in', () => {
  const { client, gateway, clock } = setting({ lingerMs: 50 });
  client.track(click);
  clock.advance(30);
  client.track({ ...click, eventId: 'mine' });
  clock.advance(19);
  assert.is(gateway.streams.length, 0);
  clock.advance(1);
  gateway.last.limits();
  const [batch] = gateway.last.sent;
  const [first, second] = eventsOf(batch?.bytes);
  assert.match(first?.eventId ?? '', /^[0-9a-f]{8}-[0-9a-f]{4}-7/);
  assert.is(first?.occurredAt?.seconds, 1_767_225_600n);
  assert.is(second?.eventId, 'mine');
  assert.match(batch?.batchId ?? '', /^[0-9a-f-]{36}$/);
});

test('while the gateway does not keep up, batches grow instead of becoming many', () => {
  const { client, gateway, clock } = setting({ lingerMs: 10, maxBatchesInFlight: 1 });
  client.track(click);
  clock.advance(10);
  gateway.last.limits();
  for (let i = 0; i < 20; i++) {
    client.track(click);
    clock.advance(10);
  }
  assert.is(gateway.last.sent.length, 1);
  assert.is(client.stats().pending, 21);
  gateway.last.accept(gateway.last.sent[0]);
  assert.is(gateway.last.sent.length, 2);
  assert.is(eventsOf(gateway.last.sent[1]?.bytes).length, 20);
});

test('a backlog of an outage is few large batches, however small batches are while the gateway keeps up', () => {
  const { client, gateway, clock } = setting({ lingerMs: 10, batchEvents: 1 });
  client.track(click);
  gateway.last.limits();
  client.track(click);
  assert.is(gateway.last.sent.length, 2);
  gateway.last.end('unavailable');
  for (let i = 0; i < 5_000; i++) client.track(click);
  clock.advance(5_000);
  gateway.last.limits();
  for (let i = 0; i < 4; i++) gateway.last.accept(gateway.last.sent[i]);
  assert.is(
    gateway.last.sent.reduce((sum, { bytes }) => sum + eventsOf(bytes).length, 0),
    5_002,
  );
  assert.ok(gateway.last.sent.length <= 4, `${gateway.last.sent.length} batches`);
  client.track(click);
  assert.is(eventsOf(gateway.last.sent.at(-1)?.bytes).length, 1);
});

test('an event that closes the batch before it, and begins the next, is sent in time, too', () => {
  const { client, gateway, clock } = setting({ lingerMs: 10, batchBytes: 1_000 });
  client.track({ ...click, name: 'n'.repeat(600) });
  client.track({ ...click, name: 'n'.repeat(600) });
  gateway.last.limits();
  assert.is(gateway.last.sent.length, 1);
  clock.advance(10);
  assert.is(gateway.last.sent.length, 2);
});

test('takes no more when the buffer is full, and ready resolves when it has emptied by a quarter', async () => {
  const { client, gateway } = setting({ maxBufferBytes: 64 * 1024, batchBytes: 8 * 1024 });
  let taken = 0;
  while (client.track({ ...click, name: 'n'.repeat(100) })) taken++;
  assert.ok(taken > 200 && taken < 1_000);
  assert.is(client.stats().turnedAway, 1);
  assert.ok(client.stats().pendingBytes < 65 * 1024);
  let room: boolean | undefined;
  const ready = client.ready().then((answer) => {
    room = answer;
  });
  gateway.last.limits();
  gateway.last.accept(gateway.last.sent[0]);
  await Promise.resolve();
  assert.is(room, undefined);
  gateway.last.accept(gateway.last.sent[1]);
  gateway.last.accept(gateway.last.sent[2]);
  await ready;
  assert.ok(room);
  assert.ok(client.track(click));
  assert.ok(await client.ready());
});

test('an event that cannot be encoded, or is too large, is reported and counted, not thrown', () => {
  const { client, rejected } = setting();
  assert.ok(client.track({ ...click, name: 5 as never }));
  assert.ok(client.track({ ...click, properties: { large: 'x'.repeat(2_000_000) } }));
  assert.ok(client.track(undefined as never));
  assert.equal(
    rejected.map(({ code }) => code),
    ['invalid_event', 'event_too_large', 'invalid_event'],
  );
  assert.is(rejected[0]?.message, 'event without an eventId: name: expected a string, got number 5');
  assert.match(rejected[1]?.message ?? '', /^event without an eventId: the event has \d+ bytes/);
  client.track({ ...click, eventId: 'e-1', properties: { qty: 2 as never } });
  assert.is(rejected[3]?.message, 'event "e-1": properties[qty]: expected a string, got number 2');
  const { tracked, pending, rejected: count } = client.stats();
  assert.equal({ tracked, pending, count }, { tracked: 4, pending: 0, count: 4 });
});

test('a callback that throws stops nothing', async () => {
  const { client, gateway } = setting({
    onRejected: () => {
      throw new Error('host');
    },
    onError: () => {
      throw new Error('host');
    },
  });
  client.track({ ...click, name: 5 as never });
  client.track(click);
  const flushed = client.flush();
  gateway.last.end('unavailable');
  assert.is(client.stats().rejected, 1);
  const closed = client.close({ timeoutMs: 0 });
  void flushed;
  await Promise.resolve();
  assert.not(client.track(click));
  void closed;
});

test('with durability committed, rejections are reported when known, the rest is delivered with the commit', async () => {
  const { client, gateway, clock, rejected } = setting({ batchEvents: 3, durability: 'committed' });
  let accept: ((id: string) => void) | undefined;
  const real = gateway.open.bind(gateway);
  gateway.open = (events) => {
    accept = (id) =>
      events.onAccepted(id, {
        accepted: 2,
        rejected: 1,
        rejections: [{ index: 1, field: 'name', code: 'TOO_LONG', message: 'too long' }],
        position: { shard: 3, sequence: 9n },
      });
    return real(events);
  };
  for (const eventId of ['a', 'b', 'c']) client.track({ ...click, eventId });
  gateway.last.limits();
  accept?.(gateway.last.sent[0]?.batchId ?? '');
  assert.is(rejected.length, 1);
  const { delivered, accepted, committed, pending } = client.stats();
  assert.equal({ delivered, accepted, committed, pending }, { delivered: 0, accepted: 2, committed: 0, pending: 3 });
  gateway.last.commit(9, 3);
  assert.is(client.stats().delivered, 2);
  assert.is(client.stats().committed, 2);
  assert.is(client.stats().pendingBytes, 0);
  // What is given up at the end, and was accepted, is told apart.
  for (const eventId of ['d', 'e', 'f']) client.track({ ...click, eventId });
  accept?.(gateway.last.sent[1]?.batchId ?? '');
  gateway.last.end('unavailable');
  assert.is(rejected.length, 2);
  const closing = client.close({ timeoutMs: 50 });
  await Promise.resolve();
  await Promise.resolve();
  clock.advance(60);
  assert.equal((await closing).undelivered, { events: 3, batches: 1, accepted: 2 });
});

test('events that the gateway refuses are reported with the event itself; the others count as delivered', () => {
  const { client, gateway, rejected } = setting({ batchEvents: 3 });
  let accept: ((id: string) => void) | undefined;
  const real = gateway.open.bind(gateway);
  gateway.open = (events) => {
    accept = (id) =>
      events.onAccepted(id, {
        accepted: 2,
        rejected: 1,
        rejections: [{ index: 1, field: 'name', code: 'TOO_LONG', message: 'too long' }],
        position: { shard: 0, sequence: 1n },
      });
    return real(events);
  };
  for (const eventId of ['a', 'b', 'c']) client.track({ ...click, eventId });
  gateway.last.limits();
  accept?.(gateway.last.sent[0]?.batchId ?? '');
  assert.is(rejected[0]?.events, 1);
  assert.is(rejected[0]?.rejections[0]?.event?.eventId, 'b');
  assert.is(client.stats().delivered, 2);
  assert.is(client.stats().rejected, 1);
});

test('flush sends at once and resolves when all of it is acknowledged', async () => {
  const { client, gateway } = setting();
  await client.flush();
  client.track(click);
  let done = false;
  const flush = client.flush().then(() => {
    done = true;
  });
  gateway.last.limits();
  await Promise.resolve();
  assert.not(done);
  client.track(click);
  gateway.last.accept(gateway.last.sent[0]);
  await flush;
  assert.is(client.stats().pending, 1);
});

test('close delivers what it can, gives up the rest after its time and reports both', async () => {
  const { client, gateway, clock } = setting({ batchEvents: 2 });
  for (let i = 0; i < 5; i++) client.track(click);
  gateway.last.limits();
  const closing = client.close({ timeoutMs: 1_000 });
  assert.not(client.track(click));
  assert.not(await client.ready());
  gateway.last.accept(gateway.last.sent[0]);
  for (let i = 0; i < 5; i++) await Promise.resolve();
  clock.advance(1_000);
  const report = await closing;
  assert.equal(report, { delivered: 2, rejected: 0, undelivered: { events: 3, batches: 1, accepted: 0 } });
  assert.is(await client.close(), report);
  assert.is(clock.timers, 0);
});

test('close with all acknowledged does not wait for its time-out', async () => {
  const { client, gateway, clock } = setting();
  client.track(click);
  const closing = client.close();
  for (let i = 0; i < 5; i++) await Promise.resolve();
  gateway.last.limits();
  gateway.last.accept(gateway.last.sent[0]);
  assert.equal(await closing, { delivered: 1, rejected: 0, undelivered: { events: 0, batches: 0, accepted: 0 } });
  assert.is(clock.timers, 0);
});

test('options are checked, and the message names the option but never the key', () => {
  const bad = (options: Partial<SluiceClientOptions>, message: RegExp): void => {
    assert.throws(() => setting(options), message);
  };
  bad({ baseUrl: 'localhost:7070' }, /^baseUrl|baseUrl: give/);
  bad({ baseUrl: 'nonsense' }, /baseUrl: give/);
  bad({ key: '' }, /key: give/);
  assert.throws(
    () => setting({ key: 'se cret' }),
    (error: Error) => error.message.startsWith('key:') && !error.message.includes('cret'),
  );
  bad({ lingerMs: -1 }, /lingerMs: give a number from 0/);
  bad({ batchEvents: Number.NaN }, /batchEvents: give/);
});

test('the version told to gateways is that of package.json', () => {
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
    version: string;
  };
  assert.is(clientVersion, version);
});

test('close waits for as long as it may, and takes what is no time for its default', async () => {
  for (const [timeoutMs, least] of [
    [Number.POSITIVE_INFINITY, 2 ** 31 - 1],
    [2 ** 31, 2 ** 31 - 1],
    [Number.NaN, 10_000],
    ['2000' as never, 10_000],
    [-1, 0],
  ] as const) {
    const waits: number[] = [];
    const clock = createManualClock();
    const { client, gateway } = setting({
      clock: {
        ...clock,
        after: (ms, run) => {
          waits.push(ms);
          return clock.after(ms, run);
        },
      },
    });
    client.track(click);
    const report = client.close({ timeoutMs });
    await Promise.resolve();
    assert.ok(waits.includes(least), `${timeoutMs}: ${waits}`);
    gateway.last.limits();
    gateway.last.accept(gateway.last.sent[0]);
    assert.is((await report).delivered, 1);
  }
});

test('whatever a getter of an event does or throws, track does not throw, and no other event is harmed', () => {
  const { client, gateway, rejected } = setting({ batchEvents: 3 });
  client.track({ ...click, eventId: 'first' });
  const throws = (thrown: unknown) => ({
    ...click,
    get userId(): string {
      throw thrown;
    },
  });
  const shy = new Error();
  Object.defineProperty(shy, 'message', {
    get: () => {
      throw new Error('again');
    },
  });
  for (const thrown of [Object.create(null), shy, undefined, Symbol('s')]) assert.ok(client.track(throws(thrown)));
  assert.is(rejected.length, 4);
  const tracks = {
    ...click,
    eventId: 'outer',
    get userId(): string {
      client.track({ ...click, eventId: 'inner' });
      void client.flush();
      return 'u';
    },
  };
  client.track(tracks);
  assert.match(rejected[4]?.message ?? '', /"inner": a getter of another event tracks it/);
  client.track({ ...click, eventId: 'last' });
  gateway.last.limits();
  assert.equal(
    eventsOf(gateway.last.sent[0]?.bytes).map(({ eventId }) => eventId),
    ['first', 'outer', 'last'],
  );
});

test('an address with a query, a fragment or a password is refused, and the password is not shown', () => {
  for (const [baseUrl, message] of [
    ['http://u:pass@127.0.0.1:1', /user and password/],
    ['http://127.0.0.1:1/?a=b', /"\?" or "#"/],
    ['http://127.0.0.1:1/#a', /"\?" or "#"/],
  ] as const) {
    try {
      new SluiceClient({ baseUrl, key: 'k' });
      assert.unreachable(baseUrl);
    } catch (error) {
      assert.match(String(error), message);
      assert.not.match(String(error), /pass@/);
    }
  }
});

test.run();

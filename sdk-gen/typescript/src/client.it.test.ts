import { Code, ConnectError } from '@connectrpc/connect';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ErrorInfoSchema, RetryInfoSchema } from '../gen/google/rpc/error_details_pb.js';
import { EventType } from '../gen/sluice/event/v1/event_pb.js';
import type { PublishStreamRequest } from '../gen/sluice/ingest/v1/ingest_pb.js';
import { SluiceClient } from './client.js';
import type { SluiceClientOptions } from './options.js';
import { accepted, limits, type Peer, type Script, withPeer } from './testing/peer.js';

/** What a peer has taken: acknowledged batches by id, and every arrival. */
class Ledger {
  readonly arrivals: { readonly batchId: string; readonly attempt: number }[] = [];
  readonly ids = new Map<string, string[]>();

  take(request: PublishStreamRequest): void {
    this.arrivals.push({ batchId: request.batchId, attempt: request.attempt });
  }

  keep(request: PublishStreamRequest): void {
    this.ids.set(request.batchId, request.batch?.events.map(({ eventId }) => eventId) ?? []);
  }

  /** Every event once, and attempts of a batch that only grow. */
  check(events: number): void {
    const all = [...this.ids.values()].flat();
    assert.is(new Set(all).size, all.length);
    assert.is(all.length, events);
    const last = new Map<string, number>();
    for (const { batchId, attempt } of this.arrivals) {
      assert.ok(
        attempt > (last.get(batchId) ?? 0),
        `${batchId} came with attempt ${attempt} after ${last.get(batchId)}`,
      );
      last.set(batchId, attempt);
    }
  }
}

const fast = { batchEvents: 50, lingerMs: 5, retryBaseMs: 10, retryCapMs: 100, refusalGraceMs: 100 };

async function withClient(
  script: Script,
  options: Partial<SluiceClientOptions>,
  use: (client: SluiceClient, peer: Peer) => Promise<void>,
): Promise<void> {
  await withPeer(script, async (peer) => {
    const client = new SluiceClient({ baseUrl: peer.url, key: 'test-key', ...fast, ...options });
    try {
      await use(client, peer);
    } finally {
      await client.close({ timeoutMs: 0 });
    }
  });
}

async function fill(client: SluiceClient, events: number): Promise<void> {
  for (let i = 0; i < events; i++) {
    while (!client.track({ type: EventType.CLICK, touch: { channel: 'email' }, name: `n${i}` })) await client.ready();
  }
}

test('streams thousands of events with the key, and every one arrives once', async () => {
  const ledger = new Ledger();
  const seen = { authorization: '', userAgent: '' };
  await withClient(
    async function* (requests, context) {
      seen.authorization = context.requestHeader.get('authorization') ?? '';
      seen.userAgent = context.requestHeader.get('user-agent') ?? '';
      yield limits;
      for await (const request of requests) {
        ledger.take(request);
        ledger.keep(request);
        assert.ok(request.sentAt !== undefined);
        yield accepted(request);
      }
    },
    {},
    async (client) => {
      await fill(client, 5_000);
      const report = await client.close();
      assert.equal(report, { delivered: 5_000, rejected: 0, undelivered: { events: 0, batches: 0, accepted: 0 } });
      assert.is(client.stats().connections, 1);
    },
  );
  ledger.check(5_000);
  assert.ok(ledger.arrivals.every(({ attempt }) => attempt === 1));
  assert.is(seen.authorization, 'Bearer test-key');
  assert.is(seen.userAgent, 'sluice-node/0.1.0');
});

test('a peer that fails, forgets, drains and disconnects at random gets every event in the end, and no attempt twice', async () => {
  const ledger = new Ledger();
  let seed = 3;
  const dice = (): number => {
    seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fffffff;
    return seed / 2 ** 31;
  };
  const codes = new Set<string>();
  await withClient(
    async function* (requests) {
      yield limits;
      for await (const request of requests) {
        ledger.take(request);
        const roll = dice();
        if (roll < 0.6) {
          ledger.keep(request);
          yield accepted(request);
        } else if (roll < 0.7) {
          // Durable, but the answer is lost with the stream.
          ledger.keep(request);
          throw new ConnectError('lost', Code.Unavailable);
        } else if (roll < 0.8) {
          const value = { batchId: request.batchId, code: Code.ResourceExhausted, retryAfter: { nanos: 5_000_000 } };
          yield { message: { case: 'failed', value } };
        } else if (roll < 0.85) {
          yield { message: { case: 'draining', value: { reason: 'test' } } };
        } else if (roll < 0.9) {
          return;
        } else {
          // Neither taken nor answered until the stream ends.
        }
      }
    },
    { ackTimeoutMs: 300, batchBytes: 1_500, onError: (error) => codes.add(error.code) },
    async (client) => {
      await fill(client, 4_000);
      await client.flush();
      const { delivered, rejected, pending, retries, connections } = client.stats();
      assert.equal({ delivered, rejected, pending }, { delivered: 4_000, rejected: 0, pending: 0 });
      assert.ok(retries > 5 && connections > 5);
    },
  );
  ledger.check(4_000);
  assert.ok(codes.has('unavailable'));
});

test('survives a gateway that is gone for a while', async () => {
  const ledger = new Ledger();
  await withClient(
    async function* (requests) {
      yield limits;
      for await (const request of requests) {
        ledger.take(request);
        ledger.keep(request);
        yield accepted(request);
      }
    },
    {},
    async (client, peer) => {
      await fill(client, 500);
      await client.flush();
      await peer.stop();
      await fill(client, 500);
      const flushed = client.flush();
      while (client.stats().connections < 3) await new Promise((resolve) => setTimeout(resolve, 5));
      assert.is(client.stats().pending, 500);
      await peer.restart();
      await flushed;
      assert.is(client.stats().delivered, 1_000);
    },
  );
  ledger.check(1_000);
});

test('honours RetryInfo when a stream is refused', async () => {
  let first = 0;
  let second = 0;
  await withClient(
    async function* (requests, _context, number) {
      if (number === 0) {
        first = performance.now();
        const detail = { desc: RetryInfoSchema, value: { retryDelay: { nanos: 300_000_000 } } };
        throw new ConnectError('busy', Code.ResourceExhausted, undefined, [detail]);
      }
      second = performance.now();
      yield limits;
      for await (const request of requests) yield accepted(request);
    },
    {},
    async (client) => {
      await fill(client, 1);
      await client.flush();
      assert.ok(second - first >= 290, `came back after ${second - first} ms`);
    },
  );
});

test('a refused key rejects what waits, and neither throws nor hangs', async () => {
  const rejected: { code: string; events: number }[] = [];
  await withClient(
    // biome-ignore lint/correctness/useYield: it refuses before it answers anything.
    async function* () {
      const detail = { desc: ErrorInfoSchema, value: { reason: 'key_unknown', domain: 'sluice' } };
      throw new ConnectError('The key is not known.', Code.Unauthenticated, undefined, [detail]);
    },
    { onRejected: ({ code, events }) => rejected.push({ code, events }) },
    async (client) => {
      await fill(client, 10);
      await client.flush();
      assert.equal(rejected, [{ code: 'unauthenticated', events: 10 }]);
      assert.is(client.stats().rejected, 10);
    },
  );
});

test('a status that no gateway signed is tried again for as long as it takes, and told', async () => {
  const rejected: unknown[] = [];
  const codes = new Set<string>();
  const bare = [Code.Unauthenticated, Code.PermissionDenied, Code.Unimplemented, Code.InvalidArgument, Code.Internal];
  await withClient(
    async function* (requests, _context, number) {
      if (number < 30) throw new ConnectError('a proxy', bare[number % bare.length]);
      yield limits;
      for await (const request of requests) yield accepted(request);
    },
    { refusalGraceMs: 0, onRejected: (one) => rejected.push(one), onError: ({ code }) => codes.add(code) },
    async (client) => {
      await fill(client, 10);
      await client.flush();
      assert.is(client.stats().delivered, 10);
    },
  );
  assert.equal(rejected, []);
  assert.is(codes.size, bare.length);
});

test('a gateway that never answers fills the buffer and no more; close gives up in time and says what was left', async () => {
  await withClient(
    async function* (requests) {
      yield limits;
      for await (const _request of requests) {
        // Reads, and says nothing.
      }
    },
    { maxBufferBytes: 64 * 1024, batchBytes: 4 * 1024 },
    async (client) => {
      let taken = 0;
      while (client.track({ type: EventType.CLICK, name: 'n'.repeat(100) })) taken++;
      assert.ok(client.stats().pendingBytes < 80 * 1024);
      const before = performance.now();
      const report = await client.close({ timeoutMs: 100 });
      assert.ok(performance.now() - before < 2_000);
      assert.is(report.undelivered.events, taken);
      assert.is(report.delivered, 0);
    },
  );
});

test('a broken stream or an unreachable port never becomes an unhandled rejection', async () => {
  const unhandled: unknown[] = [];
  const listener = (reason: unknown): void => {
    unhandled.push(reason);
  };
  process.on('unhandledRejection', listener);
  try {
    await withClient(
      async function* (requests) {
        yield limits;
        for await (const request of requests) yield accepted(request);
      },
      {},
      async (client, peer) => {
        for (let i = 0; i < 5; i++) {
          await fill(client, 20);
          peer.disconnect();
          await new Promise((resolve) => setTimeout(resolve, 10));
        }
        await client.flush();
        await peer.stop();
        await fill(client, 20);
        await client.close({ timeoutMs: 50 });
      },
    );
    await new Promise((resolve) => setImmediate(resolve));
    assert.equal(unhandled, []);
  } finally {
    process.off('unhandledRejection', listener);
  }
});

test.run();

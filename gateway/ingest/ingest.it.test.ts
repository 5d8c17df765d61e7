/** The ingest core on a real nats-server, in fair weather and at its limits. Stalls and crashes: ingest-faults. */
import { toBinary } from '@bufbuild/protobuf';
import { jetstreamManager } from '@nats-io/jetstream';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { EventBatchSchema } from '#gen/sluice/event/v1/event_pb.js';
import { contractRevision } from '../../lib/contract/index.js';
import { SluiceError } from '../../lib/errors.js';
import { generationOf } from '../../lib/log-streams.js';
import { silentLogger } from '../../lib/logger.js';
import { connectNats } from '../../lib/nats.js';
import { shardStream } from '../../lib/subjects.js';
import { createRandom, encodeBatch, makeBatch } from '../../lib/testing/batches.js';
import { freeze } from '../../lib/testing/freeze.js';
import { withNats } from '../../lib/testing/nats.js';
import { until } from '../../lib/testing/until.js';
import { MiB } from '../../lib/units.js';
import { createGatewayMetrics } from '../metrics.js';
import {
  assertAllStored,
  ingestConfig,
  ingestInput,
  largeBatch,
  outcomes,
  smallBatch,
  stored,
  withIngest,
} from '../testing/ingest.js';
import { followHints } from './committed-hints.js';
import { createIngest } from './ingest.js';

test('INGEST-6: what the log puts where ClickHouse has something already is not accepted, and puts the shard in doubt', async () => {
  await withNats(async (nats) => {
    await withIngest(nats, { shards: 1 }, async ({ ingest }) => {
      const { commits } = ingest;
      const doubted: string[] = [];
      const stream = commits.follow('acme', { committed: () => {}, doubted: (ids) => doubted.push(...ids) });
      const jsm = await jetstreamManager(nats.nc);
      const generation = generationOf(await jsm.streams.info(shardStream(0)));
      const first = await ingest.publish(ingestInput('b-1'));
      assert.ok(first.position);
      stream.accepted('b-1', first.position, () => {});
      // The log had three messages, ClickHouse has them, and then the log lost power.
      assert.ok(commits.hint(0, generation, 0));
      assert.is(commits.lastAcked(0), 1);
      stream.accepted('lost', { ...first.position, sequence: 9n }, () => {});
      assert.ok(commits.hint(0, generation, 3));
      for (const id of ['b-2', 'b-3']) {
        const error = await ingest.publish(ingestInput(id)).catch((reason: unknown) => reason);
        assert.instance(error, SluiceError);
        assert.is((error as SluiceError).code, 'outcome_unknown');
        assert.ok((error as SluiceError).outcomeUnknown);
      }
      assert.equal(doubted, ['lost']);
      // Its retries lift the log over what ClickHouse knows.
      const { position } = await ingest.publish(ingestInput('b-2', smallBatch, { attempt: 2 }));
      assert.is(position?.sequence, 4n);
      assert.is(stream.uncommitted, 0);
      // COMMIT-2: the doubt comes after the ack, and before the stream hears of it.
      const told = await ingest.publish(ingestInput('b-5'));
      commits.doubt('the stream has another leader', 0);
      assert.ok(told.position);
      stream.accepted('b-5', told.position, () => {});
      assert.equal(doubted, ['lost', 'b-5']);
    });
  });
});

test('INGEST-6: a stream that another gateway made again is seen as such, though no worker speaks of it', async () => {
  await withNats(async (nats) => {
    await withIngest(nats, { shards: 1 }, async ({ ingest, nc }) => {
      const { commits } = ingest;
      const leave = followHints(nc, commits, silentLogger);
      const jsm = await jetstreamManager(nats.nc);
      const old = await jsm.streams.info(shardStream(0));
      assert.ok((await ingest.publish(ingestInput('b-1'))).position);
      assert.ok(commits.hint(0, generationOf(old), 1_000_000_000));
      await jsm.streams.delete(shardStream(0));
      // As a gateway makes it: the description, which is of the old one, does not come along.
      const { description: _, ...config } = old.config;
      await jsm.streams.add(config);
      // Workers do not load it before it is accepted; until then their word cannot help.
      const refused = await ingest.publish(ingestInput('b-2')).catch((reason: unknown) => reason);
      assert.is((refused as SluiceError).code, 'outcome_unknown');
      await until('it is known', () => commits.lastCommitted(0) === 0);
      assert.is((await ingest.publish(ingestInput('b-2', smallBatch, { attempt: 2 }))).position?.sequence, 2n);
      leave();
    });
  });
});

test('a batch arrives as a StoredBatch with its metadata and the very bytes of its events', async () => {
  await withNats(async (nats) => {
    await withIngest(nats, {}, async ({ ingest }) => {
      const before = Date.now();
      const result = await ingest.publish(
        ingestInput('b-1', largeBatch, {
          sentAt: { seconds: 1_767_225_600n, nanos: 5 },
          traceparent: `00-${'0af7'.repeat(8)}-${'b7ad'.repeat(4)}-01`,
          client: 'sluice-node/0.1.0',
          attempt: 3,
        }),
      );
      assert.is(result.accepted, 500);
      assert.is(result.rejected, 0);
      assert.is(result.batchId, 'b-1');
      const [message] = await stored(nats);
      const [batch] = message?.batches ?? [];
      assert.ok(message && batch);
      const { stream, shard, sequence } = result.position ?? {};
      assert.equal([stream, shard, sequence], [message.stream, Number(message.stream.slice(3)), 1n]);
      assert.is(batch.tenant, 'acme');
      assert.is(batch.batchId, 'b-1');
      assert.is(batch.attempt, 3);
      assert.is(batch.eventCount, 500);
      assert.is(batch.contract, contractRevision);
      assert.is(batch.client, 'sluice-node/0.1.0');
      assert.is(batch.sentAt?.seconds, 1_767_225_600n);
      assert.ok(Number(batch.receivedAt?.seconds) * 1000 + 1000 > before);
      const events = toBinary(EventBatchSchema, { $typeName: 'sluice.event.v1.EventBatch', events: batch.events });
      assert.ok(Buffer.from(events).equals(largeBatch));
      const jsm = await jetstreamManager(nats.nc);
      const raw = await jsm.streams.getMessage(message.stream, { seq: 1 });
      assert.ok(
        raw && Buffer.from(raw.data).subarray(-largeBatch.length).equals(largeBatch),
        'unchanged bytes at the end',
      );
      assert.is(raw.subject, `ev.${result.position?.shard}.acme`);
    });
  });
});

test('a batch without an id gets one, and is of the first attempt whatever its sender says', async () => {
  await withNats(async (nats) => {
    await withIngest(nats, {}, async ({ ingest }) => {
      const result = await ingest.publish(ingestInput('', smallBatch, { attempt: 0 }));
      assert.match(result.batchId, /^[\da-f]{8}-[\da-f]{4}-4[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/);
      await assertAllStored(nats, [result]);
      assert.equal(
        (await stored(nats)).flatMap(({ batches }) => batches.map(({ attempt }) => attempt)),
        [1],
      );
    });
  });
});

test('small batches share messages, large ones do not, and each is stored once', async () => {
  await withNats(async (nats) => {
    await withIngest(nats, {}, async ({ ingest, gauges }) => {
      const ids = Array.from({ length: 4_000 }, (_, i) => `s-${i}`);
      const { acked, failed } = await outcomes(ids.map((id) => ingest.publish(ingestInput(id))));
      assert.is(failed.length, 0, failed[0]?.message ?? '');
      assert.is(acked.length, ids.length);
      await assertAllStored(nats, acked);
      const messages = await stored(nats);
      assert.equal(messages.flatMap(({ batches }) => batches.map((batch) => batch.batchId)).toSorted(), ids.toSorted());
      assert.ok(messages.length < ids.length / 20, `${messages.length} messages`);
      const { acked: two } = await outcomes([
        ingest.publish(ingestInput('l-1', largeBatch)),
        ingest.publish(ingestInput('l-2', largeBatch)),
      ]);
      assert.is(new Set(two.map(({ position }) => `${position?.stream}/${position?.sequence}`)).size, 2);
      assert.is(gauges.bytesInFlight(), 0);
    });
  });
});

test('buffers that are used again mix nothing up: every batch of many keeps its own bytes', async () => {
  await withNats(async (nats) => {
    await withIngest(nats, { publishWindow: 8 }, async ({ ingest }) => {
      const random = createRandom(9);
      const sent = new Map<string, Uint8Array>();
      for (let i = 0; i < 300; i++)
        sent.set(`m-${i}`, encodeBatch(makeBatch(random, i % 3 === 0 ? 230 : 1 + (i % 20))));
      // A second wave, when the first has given its buffers back.
      for (const wave of [0, 1]) {
        const ids = [...sent.keys()].filter((_, i) => i % 2 === wave);
        const { acked } = await outcomes(ids.map((id) => ingest.publish(ingestInput(id, sent.get(id) as Uint8Array))));
        assert.is(acked.length, ids.length);
      }
      let compared = 0;
      for (const { batchId, events } of (await stored(nats)).flatMap(({ batches }) => batches)) {
        const bytes = toBinary(EventBatchSchema, { $typeName: 'sluice.event.v1.EventBatch', events });
        assert.ok(Buffer.from(bytes).equals(sent.get(batchId) as Uint8Array), batchId);
        compared++;
      }
      assert.is(compared, 300);
    });
  });
});

test('no more publishes are in flight than the window allows', async () => {
  await withNats(async (nats) => {
    await withIngest(nats, { publishWindow: 4 }, async ({ ingest, gauges }) => {
      let max = 0;
      let maxQueued = 0;
      const watch = setInterval(() => {
        max = Math.max(max, gauges.publishesInFlight());
        maxQueued = Math.max(maxQueued, gauges.publishesQueued());
      }, 0);
      const promises = Array.from({ length: 200 }, (_, i) => ingest.publish(ingestInput(`w-${i}`, largeBatch)));
      max = Math.max(max, gauges.publishesInFlight());
      assert.is(gauges.publishesQueued(), 196);
      const { acked } = await outcomes(promises);
      clearInterval(watch);
      assert.is(acked.length, 200);
      assert.is(max, 4);
      assert.ok(maxQueued > 0);
    });
  });
});

test('a full log says so, and what it had acknowledged is all there', async () => {
  await withNats(async (nats) => {
    await withIngest(nats, { shardMaxBytes: MiB }, async ({ ingest, gauges }) => {
      const { acked, failed } = await outcomes(
        Array.from({ length: 60 }, (_, i) => ingest.publish(ingestInput(`f-${i}`, largeBatch))),
      );
      assert.ok(acked.length > 10, `${acked.length} acked`);
      assert.ok(failed.length > 10, `${failed.length} failed`);
      for (const error of failed) {
        assert.is(error.code, 'log_full');
        assert.ok((error.retryAfterMs ?? 0) > 0);
        assert.not(error.outcomeUnknown);
      }
      await assertAllStored(nats, acked);
      assert.is((await stored(nats)).length, acked.length, 'what was refused is not stored');
      assert.is(gauges.bytesInFlight(), 0);
    });
  });
});

test('work above the bound is refused with a delay, or waits for room', async () => {
  await withNats(async (nats) => {
    await withIngest(nats, { maxBytesInFlight: 4 * MiB, maxTenantBytesInFlight: MiB }, async ({ ingest, gauges }) => {
      const { acked, failed } = await outcomes(
        Array.from({ length: 40 }, (_, i) => ingest.publish(ingestInput(`o-${i}`, largeBatch))),
      );
      assert.ok(acked.length >= 10 && failed.length >= 10);
      for (const error of failed) assert.is(error.code, 'overloaded');
      assert.ok(failed.every(({ retryAfterMs }) => (retryAfterMs ?? 0) > 0));
      const patient = Array.from({ length: 100 }, async (_, i) => {
        await ingest.room('acme', largeBatch.length, new AbortController().signal);
        return ingest.publish(ingestInput(`p-${i}`, largeBatch));
      });
      const all = await outcomes(patient);
      assert.is(all.failed.length, 0);
      assert.is(gauges.bytesInFlight(), 0);
    });
  });
});

test('a deadline that passes is reported, unsent work is dropped, and its room is given back', async () => {
  await withNats(async (nats) => {
    await withIngest(nats, { publishWindow: 1 }, async ({ ingest, gauges }) => {
      await ingest.publish(ingestInput('d-0'));
      await freeze(nats.process());
      const deadlineAt = Date.now() + 500;
      const sent = ingest.publish(ingestInput('d-1', largeBatch, { deadlineAt }));
      const unsent = ingest.publish(ingestInput('d-2', largeBatch, { deadlineAt }));
      const { failed } = await outcomes([sent, unsent]);
      assert.equal(
        failed.map(({ code, outcomeUnknown }) => [code, outcomeUnknown]),
        [
          ['deadline', true],
          ['deadline', false],
        ],
      );
      assert.ok(gauges.bytesInFlight() > largeBatch.length, 'the sent one is still held');
      nats.process().kill('SIGCONT');
      await until('released', () => gauges.bytesInFlight() === 0);
      const ids = (await stored(nats)).flatMap(({ batches }) => batches.map(({ batchId }) => batchId));
      assert.equal(ids.toSorted(), ['d-0', 'd-1']);
      const { failed: late } = await outcomes([
        ingest.publish(ingestInput('d-3', smallBatch, { deadlineAt: Date.now() - 1 })),
      ]);
      assert.is(late[0]?.code, 'deadline');
      assert.is(late[0]?.outcomeUnknown, false);
    });
  });
});

test('what is too large or badly named is refused before anything is held', async () => {
  await withNats(async (nats) => {
    await withIngest(nats, { maxBatchBytes: 4_096, maxBatchEvents: 10_000 }, async ({ ingest, gauges }) => {
      const codes = await outcomes([
        ingest.publish(ingestInput('x', largeBatch)),
        ingest.publish(ingestInput('has space')),
        ingest.publish(ingestInput('é')),
        ingest.publish(ingestInput('b'.repeat(65))),
        ingest.publish(ingestInput('x', new Uint8Array([0x0a, 0x7f, 0x00]))),
      ]);
      assert.equal(
        codes.failed.map(({ code }) => code),
        ['batch_too_large', 'batch_id_invalid', 'batch_id_invalid', 'batch_id_invalid', 'batch_malformed'],
      );
      assert.is(gauges.bytesInFlight(), 0);
    });
  });
});

test('invalid events are reported and only the valid rest is stored', async () => {
  await withNats(async (nats) => {
    await withIngest(nats, {}, async ({ ingest }) => {
      const batch = makeBatch(createRandom(3), 4);
      for (const event of batch.events.slice(1, 3)) event.eventId = '';
      const result = await ingest.publish(ingestInput('r-1', encodeBatch(batch)));
      assert.equal([result.accepted, result.rejected], [2, 2]);
      assert.equal(
        result.rejections.map(({ index, field }) => [index, field]),
        [
          [1, 'event_id'],
          [2, 'event_id'],
        ],
      );
      const [message] = await stored(nats);
      assert.equal(
        message?.batches[0]?.events.map(({ eventId }) => eventId),
        [batch.events[0]?.eventId, batch.events[3]?.eventId],
      );
      assert.is(message?.batches[0]?.rejectedCount, 2);
      for (const event of batch.events) event.eventId = '';
      const none = await ingest.publish(ingestInput('r-2', encodeBatch(batch)));
      assert.equal([none.accepted, none.rejected, none.position], [0, 4, undefined]);
      assert.is((await stored(nats)).length, 1, 'nothing was published');
    });
  });
});

test('reasons of rejections count as held until the log has answered, and a batch whose reasons find no room is refused', async () => {
  await withNats(async (nats) => {
    await withIngest(nats, { maxTenantBytesInFlight: 100_000 }, async ({ ingest, gauges }) => {
      const batch = makeBatch(createRandom(3), 101);
      for (const event of batch.events.slice(1)) event.eventId = '';
      const bytes = encodeBatch(batch);
      await freeze(nats.process());
      const first = ingest.publish(ingestInput('t-1', bytes));
      assert.ok(gauges.bytesInFlight() > bytes.length + 100 * 256, `${gauges.bytesInFlight()} bytes`);
      const later = Array.from({ length: 5 }, (_, i) => ingest.publish(ingestInput(`t-${i + 2}`, bytes)));
      assert.ok(gauges.bytesInFlight() <= 100_000, `${gauges.bytesInFlight()} bytes`);
      const waiting = outcomes(later);
      nats.process().kill('SIGCONT');
      assert.is((await first).rejections.length, 100);
      const { failed } = await waiting;
      assert.ok(failed.length >= 2);
      for (const { code } of failed) assert.is(code, 'overloaded');
      assert.is(gauges.bytesInFlight(), 0);
    });
  });
});

test('a server with a small payload limit is named as the reason, with the fix', async () => {
  await withNats(async (nats) => {
    const connecting = connectNats({ servers: nats.url, name: 'test', logger: silentLogger });
    const ingest = createIngest({
      nats: connecting,
      config: { ...ingestConfig, maxBatchBytes: 16 * MiB },
      metrics: createGatewayMetrics(),
      logger: silentLogger,
    });
    assert.match(ingest.reason ?? '', /not connected/);
    await until('reason', () => /set max_payload/.test(ingest.reason ?? ''));
    assert.not(ingest.ready);
    const { failed } = await outcomes([ingest.publish(ingestInput('n-1'))]);
    assert.is(failed[0]?.code, 'log_unavailable');
    await ingest.drain(0);
    await (await connecting).close();
  });
});

test('a drain refuses new work, sends what is gathered and waits for its acks', async () => {
  await withNats(async (nats) => {
    await withIngest(nats, { coalesceDelay: 1_000, shards: 1 }, async ({ ingest }) => {
      const promises = Array.from({ length: 20 }, (_, i) => ingest.publish(ingestInput(`g-${i}`)));
      await ingest.drain(5_000);
      assert.not(ingest.ready);
      assert.is(ingest.reason, 'draining');
      const { acked } = await outcomes(promises);
      assert.is(acked.length, 20);
      const { failed } = await outcomes([ingest.publish(ingestInput('g-20'))]);
      assert.is(failed[0]?.code, 'draining');
      await assertAllStored(nats, acked);
    });
  });
});

test.run();

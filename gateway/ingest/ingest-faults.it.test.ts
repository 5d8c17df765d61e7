/** The ingest core while nats-server stalls or dies under load: nothing acked is lost, and nothing grows without bound. */
import { jetstreamManager } from '@nats-io/jetstream';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { SluiceError } from '../../lib/errors.js';
import { silentLogger } from '../../lib/logger.js';
import { connectNats } from '../../lib/nats.js';
import { freeze } from '../../lib/testing/freeze.js';
import { withNats } from '../../lib/testing/nats.js';
import { until } from '../../lib/testing/until.js';
import { MiB } from '../../lib/units.js';
import { createGatewayMetrics } from '../metrics.js';
import {
  assertAllStored,
  type IngestSubject,
  ingestConfig,
  ingestInput,
  largeBatch,
  outcomes,
  smallBatch,
  withIngest,
} from '../testing/ingest.js';
import { createIngest, type IngestResult } from './ingest.js';

/** Callers that keep publishing until told to stop, large and small batches mixed. */
function load(subject: IngestSubject, callers: number) {
  const acked: IngestResult[] = [];
  const failed: SluiceError[] = [];
  let running = true;
  let maxHeld = 0;
  let maxInFlight = 0;
  const caller = async (name: number): Promise<void> => {
    for (let i = 0; running; i++) {
      try {
        acked.push(
          await subject.ingest.publish(ingestInput(`c${name}-${i}`, name % 2 === 0 ? largeBatch : smallBatch)),
        );
      } catch (error) {
        if (!(error instanceof SluiceError)) throw error;
        failed.push(error);
        await new Promise((resolve) => setTimeout(resolve, Math.min(error.retryAfterMs ?? 0, 50)));
      }
      maxHeld = Math.max(maxHeld, subject.gauges.bytesInFlight());
      maxInFlight = Math.max(maxInFlight, subject.gauges.publishesInFlight());
    }
  };
  const all = Array.from({ length: callers }, (_, name) => caller(name));
  return {
    acked,
    failed,
    maxHeld: () => maxHeld,
    maxInFlight: () => maxInFlight,
    codes: () => new Set(failed.map(({ code }) => code)),
    async stop() {
      running = false;
      await Promise.all(all);
    },
  };
}

const bounds = { maxBytesInFlight: 4 * MiB, maxTenantBytesInFlight: 4 * MiB, publishTimeout: 500 };

test('a stalled server: held bytes and the window stay bounded, outcomes are answered, nothing acked is missing', async () => {
  await withNats(async (nats) => {
    await withIngest(nats, { ...bounds, publishWindow: 16 }, async (subject) => {
      const work = load(subject, 120);
      await until('acks', () => work.acked.length > 200);
      const before = process.memoryUsage().rss;
      await freeze(nats.process());
      const ackedBefore = work.acked.length;
      const sentBefore = subject.nc.stats().outMsgs;
      // Several times the timeout: without PUB-4 every timeout would let another window into the buffers.
      const end = Date.now() + 4_000;
      await until('the stall', () => Date.now() > end);
      const grown = process.memoryUsage().rss - before;
      nats.process().kill('SIGCONT');
      const ackedMeanwhile = work.acked.length - ackedBefore;
      assert.ok(ackedMeanwhile < 100, 'no acks come from a stopped server');
      const sent = subject.nc.stats().outMsgs - sentBefore;
      assert.ok(sent <= 16 + ackedMeanwhile, `PUB-4: ${sent} messages went into the buffers of a window of 16`);
      await until('acks again', () => work.acked.length > ackedBefore + 500);
      await work.stop();
      assert.ok(work.maxHeld() <= 4 * MiB, `${work.maxHeld()} bytes held`);
      assert.ok(work.maxInFlight() <= 16);
      assert.ok(grown < 64 * MiB, `grew by ${grown} bytes`);
      for (const code of ['outcome_unknown', 'log_unavailable', 'overloaded'] as const) {
        assert.ok(work.codes().has(code), `${code} was answered: ${[...work.codes()].join()}`);
      }
      for (const error of work.failed) {
        assert.is(error.outcomeUnknown, error.code === 'outcome_unknown');
        assert.ok((error.retryAfterMs ?? 0) > 0);
      }
      // The server had read some of those given up: their acks came late and freed their places.
      assert.ok((subject.ends.get('late') ?? 0) > 0);
      await until('idle', () => subject.gauges.bytesInFlight() === 0 && subject.gauges.publishesInFlight() === 0);
      await assertAllStored(nats, work.acked);
    });
  });
});

test('a killed server: batches fail at once, the core recovers by itself, nothing acked is missing', async () => {
  await withNats(async (nats) => {
    await withIngest(nats, { ...bounds, publishTimeout: 10_000 }, async (subject) => {
      const work = load(subject, 40);
      for (let round = 0; round < 3; round++) {
        const sofar = work.acked.length;
        await until('acks', () => subject.ingest.ready && work.acked.length > sofar + 300);
        nats.process().kill('SIGKILL');
        await until('not ready', () => !subject.ingest.ready, 2_000);
        assert.match(subject.ingest.reason ?? '', /NATS is disconnected/);
        const { failed } = await outcomes([subject.ingest.publish(ingestInput('while-down'))]);
        assert.is(failed[0]?.code, 'log_unavailable');
        assert.not(failed[0]?.outcomeUnknown);
        await nats.restart();
        await until('ready', () => subject.ingest.ready);
      }
      const sofar = work.acked.length;
      await until('acks', () => work.acked.length > sofar + 300);
      await work.stop();
      assert.ok(work.codes().has('outcome_unknown') && work.codes().has('log_unavailable'));
      await assertAllStored(nats, work.acked);
    });
  });
});

test('a stream that was deleted is put back', async () => {
  await withNats(async (nats) => {
    await withIngest(nats, { shards: 1 }, async ({ ingest }) => {
      await ingest.publish(ingestInput('before'));
      await (await jetstreamManager(nats.nc)).streams.delete('EV_0');
      const { failed } = await outcomes([ingest.publish(ingestInput('lost'))]);
      assert.is(failed[0]?.code, 'log_unavailable');
      assert.not(failed[0]?.outcomeUnknown);
      await until('ready', () => ingest.ready);
      await assertAllStored(nats, [await ingest.publish(ingestInput('after'))]);
    });
  });
});

test('without NATS the core starts, is not ready, says why, and becomes ready when NATS comes', async () => {
  await withNats(async (nats) => {
    nats.process().kill('SIGKILL');
    const connecting = connectNats({ servers: nats.url, name: 'test', logger: silentLogger });
    const ingest = createIngest({
      nats: connecting,
      config: ingestConfig,
      metrics: createGatewayMetrics(),
      logger: silentLogger,
    });
    const { failed } = await outcomes([ingest.publish(ingestInput('early'))]);
    assert.is(failed[0]?.code, 'log_unavailable');
    assert.match(ingest.reason ?? '', /not connected/);
    await nats.restart();
    await until('ready', () => ingest.ready);
    await assertAllStored(nats, [await ingest.publish(ingestInput('now'))]);
    await ingest.drain(1_000);
    await (await connecting).close();
  });
});

test.run();

/** Messages that have no answer in time are sent once more as retries, within bounds (HEDGE-1 to HEDGE-3), on a real nats-server. */
import { jetstreamManager } from '@nats-io/jetstream';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { silentLogger } from '../../lib/logger.js';
import { connectNats } from '../../lib/nats.js';
import { freeze } from '../../lib/testing/freeze.js';
import { type TestNats, withNats } from '../../lib/testing/nats.js';
import { type SlowLine, withSlowLine } from '../../lib/testing/slow-line.js';
import { until } from '../../lib/testing/until.js';
import { MiB } from '../../lib/units.js';
import { createIngest, type Ingest, type IngestOptions } from '../ingest/ingest.js';
import { createGatewayMetrics } from '../metrics.js';
import { ingestConfig, ingestInput, largeBatch, outcomes, smallBatch, stored } from '../testing/ingest.js';
import { createHedger } from './hedge.js';

interface Subject {
  readonly nats: TestNats;
  readonly line: SlowLine;
  readonly ingest: Ingest;
  /** What became of copies. */
  readonly copies: Readonly<Record<string, number>>;
}

/** A core whose first connection goes over a line that can be held up; the second goes straight to the server. */
async function withHedging(
  changes: Partial<IngestOptions['config']>,
  use: (subject: Subject) => Promise<void>,
): Promise<void> {
  await withNats((nats) =>
    withSlowLine(nats.url, async (line) => {
      const copies: Record<string, number> = {};
      const metrics = {
        ...createGatewayMetrics(),
        hedged: (result: string) => {
          copies[result] = (copies[result] ?? 0) + 1;
        },
      };
      const first = connectNats({ servers: line.url, name: 'first', logger: silentLogger });
      const second = connectNats({ servers: nats.url, name: 'second', logger: silentLogger });
      const config = { ...ingestConfig, shards: 1, ...changes };
      const hedger = createHedger({
        nats: second,
        delayMs: 50,
        payloadBytes: config.coalesceBytes,
        metrics,
        logger: silentLogger,
      });
      const ingest = createIngest({ nats: first, config, metrics, logger: silentLogger, hedger });
      try {
        await until('ready', () => ingest.ready);
        await second;
        await use({ nats, line, ingest, copies });
      } finally {
        line.release();
        await ingest.drain(1_000);
        await Promise.all([(await first).close(), (await second).close()]);
      }
    }),
  );
}

test('HEDGE-1: a message on a slow line is acknowledged by its copy, which says attempt 2; what is a retry already stays as it is', () =>
  withHedging({}, async ({ nats, line, ingest, copies }) => {
    await ingest.publish(ingestInput('before'));
    line.hold();
    const results = await Promise.all([
      ingest.publish(ingestInput('first', largeBatch)),
      ingest.publish(ingestInput('third', largeBatch, { attempt: 3 })),
      ingest.publish(ingestInput('unknown', largeBatch, { attempt: 0 })),
    ]);
    assert.equal(copies, { sent: 3, won: 3 });
    const attempts = async (): Promise<string[]> =>
      (await stored(nats)).flatMap(({ batches }) => batches.map(({ batchId, attempt }) => `${batchId} ${attempt}`));
    assert.equal((await attempts()).sort(), ['before 1', 'first 2', 'third 3', 'unknown 0']);
    assert.equal(results.map(({ position }) => Number(position?.sequence)).sort(), [2, 3, 4]);
    line.release();
    await until('the first copies', async () => (await attempts()).length === 7);
    assert.equal((await attempts()).sort(), [
      'before 1',
      'first 1',
      'first 2',
      'third 3',
      'third 3',
      'unknown 0',
      'unknown 0',
    ]);
    // 8, or 9 where the machine is so busy that this one is sent twice, too, and its copy comes first.
    assert.ok(Number((await ingest.publish(ingestInput('after'))).position?.sequence) >= 8);
  }));

test('HEDGE-1: each batch of a message of many is marked', () =>
  withHedging({ coalesceDelay: 500 }, async ({ nats, line, ingest }) => {
    await ingest.publish(ingestInput('before'));
    line.hold();
    const many = Array.from({ length: 12 }, (_, i) =>
      ingest.publish(ingestInput(`b-${i}`, smallBatch, { attempt: i % 3 })),
    );
    await Promise.all(many);
    const copies = (await stored(nats)).flatMap(({ batches }) => batches).filter(({ batchId }) => batchId !== 'before');
    assert.is(copies.length, 12);
    for (const { batchId, attempt, events, eventCount } of copies) {
      const said = Number(batchId.slice(2)) % 3;
      assert.is(attempt, said === 1 ? 2 : said, batchId);
      assert.is(events.length, eventCount);
    }
  }));

test('HEDGE-2: of a long hold-up only a few messages are sent twice', () =>
  withHedging({ publishTimeout: 1_000, publishWindow: 32 }, async ({ line, ingest, copies }) => {
    await ingest.publish(ingestInput('before'));
    line.hold();
    const { acked, failed } = await outcomes(
      Array.from({ length: 24 }, (_, i) => ingest.publish(ingestInput(`b-${i}`, largeBatch))),
    );
    assert.equal([acked.length, failed.length, copies.sent, copies.held_back], [16, 8, 16, 8]);
    assert.ok(failed.every(({ code }) => code === 'outcome_unknown'));
  }));

test('HEDGE-2: when the window is used up, the log is slow, and nothing is sent twice', () =>
  withHedging({ publishTimeout: 500, publishWindow: 4 }, async ({ line, ingest, copies }) => {
    await ingest.publish(ingestInput('before'));
    line.hold();
    const all = Array.from({ length: 6 }, (_, i) => ingest.publish(ingestInput(`b-${i}`, largeBatch)));
    assert.is((await outcomes(all)).acked.length, 0);
    assert.equal(copies, {});
  }));

test('HEDGE-2, HEDGE-3: a full log is not asked twice, and a refusal of both copies is a refusal', () =>
  withHedging({ shardMaxBytes: MiB, publishTimeout: 2_000 }, async ({ line, ingest, copies }) => {
    let n = 0;
    let full = false;
    while (!full) {
      const { failed } = await outcomes([ingest.publish(ingestInput(`fill-${n++}`, largeBatch))]);
      full = failed[0]?.code === 'log_full';
      assert.ok(n < 100);
    }
    line.hold();
    await new Promise((resolve) => setTimeout(resolve, 250));
    const calm = outcomes([ingest.publish(ingestInput('calm', largeBatch))]);
    await new Promise((resolve) => setTimeout(resolve, 200));
    assert.equal(copies, {}, 'within a second of "full" nothing is sent twice');
    line.release();
    assert.is((await calm).failed[0]?.code, 'log_full');
    await new Promise((resolve) => setTimeout(resolve, 1_100));
    line.hold();
    const both = outcomes([ingest.publish(ingestInput('both', largeBatch))]);
    await until('the copy is refused', () => copies.refused === 1);
    line.release();
    const { failed } = await both;
    assert.equal([failed[0]?.code, failed[0]?.outcomeUnknown], ['log_full', false]);
  }));

test('HEDGE-3: a copy without an answer leaves the outcome unknown', () =>
  withHedging({ publishTimeout: 700 }, async ({ nats, line, ingest, copies }) => {
    await ingest.publish(ingestInput('before'));
    line.hold();
    await freeze(nats.process());
    const { failed } = await outcomes([ingest.publish(ingestInput('open', largeBatch))]);
    assert.equal([failed[0]?.code, failed[0]?.outcomeUnknown], ['outcome_unknown', true]);
    assert.is(copies.sent, 1);
    nats.process().kill('SIGCONT');
    line.release();
    await until('the late answer', () => copies.late === 1);
    const jsm = await jetstreamManager(nats.nc);
    await until('both copies', async () => (await jsm.streams.info('EV_0')).state.messages === 3);
  }));

test.run();

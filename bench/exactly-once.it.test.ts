/** The comparison of what is stored with what was acknowledged, on the real engine: it must see every kind of fault. */
import { createClient } from '@clickhouse/client';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { withClickHouse } from '../lib/testing/clickhouse.js';
import { type AskClickHouse, checkExactlyOnce, type Expected } from './exactly-once.js';

const perBatch = 5;

/** Batches a to b of a block, each of five events. */
const rows = (shard: number, block: number, a: number, b: number, attempt = 1) =>
  `INSERT INTO t SELECT ${shard}, ${block}, toUInt128(number), ${attempt}, concat(toString(number), '-', toString(e)) ` +
  `FROM numbers(${a}, ${b - a}) ARRAY JOIN range(${perBatch}) AS e`;

/** 40 batches in three blocks, then what the case changes. */
type Check = (faults: readonly string[], expected?: Partial<Expected>) => ReturnType<typeof checkExactlyOnce>;

async function withChecks(
  use: (check: Check, faultOf: (...given: Parameters<Check>) => Promise<string>) => Promise<void>,
) {
  await withClickHouse(async ({ url }) => {
    const client = createClient({ url });
    const ask: AskClickHouse = async (query) =>
      (await client.query({ query, format: 'JSONEachRow' })).json<Record<string, string>>();
    const check: Check = async (faults, expected = {}) => {
      const create =
        'CREATE TABLE t (_shard UInt32, _block UInt64, _batch UInt128, _attempt UInt32, event_id String) ' +
        'ENGINE = MergeTree ORDER BY (_shard, _block)';
      const fill = [rows(0, 1, 0, 10), rows(0, 2, 10, 20), rows(1, 1, 20, 40)];
      for (const query of ['DROP TABLE IF EXISTS t', create, ...fill, ...faults]) await client.command({ query });
      const of = { batches: 40, eventsPerBatch: perBatch, resends: 0, ...expected };
      return checkExactlyOnce(ask, 't', of, () => undefined);
    };
    const faultOf = async (...given: Parameters<Check>): Promise<string> => {
      try {
        await check(...given);
      } catch (error) {
        return error instanceof Error ? error.message : String(error);
      }
      return 'none was seen';
    };
    try {
      await use(check, faultOf);
    } finally {
      await client.close();
    }
  });
}

test('what is stored once is counted, and every kind of fault is seen', async () => {
  await withChecks(async (check, faultOf) => {
    assert.equal(await check([]), { events: 200, batches: 40, stored_twice: 0 });
    assert.match(await faultOf([], { batches: 41 }), /41 batches were acknowledged, but 40 are stored/);
    assert.match(await faultOf([rows(1, 2, 40, 41)]), /40 batches were acknowledged, but 41 are stored/);
    // An event that is lost, and another one in its place.
    const lost = "ALTER TABLE t DELETE WHERE event_id = '13-4' SETTINGS mutations_sync = 1";
    assert.match(await faultOf([lost]), /1 batches do not have exactly their 5 events where _shard = 0/);
    const instead = "INSERT INTO t VALUES (0, 2, 13, 1, '13-3')";
    assert.match(await faultOf([lost, instead]), /1 batches do not have exactly their 5 events/);
    // A batch that is there twice: in blocks that are looked at together, and in blocks far apart.
    assert.match(await faultOf([rows(0, 3, 7, 8)]), /1 batches do not have exactly their 5 events/);
    assert.match(await faultOf([rows(1, 2, 7, 8)]), /1 batches are stored twice, though only 0 were sent again/);
  });
});

test('what the client sent again may be there twice; while loading goes on there may be fewer batches, never more', async () => {
  await withChecks(async (check, faultOf) => {
    const again = [rows(0, 3, 7, 8, 2), rows(0, 2, 30, 31, 2)];
    assert.equal(await check(again, { resends: 2 }), { events: 210, batches: 40, stored_twice: 2 });
    assert.match(await faultOf(again, { resends: 1 }), /2 batches are stored twice, though only 1 were sent again/);
    assert.is((await check([], { batches: 50, atMost: true })).batches, 40);
    assert.match(await faultOf([], { batches: 39, atMost: true }), /39 batches were acknowledged, but 40 are stored/);
  });
});

test.run();

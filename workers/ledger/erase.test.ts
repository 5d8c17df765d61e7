import type { JetStreamManager } from '@nats-io/jetstream';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { silentLogger } from '../../lib/logger.js';
import type { ClickHouse } from '../clickhouse/client.js';
import { eventsTable } from '../clickhouse/connect.js';
import { eraseUser } from './erase.js';

const loadedAtMs = Date.parse('2026-11-01T00:00:00Z');

/**
 * Erases where ClickHouse has messages up to 99.
 * @param takenAtMs when the log took the message that it has under 99 now
 * @returns what was purged, and the statements that changed something
 */
async function erase(lastSequence: number, takenAtMs: number, failed: readonly object[] = []) {
  const purged: number[] = [];
  const commands: string[] = [];
  const streams = {
    info: async (name: string) => ({
      created: '2026-10-01T00:00:00Z',
      config: { name },
      state: { first_seq: 1, last_seq: lastSequence, messages: lastSequence },
    }),
    getMessage: async () => ({ time: new Date(takenAtMs) }),
    async purge(_: string, { seq }: { seq: number }) {
      purged.push(seq);
      return { purged: seq - 1 };
    },
  };
  const clickhouse = {
    async rows(query: string) {
      if (query.includes('system.mutations')) return failed;
      if (query.includes('_hi_at')) return [{ at: String(loadedAtMs) }];
      if (query.includes('GROUP BY stream')) return [{ stream: '20261001T000000Z', block: '7', hi: '99' }];
      return [{ n: '1' }];
    },
    async command(query: string) {
      commands.push(query);
    },
  };
  let error: unknown;
  await eraseUser({
    tenant: 'acme',
    userId: 'u1',
    clickhouse: clickhouse as unknown as ClickHouse,
    target: eventsTable('sluice'),
    jsm: { streams } as unknown as JetStreamManager,
    shards: [0],
    waitMs: 0,
    logger: silentLogger,
  }).catch((reason: unknown) => {
    error = reason;
  });
  return { purged, commands, error: error === undefined ? '' : String(error) };
}

test('what was loaded leaves the log before the rows go', async () => {
  const { purged, commands, error } = await erase(120, loadedAtMs);
  assert.is(error, '');
  assert.equal(purged, [100]);
  assert.is(commands.length, 2);
  // The tombstone of a block keeps the time by which such a log is known.
  assert.match(commands[0] ?? '', /INSERT INTO .*_hi_at\) SELECT .*_hi_at FROM/);
});

test('of a log that lost its end nothing is removed: messages that no block has may be there (LOAD-8)', async () => {
  for (const [lastSequence, takenAtMs] of [
    [97, loadedAtMs],
    [120, loadedAtMs + 1],
  ] as const) {
    const { purged, commands, error } = await erase(lastSequence, takenAtMs);
    assert.match(error, /EV_0 lost its end/);
    assert.equal(purged, []);
    assert.equal(commands, []);
  }
});

test('a mutation that fails would stop the deletion: it is named before anything leaves the log', async () => {
  const mutation = { id: 'mutation_3.txt', command: '(MODIFY COLUMN `app_build` UInt64)', reason: 'Cannot parse' };
  const { purged, commands, error } = await erase(120, loadedAtMs, [mutation]);
  assert.match(error, /Nothing was erased\. The mutation mutation_3\.txt .* KILL MUTATION WHERE/);
  assert.equal([purged, commands], [[], []]);
});

test.run();

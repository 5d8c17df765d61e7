/**
 * What leaves ClickHouse: old days by retention, a user by `sluice erase`; on a real log and the real engine.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { jetstream, jetstreamManager } from '@nats-io/jetstream';
import { pino } from 'pino';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { clickhouseClientOptions, resolveOptions } from '../../lib/config/index.js';
import { ensureShards, generationOf } from '../../lib/log-streams.js';
import { silentLogger } from '../../lib/logger.js';
import { shardStream } from '../../lib/subjects.js';
import { createRandom } from '../../lib/testing/batches.js';
import { withClickHouse } from '../../lib/testing/clickhouse.js';
import { withNats } from '../../lib/testing/nats.js';
import { programFlags, programPath } from '../../lib/testing/program.js';
import { publishStored, storedPayload } from '../testing/payloads.js';
import { startWorkerProcess } from '../testing/worker-process.js';
import { createClickHouse } from './client.js';
import { eventsTable } from './connect.js';
import { dropOldDays } from './retention.js';
import { type BlockConstants, blockName, insertStatement } from './schema/index.js';

const eraseMain = programPath('workers/ledger/erase-main.ts');
const target = eventsTable('sluice');
const random = createRandom(3);

async function erase(
  natsUrl: string,
  clickhouseUrl: string,
  args: readonly string[],
): Promise<{ code: number; out: string; error: string }> {
  const child = spawn(process.execPath, [...programFlags, eraseMain, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, SLUICE_NATS_URL: natsUrl, SLUICE_CLICKHOUSE_URL: clickhouseUrl, SLUICE_LOG_LEVEL: 'silent' },
  });
  let out = '';
  let error = '';
  child.stdout.on('data', (chunk) => {
    out += String(chunk);
  });
  child.stderr.on('data', (chunk) => {
    error += String(chunk);
  });
  const [code] = await once(child, 'close');
  return { code: code as number, out, error };
}

test('old days are dropped, those that a shard still needs stay; then a user is erased by the command', async () => {
  await withNats((nats) =>
    withClickHouse(async ({ url }) => {
      const clickhouse = createClickHouse(
        resolveOptions(clickhouseClientOptions, { clickhouseUrl: url }, {}),
        silentLogger,
      );
      await ensureShards(nats.nc, { shards: 1, replicas: 1, maxBytes: 64 * 1024 ** 2 });
      const worker = await startWorkerProcess({ natsUrl: nats.url, clickhouseUrl: url, blockDelay: '50ms' });
      try {
        const jsm = await jetstreamManager(nats.nc);
        const generation = generationOf(await jsm.streams.info(shardStream(0)));
        // Blocks of long ago: of a stream that is gone, and of this one with messages that are still in it.
        const old = (day: string, stream: string, block: number): BlockConstants => ({
          day,
          stream,
          shard: 0,
          block: BigInt(block),
          lo: 1n,
          hi: 1n,
          accepted: 10,
          duplicate: 0,
          dead: 0,
        });
        const stored = { tenant: 'acme', batchId: 'now', events: 200 };
        await publishStored(jetstream(nats.nc), 1, stored, storedPayload(random, stored));
        const days = async (): Promise<string[]> =>
          (
            await clickhouse.rows<{ day: string }>(
              'SELECT DISTINCT toString(_day) AS day FROM sluice.events ORDER BY day',
            )
          ).map((row) => row.day);
        const since = Date.now();
        while ((await days()).length === 0) {
          assert.ok(Date.now() - since < 20_000, 'the batch was not loaded within 20 s');
          await new Promise((resolve) => setTimeout(resolve, 50));
        }
        const [today] = await days();
        for (const block of [
          old('2020-01-01', 'gone', 1),
          old('2020-01-02', 'gone', 2),
          old('2020-01-03', generation, 9),
        ]) {
          const payload = storedPayload(random, { tenant: 'acme', batchId: `b-${block.block}`, events: 10 });
          await clickhouse.insertBlock(insertStatement(target, block, [payload]), blockName(block), [payload]);
        }
        // A row that an operator put there.
        await clickhouse.command(
          "INSERT INTO sluice.events (tenant, _stream, _day) VALUES ('acme', 'own', '2020-01-02')",
        );
        const lines: string[] = [];
        const logger = pino({}, { write: (line: string) => void lines.push(line) });
        const request = { clickhouse, target, jsm, shards: 1, nowMs: Date.now(), logger };
        assert.equal(await dropOldDays({ ...request, days: 10_000 }), []);
        assert.equal(await dropOldDays({ ...request, days: 30 }), ['2020-01-01', '2020-01-02']);
        assert.match(lines.join(''), /"day":"2020-01-02","rows":11,/);
        assert.match(lines.join(''), /"day":"2020-01-02","rows":1,.*some that no worker stored/);
        assert.equal(await days(), ['2020-01-03', today], 'message 1 is still in the stream (LOAD-8)');

        const [user] = await clickhouse.rows<{ user: string; n: string }>(
          "SELECT user_id AS user, toString(count()) AS n FROM sluice.events WHERE user_id != '' GROUP BY user_id " +
            'ORDER BY count() DESC LIMIT 1',
        );
        const wrong = await erase(nats.url, url, ['--tenant', 'acme']);
        assert.is(wrong.code, 1);
        assert.match(wrong.error, /Name the user: sluice erase/);
        const done = await erase(nats.url, url, ['--tenant', 'acme', '--user-id', String(user?.user)]);
        assert.is(done.code, 0, done.error);
        assert.equal(JSON.parse(done.out), { rows: Number(user?.n), messages: 1, unloaded: 0 });
        const [left] = await clickhouse.rows<{ n: string }>(
          'SELECT toString(count()) AS n FROM sluice.events WHERE user_id = {user:String}',
          { user: user?.user },
        );
        assert.is(left?.n, '0');
      } finally {
        worker.child.kill('SIGKILL');
        await worker.exited;
        await clickhouse.close();
      }
    }),
  );
});

test.run();

/**
 * ClickHouse away, full or read-only, with the real processes around it: the gateway goes on acknowledging until the log
 * is full and then says "slow down"; nothing acknowledged is lost or stored twice; and all goes on by itself.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { type ClickHouseClient, createClient } from '@clickhouse/client';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { flagOf, testEnvironment } from '../lib/config/index.js';
import { addTenant } from '../lib/tenants.js';
import { type TestClickHouse, withClickHouse } from '../lib/testing/clickhouse.js';
import { type TestNats, withNats } from '../lib/testing/nats.js';
import { programFlags, programPath } from '../lib/testing/program.js';
import { withSlowLine } from '../lib/testing/slow-line.js';
import { withSmallDisk } from '../lib/testing/small-disk.js';
import { until, untilAnswered } from '../lib/testing/until.js';
import { MiB } from '../lib/units.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

interface Role {
  readonly child: ChildProcess;
  readonly ready: Promise<{ port?: number }>;
  readonly output: () => string;
}

function start(main: string, settings: Readonly<Record<string, string | number>>): Role {
  const flags = Object.entries({ metricsPort: 0, ...settings }).map(([name, value]) => `${flagOf(name)}=${value}`);
  const child = spawn(process.execPath, [...programFlags, programPath(main), ...flags], {
    cwd: root,
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    env: { ...testEnvironment(), OTEL_SDK_DISABLED: 'true' },
  });
  let output = '';
  child.stderr?.on('data', (chunk) => {
    output += String(chunk);
  });
  const ready = new Promise<{ port?: number }>((resolve, reject) => {
    child.once('message', (message: { port?: number }) => resolve(message));
    child.once('exit', (code) => reject(new Error(`${main} exited with ${code} before it was ready: ${output}`)));
  });
  return { child, ready, output: () => output };
}

/** What a caller heard of a batch. */
interface Told {
  readonly status: number;
  readonly code?: string;
  readonly retryAfterMs?: number;
  readonly outcomeUnknown?: boolean;
}

interface Scene {
  readonly clickhouse: TestClickHouse;
  readonly worker: Role;
  /** Sends a batch of 100 events, some 30 kB; the events' ids are `<batchId>-<n>`. */
  send(batchId: string, attempt?: number): Promise<Told>;
  /** Sends it until it is accepted, each time with the next attempt number. */
  deliver(batchId: string): Promise<void>;
  /** Rows of the batches that were accepted, and how many events that are. */
  rows(): Promise<number>;
  /** Events that were left out, because they were stored already. */
  duplicates(): Promise<number>;
  readonly accepted: ReadonlySet<string>;
  /** All that was accepted is stored, each event once. */
  assertExact(): Promise<void>;
}

const eventsOfBatch = 100;

async function withScene(
  nats: TestNats,
  clickhouse: TestClickHouse,
  settings: Readonly<Record<string, string | number>>,
  use: (scene: Scene) => Promise<void>,
): Promise<void> {
  const { key } = await addTenant(nats.nc, { tenant: 'acme' });
  const client: ClickHouseClient = createClient({ url: clickhouse.url, log: { level: 127 } });
  const gateway = start('gateway/main.ts', { natsUrl: nats.url, port: 0, shards: 1, ...settings });
  const worker = start('workers/main.ts', {
    natsUrl: nats.url,
    clickhouseUrl: clickhouse.url,
    blockDelay: '100ms',
    replayWindow: 0,
  });
  const accepted = new Set<string>();
  try {
    const { port } = await gateway.ready;
    await worker.ready;
    const ask = async <T>(query: string): Promise<T[]> =>
      (await client.query({ query, format: 'JSONEachRow' })).json<T>();
    const scene: Scene = {
      clickhouse,
      worker,
      accepted,
      async send(batchId, attempt = 1) {
        const events = Array.from({ length: eventsOfBatch }, (_, i) => ({
          eventId: `${batchId}-${i}`,
          type: 'EVENT_TYPE_CLICK',
          occurredAt: '2026-11-25T12:00:00Z',
          userId: `user-${i}`,
          properties: { padding: 'x'.repeat(200) },
        }));
        const answer = await fetch(`http://127.0.0.1:${port}/v1/events/batch`, {
          method: 'POST',
          headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
          body: JSON.stringify({ events, batchId, attempt }),
        });
        const body = (await answer.json()) as { accepted?: number; error?: Omit<Told, 'status'> };
        if (answer.status === 202) {
          assert.is(body.accepted, eventsOfBatch, JSON.stringify(body).slice(0, 300));
          accepted.add(batchId);
        }
        return { status: answer.status, ...body.error };
      },
      async deliver(batchId) {
        for (let attempt = 1; ; attempt++) {
          const told = await scene.send(batchId, attempt);
          if (told.status === 202) return;
          assert.ok((told.status === 429 || told.status === 503) && attempt < 400, JSON.stringify(told));
          await sleep(100);
        }
      },
      async rows() {
        const [row] = await ask<{ n: string }>("SELECT toString(count()) AS n FROM sluice.events WHERE tenant != ''");
        return Number(row?.n);
      },
      async duplicates() {
        const [row] = await ask<{ n: string }>(
          'SELECT toString(sum(n)) AS n FROM (SELECT any(_duplicate) AS n FROM sluice.events GROUP BY _stream, _block)',
        );
        return Number(row?.n);
      },
      async assertExact() {
        await untilAnswered('all is stored', async () => (await scene.rows()) >= accepted.size * eventsOfBatch);
        await sleep(300);
        const stored = await ask<{ id: string; n: string }>(
          "SELECT event_id AS id, toString(count()) AS n FROM sluice.events WHERE tenant != '' GROUP BY id",
        );
        const wanted = [...accepted].flatMap((id) => Array.from({ length: eventsOfBatch }, (_, i) => `${id}-${i}`));
        assert.equal(
          stored.filter(({ n }) => n !== '1'),
          [],
          'each once',
        );
        const ids = new Set(stored.map(({ id }) => id));
        assert.equal(
          wanted.filter((id) => !ids.has(id)),
          [],
          'nothing acknowledged is missing',
        );
        assert.is(stored.length, wanted.length);
      },
    };
    await use(scene);
  } finally {
    await client.close();
    for (const { child } of [gateway, worker]) {
      if (child.exitCode !== null) continue;
      const gone = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGKILL');
      await gone;
    }
  }
}

test('while ClickHouse is away the gateway acknowledges until the log is full, then says slow down; later all is stored', () =>
  withNats((nats) =>
    withSlowLine(nats.url, (line) =>
      withClickHouse((clickhouse) =>
        withScene(nats, clickhouse, { natsUrl: line.url, hedgeDelay: 50, shardMaxBytes: 2 * MiB }, async (scene) => {
          await scene.deliver('before');
          await scene.assertExact();
          // Second tries (gateway/log/hedge.ts): both copies of a message come late, and are in the log.
          line.hold();
          const twice = ['twice-1', 'twice-2', 'twice-3'].map((id) => scene.send(id));
          await sleep(500);
          line.release();
          assert.equal(
            (await Promise.all(twice)).map(({ status }) => status),
            [202, 202, 202],
          );
          await scene.assertExact();
          clickhouse.process().kill('SIGKILL');
          let full: Told | undefined;
          let n = 0;
          for (; full === undefined; n++) {
            assert.ok(n < 500, 'the log is never full');
            const told = await scene.send(`away-${n}`);
            if (told.status !== 202) full = told;
          }
          assert.ok(scene.accepted.size > 20, `${scene.accepted.size} batches were acknowledged`);
          assert.equal([full.status, full.code, full.outcomeUnknown ?? false], [429, 'log_full', false]);
          assert.ok((full.retryAfterMs ?? 0) >= 100, `retry after ${full.retryAfterMs} ms`);
          await until('the circuit opens', () => scene.worker.output().includes('left alone but for a probe'));
          const waiting = ['late-1', 'late-2', `away-${n - 1}`].map((id) => scene.deliver(id));
          await clickhouse.restart();
          const ms = await untilAnswered('rows again', async () => (await scene.rows()) > eventsOfBatch);
          await Promise.all(waiting);
          await scene.assertExact();
          process.stdout.write(`first rows ${Math.round(ms)} ms after ClickHouse was back\n`);
          assert.match(scene.worker.output(), /ClickHouse works again/);
          assert.ok((await scene.duplicates()) >= eventsOfBatch, 'the second copies were seen, and left out (LOAD-5)');
        }),
      ),
    ),
  ));

test('a ClickHouse whose disk is full loses nothing, and goes on when there is room', async () => {
  await withSmallDisk(64, (disk) =>
    withNats((nats) =>
      withClickHouse(
        (clickhouse) =>
          withScene(nats, clickhouse, {}, async (scene) => {
            await scene.deliver('before');
            await scene.assertExact();
            disk.fill();
            for (let n = 0; n < 10; n++) assert.is((await scene.send(`full-${n}`)).status, 202);
            await until('a refused block', () =>
              /NOT_ENOUGH_SPACE|CANNOT_WRITE|No space left/i.test(scene.worker.output()),
            );
            await until('the circuit opens', () => scene.worker.output().includes('"circuit":"inserts"'));
            await disk.empty();
            const ms = await untilAnswered('rows again', async () => (await scene.rows()) > eventsOfBatch);
            await scene.assertExact();
            process.stdout.write(`first rows ${Math.round(ms)} ms after there was room\n`);
            assert.not.match(scene.worker.output(), /refuses the content|refuses blocks/);
          }),
        disk.folder,
      ),
    ),
  );
});

test.run();

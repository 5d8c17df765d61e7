/**
 * What durability COMMITTED promises, on the real processes: client → gateway → nats-server → worker → ClickHouse, with
 * the worker killed in between, and with a log that lost power.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { createClient } from '@clickhouse/client';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { testEnvironment } from '../lib/config/index.js';
import { addTenant } from '../lib/tenants.js';
import { type TestClickHouse, withClickHouse } from '../lib/testing/clickhouse.js';
import { freePort, type TestNats, withNats } from '../lib/testing/nats.js';
import { programFlags, programPath } from '../lib/testing/program.js';
import { until } from '../lib/testing/until.js';
import { EventType, SluiceClient, type SluiceClientOptions } from '../sdk-gen/typescript/src/index.js';

const root = fileURLToPath(new URL('..', import.meta.url));

interface Process {
  /** SIGKILL, and its end. */
  kill(): Promise<void>;
}

/** A role as a process of its own; resolves when it is ready. */
async function startRole(role: string, flags: readonly string[]): Promise<Process> {
  const child: ChildProcess = spawn(process.execPath, [...programFlags, programPath(`${role}/main.ts`), ...flags], {
    cwd: root,
    env: testEnvironment(),
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  });
  let text = '';
  child.stderr?.on('data', (chunk) => {
    text = (text + String(chunk)).slice(-4_000);
  });
  const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  await new Promise<void>((resolve, reject) => {
    child.once('message', () => resolve());
    void gone.then(() => reject(new Error(`${role} ended before it was ready: ${text}`)));
  });
  return {
    async kill() {
      child.kill('SIGKILL');
      await gone;
    },
  };
}

interface Scene {
  readonly nats: TestNats;
  startWorker(): Promise<Process>;
  /** Resolves with its address. */
  startGateway(): Promise<string>;
  client(options?: Partial<SluiceClientOptions>): SluiceClient;
  /** Events whose id begins so: rows, and how many different ones. */
  stored(prefix: string): Promise<[number, number]>;
}

async function withScene(use: (scene: Scene) => Promise<void>): Promise<void> {
  await withNats((nats) =>
    withClickHouse(async (clickhouse: TestClickHouse) => {
      const { key } = await addTenant(nats.nc, { tenant: 'acme' });
      const common = ['--nats-url', nats.url, '--metrics-port', '0', '--log-level', 'warn'];
      const processes: Process[] = [];
      const clients: SluiceClient[] = [];
      const clickhouseClient = createClient({ url: clickhouse.url });
      const started = async (starting: Promise<Process>): Promise<Process> => {
        const one = await starting;
        processes.push(one);
        return one;
      };
      const startGateway = async (): Promise<string> => {
        const port = await freePort();
        await started(startRole('gateway', [...common, '--port', String(port), '--shards', '2']));
        return `http://127.0.0.1:${port}`;
      };
      try {
        const baseUrl = await startGateway();
        await use({
          nats,
          startGateway,
          startWorker: () =>
            started(startRole('workers', [...common, '--clickhouse-url', clickhouse.url, '--block-delay', '200ms'])),
          client(options = {}) {
            const client = new SluiceClient({ baseUrl, key, batchEvents: 50, ...options });
            clients.push(client);
            return client;
          },
          async stored(prefix) {
            const query =
              'SELECT toString(count()) AS n, toString(uniqExact(event_id)) AS u FROM sluice.events WHERE startsWith(event_id, {prefix:String})';
            const answer = await clickhouseClient.query({ query, query_params: { prefix }, format: 'JSONEachRow' });
            const [row] = await answer.json<{ n: string; u: string }>();
            return [Number(row?.n), Number(row?.u)];
          },
        });
      } finally {
        await Promise.all(clients.map((client) => client.close({ timeoutMs: 0 })));
        await Promise.all(processes.map((one) => one.kill()));
        await clickhouseClient.close();
      }
    }),
  );
}

function track(client: SluiceClient, prefix: string, from: number, to: number): void {
  for (let i = from; i < to; i++) assert.ok(client.track({ type: EventType.CLICK, eventId: `${prefix}-${i}` }));
}

test('when a COMMITTED client reports a batch as delivered, ClickHouse has it, also after kills', async () => {
  await withScene(async ({ startWorker, client, stored }) => {
    let worker = await startWorker();
    const committing = client({ durability: 'committed' });
    for (let round = 0; round < 4; round++) {
      track(committing, 'c', round * 1_000, round * 1_000 + 500);
      // All are accepted, and some are on their way into ClickHouse.
      await until('accepted', () => committing.stats().accepted >= round * 1_000 + 500);
      if (round % 2 === 0) {
        await worker.kill();
        const before = committing.stats();
        track(committing, 'c', round * 1_000 + 500, round * 1_000 + 1_000);
        await until('accepted without a worker', () => committing.stats().accepted === round * 1_000 + 1_000);
        assert.is(committing.stats().committed, before.committed);
        worker = await startWorker();
      } else {
        track(committing, 'c', round * 1_000 + 500, round * 1_000 + 1_000);
      }
      await committing.flush();
      assert.equal(await stored('c-'), [(round + 1) * 1_000, (round + 1) * 1_000]);
    }
    const { committed, delivered, retries, pendingBytes } = committing.stats();
    assert.equal(
      { committed, delivered, retries, pendingBytes },
      {
        committed: 4_000,
        delivered: 4_000,
        retries: 0,
        pendingBytes: 0,
      },
    );
    assert.equal(await committing.close(), {
      delivered: 4_000,
      rejected: 0,
      undelivered: { events: 0, batches: 0, accepted: 0 },
    });
  });
});

test('a log that lost power costs an ACCEPTED client what it forgot, and a COMMITTED one nothing', async () => {
  await withScene(async ({ nats, startWorker, startGateway, client, stored }) => {
    const [worker, otherGateway] = await Promise.all([startWorker(), startGateway()]);
    const accepting = client();
    const committing = client({ durability: 'committed' });
    const all = [accepting, committing];
    track(accepting, 'a', 0, 500);
    track(committing, 'c', 0, 500);
    await Promise.all(all.map((one) => one.flush()));
    await until('loaded', async () => (await stored('a-'))[0] === 500);
    // What follows is in the log alone, and then it is not.
    await worker.kill();
    await nats.keepCopy();
    track(accepting, 'a', 500, 1_000);
    track(committing, 'c', 500, 1_000);
    await until('accepted', () => all.every((one) => one.stats().accepted === 1_000));
    assert.equal(
      all.map((one) => one.stats().delivered),
      [1_000, 500],
    );
    await nats.rollBack();
    // Others get the positions that were forgotten, and the gateway that knew them sees nothing of it.
    const other = client({ baseUrl: otherGateway });
    track(other, 'o', 0, 2_000);
    await other.flush();
    await startWorker();
    await until('loaded', async () => (await stored('o-'))[0] === 2_000);
    await committing.flush();
    assert.equal(await stored('c-'), [1_000, 1_000]);
    assert.equal(await stored('o-'), [2_000, 2_000]);
    // Otherwise nothing was lost, and nothing shown.
    assert.equal(await stored('a-'), [500, 500]);
    assert.is(committing.stats().delivered, 1_000);
    assert.ok(committing.stats().retries > 0);
  });
});

test.run();

/** Workers that find each other through a real KV bucket. */
import { Kvm } from '@nats-io/kv';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { silentLogger } from '../../lib/logger.js';
import { workersBucket } from '../../lib/subjects.js';
import { withNats } from '../../lib/testing/nats.js';
import { until } from '../../lib/testing/until.js';
import { type Assignment, joinWorkers } from './assignment.js';
import { expiryMs } from './live-workers.js';

interface TestWorker {
  readonly nc: NatsConnection;
  readonly assignment: Assignment;
  shards: readonly number[];
  /** All that it heard, in order. */
  readonly told: string[];
}

async function join(url: string, name: string): Promise<TestWorker> {
  const nc = await connect({ servers: url, maxReconnectAttempts: -1, reconnectTimeWait: 100 });
  const worker: { shards: readonly number[]; told: string[] } = { shards: [], told: [] };
  const assignment = await joinWorkers({
    nc,
    worker: name,
    shards: 4,
    replicas: 1,
    onChange: (shards) => {
      worker.shards = shards;
      worker.told.push(String(shards));
    },
    logger: silentLogger,
  });
  return Object.assign(worker, { nc, assignment });
}

const are = (worker: TestWorker, shards: readonly number[]): boolean => String(worker.shards) === String(shards);

test('shards are shared, handed over at once by who leaves, and within seconds by who dies', async () => {
  await withNats(async ({ url }) => {
    const a = await join(url, 'a');
    await until('alone, it has all', () => are(a, [0, 1, 2, 3]));
    const b = await join(url, 'b');
    await until('two share', () => are(a, [0, 2]) && are(b, [1, 3]));
    const c = await join(url, 'c');
    await until('three share', () => are(a, [0, 3]) && are(b, [1]) && are(c, [2]));
    await c.assignment.leave();
    const left = await until('the others take over', () => are(a, [0, 2]) && are(b, [1, 3]));
    assert.ok(left < 1_000, `${left} ms after it left`);
    // It dies: nothing is said, the heartbeats stop.
    await b.nc.close();
    const died = await until('a has all again', () => are(a, [0, 1, 2, 3]));
    assert.ok(died < 6_000, `${died} ms after it died`);
    // Not only forgotten after a silence: the one who asked it removed its entry for all.
    const bucket = await new Kvm(a.nc).open(workersBucket);
    assert.is((await bucket.get('b'))?.operation, 'DEL');
    await a.assignment.leave();
    await b.assignment.leave();
    await Promise.all([a.nc.close(), c.nc.close()]);
  });
});

test('workers find each other again after nats-server was killed and forgot the bucket', async () => {
  await withNats(async (nats) => {
    const a = await join(nats.url, 'a');
    const b = await join(nats.url, 'b');
    await until('two share', () => are(a, [0, 2]) && are(b, [1, 3]));
    nats.process().kill('SIGKILL');
    await nats.restart();
    const c = await join(nats.url, 'c');
    await until('three share', () => are(a, [0, 3]) && are(b, [1]) && are(c, [2]));
    for (const worker of [a, b, c]) await worker.assignment.leave();
    await Promise.all([a, b, c].map((worker) => worker.nc.close()));
  });
});

test('workers that were there before make the forgotten bucket again, and notice who dies', async () => {
  await withNats(async (nats) => {
    const a = await join(nats.url, 'a');
    const b = await join(nats.url, 'b');
    await until('two share', () => are(a, [0, 2]) && are(b, [1, 3]));
    const told = [...a.told, ...b.told];
    nats.process().kill('SIGKILL');
    // They lose sight of each other.
    await new Promise((resolve) => setTimeout(resolve, expiryMs + 1_500));
    await nats.restart();
    // Long enough that they have forgotten each other, unless they meet again.
    await new Promise((resolve) => setTimeout(resolve, expiryMs + 2_000));
    // And no worker took one for dead that was only heard a beat later.
    assert.equal([...a.told, ...b.told], told);
    await b.nc.close();
    await until('a has all', () => are(a, [0, 1, 2, 3]));
    await a.assignment.leave();
    await a.nc.close();
    await b.assignment.leave();
  });
});

test.run();

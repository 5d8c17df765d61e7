/**
 * What durability costs the log: publishes to one stream on one nats-server and on a cluster of three, with and without
 * `sync_interval: always`; and how long a purge takes, which the worker waits for and publishes with it.
 *
 *   node --import tsx bench/log-durability.ts [seconds for each figure]
 *
 * Everything shares this machine and its one disk: three nodes do three times the work of one. Read ratios, not rates.
 */
import { type JetStreamClient, type JetStreamManager, jetstream, jetstreamManager } from '@nats-io/jetstream';
import type { NatsConnection } from '@nats-io/transport-node';
import { ensureShards } from '../lib/log-streams.js';
import { batchSubject, shardStream } from '../lib/subjects.js';
import { currentNats } from '../lib/testing/current-nats.js';
import { type NatsSettings, withNats } from '../lib/testing/nats.js';
import { withNatsCluster } from '../lib/testing/nats-cluster.js';

const seconds = Number(process.argv[2] ?? 4);
/** As a gateway's groups are under load, and single small batches. */
const shapes = [
  { bytes: 64 * 1024, inFlight: 1 },
  { bytes: 64 * 1024, inFlight: 8 },
  { bytes: 64 * 1024, inFlight: 32 },
  { bytes: 1024, inFlight: 8 },
] as const;
const mostBytes = 8 * 1024 ** 3;

const percentile = (sorted: readonly number[], share: number): number =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;

async function publishFor(js: JetStreamClient, bytes: number, inFlight: number): Promise<number[]> {
  const payload = new Uint8Array(bytes).fill(42);
  const latencies: number[] = [];
  const until = performance.now() + seconds * 1_000;
  const lane = async (): Promise<void> => {
    while (performance.now() < until) {
      const since = performance.now();
      await js.publish(batchSubject(0, 'acme'), payload, { timeout: 20_000 });
      latencies.push(performance.now() - since);
    }
  };
  await Promise.all(Array.from({ length: inFlight }, lane));
  return latencies.sort((a, b) => a - b);
}

/** Half of the stream, twice, with publishes under way as there are in a running system. */
async function purgeMs(js: JetStreamClient, jsm: JetStreamManager): Promise<number[]> {
  const times: number[] = [];
  for (let i = 0; i < 4; i++) {
    const publishing = publishFor(js, 64 * 1024, 8);
    await new Promise((resolve) => setTimeout(resolve, seconds * 500));
    const { first_seq: first, last_seq: last } = (await jsm.streams.info(shardStream(0))).state;
    const since = performance.now();
    await jsm.streams.purge(shardStream(0), { seq: first + Math.floor((last - first) / 2) });
    times.push(performance.now() - since);
    await publishing;
  }
  return times.sort((a, b) => a - b);
}

async function measure(name: string, nc: NatsConnection, replicas: number): Promise<void> {
  await ensureShards(nc, { shards: 1, replicas, maxBytes: mostBytes });
  const js = jetstream(nc);
  const jsm = await jetstreamManager(nc);
  for (const { bytes, inFlight } of shapes) {
    const latencies = await publishFor(js, bytes, inFlight);
    const perSecond = latencies.length / seconds;
    process.stdout.write(
      `${name.padEnd(26)} ${String(bytes / 1024).padStart(3)} KiB × ${String(inFlight).padStart(2)}  ` +
        `${perSecond.toFixed(0).padStart(6)}/s ${((perSecond * bytes) / 1e6).toFixed(1).padStart(6)} MB/s  ` +
        `P50 ${percentile(latencies, 0.5).toFixed(2)} ms  P99 ${percentile(latencies, 0.99).toFixed(2)} ms\n`,
    );
    await jsm.streams.purge(shardStream(0));
  }
  const purges = await purgeMs(js, jsm);
  process.stdout.write(`${name.padEnd(26)} purge of a half: ${purges.map((ms) => ms.toFixed(0)).join(', ')} ms\n`);
}

const nats = await currentNats();
await withNats(async ({ nc }) => measure(`${nc.info?.version}, R1`, nc, 1));
if (nats.program === undefined) process.stdout.write(`the rest is skipped: ${nats.reason}\n`);
else {
  const { program, version } = nats;
  for (const jetstreamSettings of ['', 'sync_interval: always']) {
    const settings: NatsSettings = { program, jetstream: jetstreamSettings };
    const suffix = jetstreamSettings === '' ? '' : ', sync always';
    await withNats(async ({ nc }) => measure(`${version}, R1${suffix}`, nc, 1), settings);
    await withNatsCluster(3, settings, async ({ nc }) => measure(`${version}, R3${suffix}`, nc, 3));
  }
}

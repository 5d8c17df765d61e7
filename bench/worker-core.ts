/**
 * The worker alone: a log full of batches, loaded into a warehouse that throws them away (swallow.ts). Shows what reading,
 * cutting and sending cost the worker's process, and what delivery costs nats-server.
 *
 *   node --import tsx bench/worker-core.ts [--events 10000000] [--batch 500] [--shards 2] [--rounds 3] [--profile folder]
 *
 * It fills the log once (about 150 bytes of disk an event) and starts a new worker for each round.
 */
import { fork } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { jetstream } from '@nats-io/jetstream';
import { ensureShards } from '../lib/log-streams.js';
import { batchSubject } from '../lib/subjects.js';
import { type TestNats, withNats } from '../lib/testing/nats.js';
import { cpuSeconds, rssMib } from './cpu.js';
import { copyOf, patch, prepare } from './payload.js';
import { startRole } from './roles.js';
import type { FromSwallow } from './swallow.js';

const { values } = parseArgs({
  options: {
    events: { type: 'string', default: '10000000' },
    batch: { type: 'string', default: '500' },
    shards: { type: 'string', default: '2' },
    rounds: { type: 'string', default: '3' },
    profile: { type: 'string' },
  },
});
const [events, batch, shards, rounds] = [values.events, values.batch, values.shards, values.rounds].map(Number) as [
  number,
  number,
  number,
  number,
];
const patienceMs = 120_000;
const tenant = 'bench';

/** Fills the log with whole batches. @returns how many events it holds */
async function fill(nats: TestNats): Promise<number> {
  await ensureShards(nats.nc, { shards, replicas: 1, maxBytes: 16 * 1024 ** 3 });
  const js = jetstream(nats.nc, { timeout: 10_000 });
  const total = Math.ceil(events / batch);
  const run = (Date.now() ^ (process.pid << 16)) >>> 0;
  let next = 0;
  const sendAll = async (slot: number): Promise<void> => {
    const message = copyOf(prepare({ target: 'log', events: batch, seed: slot + 1, tenant }));
    while (next < total) {
      const number = next++;
      patch(message, { run, slot, number }, Date.now());
      await js.publish(batchSubject(number % shards, tenant), message.bytes);
    }
  };
  await Promise.all(Array.from({ length: 32 }, (_, slot) => sendAll(slot)));
  return total * batch;
}

interface Round {
  readonly rate: number;
  readonly worker: number;
  readonly nats: number;
  readonly rssMib: number;
}

async function load(nats: TestNats, stored: number, folder: string, index: number): Promise<Round> {
  const swallow = fork(fileURLToPath(new URL('./swallow.ts', import.meta.url)), [], {
    execArgv: ['--import', 'tsx'],
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  let rows = -1;
  let changed: () => void = () => undefined;
  const port = await new Promise<number>((resolve, reject) => {
    swallow.once('exit', (code) => reject(new Error(`bench/swallow.ts ended with ${code}`)));
    swallow.on('message', (message: FromSwallow) => {
      if (message.type === 'ready') return resolve(message.port);
      rows = message.rows;
      changed();
    });
  });
  const until = async (holds: () => boolean): Promise<void> => {
    const end = Date.now() + patienceMs;
    while (!holds()) {
      if (Date.now() > end) throw new Error(`the worker stored ${Math.max(0, rows)} of ${stored} events in time`);
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 500);
        changed = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
  };
  const flags = ['--nats-url', nats.url, '--metrics-port', '0', '--log-level', 'warn'];
  flags.push('--clickhouse-url', `http://127.0.0.1:${port}`);
  const worker = await startRole('worker', index, { flags, folder, telemetry: true, profile: values.profile });
  let watching: NodeJS.Timeout | undefined;
  try {
    await until(() => rows >= 0);
    const natsPid = nats.process().pid ?? 0;
    let peak = 0;
    watching = setInterval(() => {
      peak = Math.max(peak, rssMib(worker.pid));
    }, 50);
    const began = performance.now();
    const before = { worker: cpuSeconds(worker.pid), nats: cpuSeconds(natsPid), rows };
    await until(() => rows >= stored);
    const million = (rows - before.rows) / 1e6;
    return {
      rate: (rows - before.rows) / ((performance.now() - began) / 1000),
      worker: (cpuSeconds(worker.pid) - before.worker) / million,
      nats: (cpuSeconds(natsPid) - before.nats) / million,
      rssMib: peak,
    };
  } finally {
    clearInterval(watching);
    await worker.close();
    swallow.disconnect();
  }
}

await withNats(async (nats) => {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-bench-'));
  try {
    process.stderr.write('worker-core: filling the log\n');
    const stored = await fill(nats);
    const all: Round[] = [];
    for (let i = 0; i < rounds; i++) {
      all.push(await load(nats, stored, folder, i));
      process.stderr.write(`worker-core: round ${i + 1}: ${Math.round(all[i]?.rate ?? 0)} events/s\n`);
    }
    const middle = (pick: (round: Round) => number): number =>
      all.map(pick).sort((a, b) => a - b)[Math.floor(all.length / 2)] ?? Number.NaN;
    console.log(
      JSON.stringify({
        case: 'worker-core',
        events: stored,
        events_per_batch: batch,
        shards,
        rounds,
        loaded_events_per_s: Math.round(middle((round) => round.rate)),
        cpu_s_per_million: {
          worker: Number(middle((round) => round.worker).toFixed(3)),
          nats: Number(middle((round) => round.nats).toFixed(3)),
        },
        rss_mib: { worker: Math.round(Math.max(...all.map((round) => round.rssMib))) },
      }),
    );
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

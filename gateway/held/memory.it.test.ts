/**
 * Memory of a gateway at full load while JetStream stands still, and that nothing acknowledged is lost by it.
 * `node --import tsx gateway/held/memory.it.test.ts 30 80` stops JetStream for 30 s instead of 6, has 80 calls open on each of the
 * 8 connections instead of 20 (51 MB of requests at once), and prints figures.
 */
import { fork } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { type ClientHttp2Session, connect } from 'node:http2';
import { BinaryWriter } from '@bufbuild/protobuf/wire';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { nodeFlags } from '../../lib/config/index.js';
import { addTenant } from '../../lib/tenants.js';
import { createRandom, encodeBatch, makeBatch } from '../../lib/testing/batches.js';
import { freeze } from '../../lib/testing/freeze.js';
import { logBatchIds } from '../../lib/testing/log-batch-ids.js';
import { freePort, withNats } from '../../lib/testing/nats.js';
import { programFlags, programPath } from '../../lib/testing/program.js';
import { until } from '../../lib/testing/until.js';
import { KiB, MiB } from '../../lib/units.js';

const main = programPath('gateway/main.ts');
const stoppedMs = (Number(process.argv[2]) || 6) * 1000;
const callsPerConnection = Number(process.argv[3]) || 20;
const path = '/sluice.ingest.v1.IngestService/Publish';
const eventBytes = encodeBatch(makeBatch(createRandom(3), 500));
const wait = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** PublishRequest: batch = 1, batch_id = 2, attempt = 3. */
function requestOf(batchId: string): Uint8Array {
  return new BinaryWriter().tag(1, 2).bytes(eventBytes).tag(2, 2).string(batchId).tag(3, 0).uint32(1).finish();
}

/** The status, 0 when the call broke. */
function publish(session: ClientHttp2Session, key: string, batchId: string): Promise<number> {
  return new Promise((resolve) => {
    const stream = session.request({
      ':method': 'POST',
      ':path': path,
      'content-type': 'application/proto',
      authorization: `Bearer ${key}`,
    });
    let status = 0;
    let refusal = '';
    stream.on('response', (headers) => {
      status = Number(headers[':status']);
    });
    stream.on('data', (chunk) => {
      if (status !== 200) refusal += String(chunk);
    });
    stream.on('error', () => {});
    stream.on('close', () => {
      if (status === 400 || status === 401) throw new Error(refusal);
      resolve(status);
    });
    stream.end(requestOf(batchId));
  });
}

test('at full load, with JetStream standing still, a gateway stays under 256 MiB and loses nothing that it acknowledged', async () => {
  await withNats(async (nats) => {
    const keys = await Promise.all(['acme', 'other'].map(async (tenant) => (await addTenant(nats.nc, { tenant })).key));
    const port = await freePort();
    const gateway = fork(main, ['--metrics-port=0', '--port', String(port), '--nats-url', nats.url], {
      execArgv: [...nodeFlags.gateway, ...programFlags],
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    });
    const gone = new Promise<void>((resolve) => gateway.once('exit', () => resolve()));
    const sessions: ClientHttp2Session[] = [];
    try {
      await new Promise((resolve) => gateway.once('message', resolve));
      let peak = 0;
      const sample = (): void => {
        const text = readFileSync(`/proc/${gateway.pid}/status`, 'utf8');
        peak = Math.max(peak, Number(/VmRSS:\s+(\d+)/.exec(text)?.[1] ?? 0) * KiB);
      };
      const sampler = setInterval(sample, 50);
      const acked: string[] = [];
      const refused = new Map<number, number>();
      let loading = true;
      let sent = 0;
      for (let i = 0; i < 8; i++) {
        sessions.push(connect(`http://127.0.0.1:${port}`).on('error', () => {}));
      }
      const lanes = sessions.flatMap((session, i) =>
        Array.from({ length: callsPerConnection }, async () => {
          while (loading) {
            const id = `m-${sent++}`;
            const status = await publish(session, keys[i % 2] as string, id);
            if (status === 200) acked.push(id);
            else {
              refused.set(status, (refused.get(status) ?? 0) + 1);
              await wait(20);
            }
          }
        }),
      );
      await wait(3_000);
      const before = acked.length;
      const rssLoaded = peak;
      assert.ok(before > 50, `${before} batches before the stop: that is no load`);
      await freeze(nats.process());
      await wait(stoppedMs);
      const during = acked.length;
      nats.process().kill('SIGCONT');
      await until('batches are taken again', () => acked.length > during + 50, 15_000);
      loading = false;
      await Promise.all(lanes);
      clearInterval(sampler);
      const answer = await fetch(`http://127.0.0.1:${port}/readyz`);
      assert.is(answer.status, 200);
      assert.ok((refused.get(429) ?? 0) + (refused.get(503) ?? 0) > 0, 'no call was asked to come back');
      const stored = new Set<string>();
      for await (const id of logBatchIds(nats.nc)) stored.add(id);
      const lost = acked.filter((id) => !stored.has(id));
      assert.equal(lost.slice(0, 10), []);
      if (process.argv[2] !== undefined) {
        console.log({
          rssLoaded: rssLoaded / MiB,
          rssPeak: peak / MiB,
          before,
          during: during - before,
          acked: acked.length,
          stored: stored.size,
          refused: Object.fromEntries(refused),
        });
      }
      assert.ok(peak > 30 * MiB && peak < 256 * MiB, `RSS ${(peak / MiB).toFixed(0)} MiB`);
    } finally {
      for (const session of sessions) session.destroy();
      nats.process().kill('SIGCONT');
      gateway.kill('SIGKILL');
      await gone;
    }
  });
});

test.run();

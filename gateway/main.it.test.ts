/** The gateway as a process: settings, start in any order, signals, exit codes. */
import { type ChildProcess, fork } from 'node:child_process';
import { createClient } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { IngestService } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { addTenant } from '../lib/tenants.js';
import { createRandom, makeBatch } from '../lib/testing/batches.js';
import { freePort, withNats } from '../lib/testing/nats.js';
import { programFlags, programPath } from '../lib/testing/program.js';
import { until } from '../lib/testing/until.js';

const main = programPath('gateway/main.ts');

interface Running {
  readonly child: ChildProcess;
  readonly output: () => string;
  readonly readyPort: () => number | undefined;
  readonly exit: () => number | string | undefined;
}

async function withProcess(flags: string[], use: (running: Running) => Promise<void>): Promise<void> {
  const child = fork(main, ['--metrics-port=0', ...flags], { execArgv: [...programFlags], silent: true });
  let output = '';
  let port: number | undefined;
  let exit: number | string | undefined;
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (chunk) => {
      output += String(chunk);
    });
  }
  child.on('message', (message: { ready?: boolean; port?: number }) => {
    if (message.ready === true) port = message.port;
  });
  child.on('exit', (code, signal) => {
    exit = code ?? signal ?? undefined;
  });
  try {
    await use({ child, output: () => output, readyPort: () => port, exit: () => exit });
  } finally {
    if (exit === undefined) child.kill('SIGKILL');
    await until('the process has ended', () => exit !== undefined);
  }
}

test('it says when it is ready, publishes, and on SIGTERM drains and exits with 0', async () => {
  await withNats(async ({ url, nc }) => {
    const { key } = await addTenant(nc, { tenant: 'acme' });
    await withProcess(['--nats-url', url, '--port=0', '--drain-grace', '3s'], async (running) => {
      await until('ready', () => running.readyPort() !== undefined);
      const client = createClient(
        IngestService,
        createGrpcTransport({ baseUrl: `http://127.0.0.1:${running.readyPort()}` }),
      );
      const headers = { authorization: `Bearer ${key}` };
      const answer = await client.publish({ batch: makeBatch(createRandom(1), 3), batchId: 'a' }, { headers });
      assert.is(answer.result?.accepted, 3);
      const started = Date.now();
      running.child.kill('SIGTERM');
      await until('ended', () => running.exit() !== undefined);
      assert.is(running.exit(), 0);
      assert.ok(Date.now() - started < 3_000);
      for (const line of running.output().trim().split('\n')) {
        const { level, role } = JSON.parse(line) as { level: string; role: string };
        assert.is(role, 'gateway', line);
        assert.ok(['info', 'warn'].includes(level), line);
      }
      assert.not(running.output().includes(key));
    });
  });
});

test('it starts without NATS, says that it is not ready and why, becomes ready with NATS, and ends with its parent', async () => {
  const port = await freePort();
  const natsPort = await freePort();
  await withProcess(['--nats-url', `127.0.0.1:${natsPort}`, '--port', String(port)], async (running) => {
    const get = (path: string) => fetch(`http://127.0.0.1:${port}${path}`).catch(() => undefined);
    await until('alive', async () => (await get('/healthz'))?.status === 200);
    const answer = await get('/readyz');
    assert.is(answer?.status, 503);
    assert.match(((await answer?.json()) as { reason: string } | undefined)?.reason ?? '', /NATS/);
    const refused = await fetch(`http://127.0.0.1:${port}/v1/events`, {
      method: 'POST',
      headers: { authorization: 'Bearer x', 'content-type': 'application/json' },
      body: '{}',
    });
    assert.is(refused.status, 503);
    assert.is(((await refused.json()) as { error: { code: string } }).error.code, 'log_unavailable');
    assert.is(running.readyPort(), undefined);
    running.child.disconnect();
    await until('ended', () => running.exit() !== undefined);
    assert.is(running.exit(), 0);
  });
});

test('a bad setting and a busy port are one line that names the fix, and exit code 1', async () => {
  const refused = async (flags: string[], message: RegExp) => {
    await withProcess(flags, async (running) => {
      await until('ended', () => running.exit() !== undefined);
      assert.is(running.exit(), 1);
      const lines = running.output().trim().split('\n');
      assert.is(lines.length, 1, running.output());
      assert.match(running.output(), message);
    });
  };
  await refused(['--prot', '1'], /--prot is not a flag here/);
  await refused(['--port', 'many'], /--port: "many" is not a whole number/);
  await refused(['--tls-cert', 'x.pem'], /--tls-cert and --tls-key go together/);
  await withNats(async ({ url }) => {
    const busy = url.split(':')[1] ?? '';
    await refused(['--port', busy, '--nats-url', url], /Port \d+ on 127\.0\.0\.1 is in use.*--port/);
  });
});

test.run();

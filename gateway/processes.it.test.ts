/** Several gateway processes behind one port: started, dealt to, replaced, drained, and gone with the process that started them. */
import { type ChildProcess, fork } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { fileURLToPath } from 'node:url';
import { createClient } from '@connectrpc/connect';
import { createGrpcTransport } from '@connectrpc/connect-node';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { IngestService } from '#gen/sluice/ingest/v1/ingest_pb.js';
import { testEnvironment } from '../lib/config/index.js';
import { addTenant } from '../lib/tenants.js';
import { createRandom, makeBatch } from '../lib/testing/batches.js';
import { createAuthority } from '../lib/testing/certificate.js';
import { freeze } from '../lib/testing/freeze.js';
import { withNats } from '../lib/testing/nats.js';
import { programFlags, programPath } from '../lib/testing/program.js';
import { until } from '../lib/testing/until.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const { OTEL_SDK_DISABLED: _, ...environment } = testEnvironment();

interface Line {
  readonly msg: string;
  readonly process?: number;
  readonly ms?: number;
  readonly index?: number;
}

interface Running {
  readonly child: ChildProcess;
  readonly output: () => string;
  readonly lines: () => Line[];
  readonly port: () => number | undefined;
  readonly metricsPorts: readonly number[];
  readonly exit: () => number | string | undefined;
}

const alive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

async function withProcesses(flags: string[], use: (running: Running) => Promise<void>): Promise<void> {
  const child = fork(programPath('gateway/main.ts'), ['--processes=2', '--port=0', '--metrics-port=0', ...flags], {
    cwd: root,
    execArgv: [...programFlags, '--import', programPath('lib/telemetry/start.ts')],
    env: environment,
    silent: true,
  });
  let output = '';
  let port: number | undefined;
  let exit: number | string | undefined;
  const metricsPorts: number[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (chunk) => {
      output += String(chunk);
    });
  }
  child.on('message', (message: { ready?: boolean; port?: number; metricsPort?: number }) => {
    if (message.ready === true) port = message.port;
    if (message.metricsPort !== undefined) metricsPorts.push(message.metricsPort);
  });
  child.on('exit', (code, signal) => {
    exit = code ?? signal ?? undefined;
  });
  const lines = (): Line[] =>
    output
      .split('\n')
      .slice(0, -1)
      .filter((line) => line.startsWith('{'))
      .map((line) => JSON.parse(line) as Line);
  try {
    await use({ child, output: () => output, lines, port: () => port, metricsPorts, exit: () => exit });
  } finally {
    if (exit === undefined) child.kill('SIGKILL');
    const pids = started(lines());
    await until('all processes have ended', () => exit !== undefined && !pids.some(alive), 20_000);
  }
}

const started = (lines: Line[]): number[] =>
  lines.filter(({ msg }) => msg === 'process started').map(({ process: pid }) => pid as number);

/** Publishes a batch on a connection of its own. */
async function publish(port: number | undefined, key: string, id: string): Promise<void> {
  const transport = createGrpcTransport({ baseUrl: `http://127.0.0.1:${port}` });
  const headers = { authorization: `Bearer ${key}` };
  const batch = makeBatch(createRandom(1), 3);
  const answer = await createClient(IngestService, transport).publish({ batch, batchId: id }, { headers });
  assert.is(answer.result?.accepted, 3);
}

async function acceptedBy(metricsPort: number): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text();
  return Number(/sluice_gateway_events_total\{[^}]*result="accepted"[^}]*\} (\d+)/.exec(text)?.[1] ?? 0);
}

test('connections are dealt out to all; one that dies is replaced; SIGTERM drains all and exits with 0', async () => {
  await withNats(async ({ url, nc }) => {
    const { key } = await addTenant(nc, { tenant: 'acme' });
    await withProcesses(['--nats-url', url, '--drain-grace', '3s'], async (running) => {
      await until('all ready', () => running.port() !== undefined, 20_000);
      assert.is(running.lines().filter(({ msg }) => msg === 'ready').length, 2, 'told when both are ready');
      for (let i = 0; i < 6; i++) await publish(running.port(), key, `first-${i}`);
      assert.is(running.metricsPorts.length, 2);
      const accepted = await Promise.all(running.metricsPorts.map(acceptedBy));
      assert.is(accepted[0]! + accepted[1]!, 18);
      assert.ok(
        accepted.every((events) => events > 0),
        `connections in turn: ${accepted}`,
      );

      const [first] = started(running.lines()) as [number];
      process.kill(first, 'SIGKILL');
      await until('another in its place', () => started(running.lines()).length === 3, 20_000);
      const again = running.lines().find(({ process: pid }) => pid === started(running.lines())[2]);
      assert.is(again?.index, 0);
      await until('ready again', () => running.lines().filter(({ msg }) => msg === 'ready').length === 3, 20_000);
      for (let i = 0; i < 4; i++) await publish(running.port(), key, `second-${i}`);
      assert.ok((await acceptedBy(running.metricsPorts[2] as number)) > 0, 'the new one takes its turn');

      running.child.kill('SIGTERM');
      await until('ended', () => running.exit() !== undefined);
      assert.is(running.exit(), 0);
      assert.is(running.lines().filter(({ msg }) => msg === 'drained').length, 2);
      assert.not.ok(started(running.lines()).some(alive));
    });
  });
});

test('PROC-5: when the one that started them stands still they hear of it; when it is killed, they drain and end', async () => {
  await withNats(async ({ url }) => {
    await withProcesses(['--nats-url', url, '--stall-after', '1s'], async (running) => {
      await until('all ready', () => running.port() !== undefined, 20_000);
      await freeze(running.child);
      await new Promise((resolve) => setTimeout(resolve, 2_500));
      running.child.kill('SIGCONT');
      const told = () => running.lines().filter(({ msg, ms = 0 }) => /stood still/.test(msg) && ms > 2_400).length;
      await until('both have heard', () => told() === 2, 20_000);
      running.child.kill('SIGKILL');
      await until('drained', () => running.lines().filter(({ msg }) => msg === 'drained').length === 2, 20_000);
    });
  });
});

test('a port in use and a bad setting are reported once, with exit code 1', async () => {
  const refused = async (flags: string[], message: RegExp) => {
    await withProcesses(flags, async (running) => {
      await until('ended', () => running.exit() !== undefined, 20_000);
      assert.is(running.exit(), 1);
      assert.is(running.output().match(new RegExp(message, 'g'))?.length, 1, running.output());
    });
  };
  await refused(['--processes', '0'], /--processes: "0" is not between 1 and 64/);
  await refused(['--metrics-port', '65535'], /--metrics-port: 2 processes count up from it/);
  await withNats(async ({ url }) => {
    await refused(['--port', url.split(':')[1] ?? '', '--nats-url', url], /Port \d+ on 127\.0\.0\.1 is in use/);
  });
});

test('both processes take up a renewed certificate, and both want one of their clients', async () => {
  const [servers, clients] = [createAuthority(), createAuthority()];
  const client = clients.issue();
  const folder = mkdtempSync(join(tmpdir(), 'sluice-tls-'));
  const path = (name: string): string => join(folder, name);
  const put = (commonName: string, days: number): void => {
    const { cert, key } = servers.issue({ commonName, days });
    writeFileSync(path('cert.pem'), cert);
    writeFileSync(path('key.pem'), key);
  };
  put('first', 10);
  writeFileSync(path('ca.pem'), clients.ca);
  const flags = ['--tls-cert', path('cert.pem'), '--tls-key', path('key.pem'), '--tls-client-ca', path('ca.pem')];
  const expiryOf = async (metricsPort: number): Promise<number> => {
    const text = await (await fetch(`http://127.0.0.1:${metricsPort}/metrics`)).text();
    return Number(/sluice_gateway_tls_certificate_expiry_seconds(?:\{[^}]*\})? (\d+)/.exec(text)?.[1]);
  };
  let session: Buffer | undefined;
  const serverName = (port: number | undefined, shown: object): Promise<string> =>
    new Promise((resolve, reject) => {
      const options = { host: '127.0.0.1', port: port ?? 0, ca: servers.ca, ALPNProtocols: ['http/1.1'] };
      const socket = connect({ ...options, ...shown }, () => {
        const name = String(socket.getPeerCertificate().subject?.CN);
        socket.once('data', () => socket.destroy());
        socket.once('close', () => reject(new Error('closed without an answer')));
        socket.once('data', () => resolve(name));
        socket.write('GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n');
      });
      socket.on('session', (ticket) => {
        session = ticket;
      });
      socket.once('error', reject);
    });
  try {
    await withNats(async ({ url }) => {
      await withProcesses(['--nats-url', url, ...flags], async (running) => {
        await until('all ready', () => running.port() !== undefined, 20_000);
        assert.is(await serverName(running.port(), client), 'first');
        // The processes share no keys for tickets: one that a process does not know becomes a whole handshake.
        for (let i = 0; i < 4; i++) await serverName(running.port(), { ...client, session });
        const none = await serverName(running.port(), {}).catch((error: Error) => error.message);
        assert.match(none, /certificate required/);
        put('second', 90);
        const names = async () => Promise.all([1, 2, 3, 4].map(() => serverName(running.port(), client)));
        await until('both serve the second', async () => (await names()).every((name) => name === 'second'), 20_000);
        for (const metricsPort of running.metricsPorts) assert.ok((await expiryOf(metricsPort)) > 80 * 86_400);
      });
    });
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});

test.run();

/** What gateway and worker report as processes: metrics, traces, and both until the end. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { Agent, createServer, type IncomingMessage, request } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { testEnvironment } from '../config/index.js';
import { addTenant } from '../tenants.js';
import { withClickHouse } from '../testing/clickhouse.js';
import { freeze } from '../testing/freeze.js';
import { freePort, type TestNats, withNats } from '../testing/nats.js';
import { programFlags, programPath } from '../testing/program.js';
import { until } from '../testing/until.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
const { OTEL_SDK_DISABLED: _, ...environment } = testEnvironment();

interface Observed {
  readonly child: ChildProcess;
  readonly output: () => string;
  readonly exited: Promise<number | null>;
  readonly metrics: string;
}

function start(entry: string, port: number, flags: readonly string[]): Observed {
  const child = spawn(
    process.execPath,
    [
      ...programFlags,
      '--import',
      programPath('lib/telemetry/start.ts'),
      programPath(entry),
      '--metrics-port',
      String(port),
      ...flags,
    ],
    { cwd: root, stdio: ['ignore', 'ignore', 'pipe', 'ipc'], env: environment },
  );
  let output = '';
  child.stderr?.on('data', (chunk) => {
    output += String(chunk);
  });
  const exited = once(child, 'exit').then(([code]) => code as number | null);
  return { child, output: () => output, exited, metrics: `http://127.0.0.1:${port}/metrics` };
}

async function withRole(
  entry: string,
  flags: readonly string[],
  use: (role: Observed) => Promise<void>,
): Promise<void> {
  const role = start(entry, await freePort(), flags);
  try {
    const ready = new Promise<void>((resolve) => {
      role.child.on('message', (message: { ready?: boolean }) => message.ready === true && resolve());
    });
    await Promise.race([
      ready,
      role.exited.then((code) => Promise.reject(new Error(`${entry} ended with ${code}: ${role.output()}`))),
    ]);
    await use(role);
  } finally {
    role.child.kill('SIGKILL');
    await role.exited;
  }
}

/** Samples of one metric, by their labels without braces. */
async function scrape(url: string): Promise<Map<string, number>> {
  const text = await (await fetch(url)).text();
  return new Map(
    text
      .split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'))
      .map((line) => {
        // The exporter writes a time after the value in some versions.
        const match = /^(\w+(?:\{.*\})?) (\S+)/.exec(line);
        return [match?.[1] ?? line, Number(match?.[2])] as const;
      }),
  );
}

/** Sum of the samples of that name whose labels contain all the texts. */
function sum(samples: ReadonlyMap<string, number>, name: string, ...labels: string[]): number {
  const found = [...samples].filter(
    ([key]) => (key === name || key.startsWith(`${name}{`)) && labels.every((label) => key.includes(label)),
  );
  if (found.length === 0)
    throw new Error(`no ${name} with ${labels.join(', ')} among:\n${[...samples.keys()].join('\n')}`);
  return found.reduce((total, [, value]) => total + value, 0);
}

const event = (eventId: string, type = 'EVENT_TYPE_PAGE') => ({ eventId, type, occurredAt: '2026-01-02T03:04:05Z' });

async function publish(port: number, key: string, events: object[], traceparent?: string): Promise<unknown> {
  const answer = await fetch(`http://127.0.0.1:${port}/sluice.ingest.v1.IngestService/Publish`, {
    method: 'POST',
    headers: {
      authorization: `Bearer ${key}`,
      'content-type': 'application/json',
      ...(traceparent === undefined ? {} : { traceparent }),
    },
    body: JSON.stringify({ batchId: `b-${events.length}-${Math.random()}`, attempt: 1, batch: { events } }),
  });
  const body = await answer.json();
  assert.is(answer.status, 200, JSON.stringify(body));
  return body;
}

function processMetricsAreSane(samples: ReadonlyMap<string, number>): void {
  for (const quantile of ['0.5', '0.99', '1']) {
    const late = sum(samples, 'sluice_process_event_loop_delay_seconds', `quantile="${quantile}"`);
    assert.ok(late >= 0 && late < 30, `event loop ${late}`);
  }
  assert.ok(sum(samples, 'sluice_process_gc_seconds_total') > 0);
  assert.ok(sum(samples, 'sluice_process_gc_runs_total') >= 1);
  const rss = sum(samples, 'sluice_process_memory_bytes', 'kind="rss"');
  assert.ok(rss > 20e6 && rss < 2e9, `rss ${rss}`);
  assert.ok(sum(samples, 'sluice_process_cpu_seconds_total') > 0);
}

const withTenant = (use: (nats: TestNats, key: string) => Promise<void>): Promise<void> =>
  withNats(async (nats) => use(nats, (await addTenant(nats.nc, { tenant: 'acme' })).key));

test('a gateway tells rates, sizes, reasons, latencies and its own state', async () => {
  await withTenant(async (nats, key) => {
    const port = await freePort();
    await withRole('gateway/main.ts', ['--nats-url', nats.url, '--port', String(port)], async (gateway) => {
      await publish(port, key, [event('a'), event('b'), event('c')]);
      await publish(port, key, [event('d'), event(''), event('e', 'EVENT_TYPE_UNSPECIFIED')]);
      const samples = await scrape(gateway.metrics);
      assert.is(sum(samples, 'sluice_gateway_events_total', 'result="accepted"'), 4);
      assert.is(sum(samples, 'sluice_gateway_events_total', 'result="rejected"'), 2);
      assert.is(sum(samples, 'sluice_gateway_rejected_events_total', 'reason="REQUIRED"'), 2);
      assert.is(sum(samples, 'sluice_gateway_batches_total', 'result="stored"'), 2);
      assert.is(sum(samples, 'sluice_gateway_batch_events_count'), 2);
      assert.is(sum(samples, 'sluice_gateway_batch_events_sum'), 6);
      assert.ok(sum(samples, 'sluice_gateway_flushes_total') >= 1);
      assert.is(sum(samples, 'sluice_gateway_in_flight_bytes'), 0);
      const publishes = sum(samples, 'sluice_gateway_publish_ms_count');
      assert.ok(publishes >= 1 && publishes <= 2);
      const ms = sum(samples, 'sluice_gateway_publish_ms_sum') / publishes;
      assert.ok(ms > 0 && ms < 5_000, `${ms} ms`);
      assert.is(sum(samples, 'sluice_gateway_publish_ms_bucket', 'le="+Inf"'), publishes);
      const bytes = sum(samples, 'sluice_gateway_payload_bytes_sum');
      assert.ok(bytes > 50 && bytes < 5_000, `${bytes} bytes`);
      assert.is(sum(samples, 'sluice_gateway_key_cache_total', 'result="miss"'), 1);
      assert.ok(sum(samples, 'sluice_gateway_key_cache_total', 'result="hit"') >= 1);
      await until(
        'garbage was collected',
        async () => {
          await publish(
            port,
            key,
            Array.from({ length: 500 }, (_, i) => event(`g-${i}`)),
          );
          return [...(await scrape(gateway.metrics)).keys()].some((name) => name.startsWith('sluice_process_gc_runs'));
        },
        10_000,
      );
      processMetricsAreSane(await scrape(gateway.metrics));
    });
  });
});

const probeOf = async (url: string): Promise<[number, unknown]> => {
  const answer = await fetch(url);
  return [answer.status, await answer.json()];
};

test("the metrics port answers probes while the gateway's own port is full", async () => {
  await withTenant(async (nats, key) => {
    const port = await freePort();
    const flags = ['--nats-url', nats.url, '--port', String(port), '--max-connections', '1'];
    await withRole('gateway/main.ts', flags, async (gateway) => {
      const held = request({
        ...{ port, method: 'POST', path: '/v1/events', agent: false },
        headers: { authorization: `Bearer ${key}`, 'content-type': 'application/json', 'content-length': '10' },
      });
      held.on('error', () => {});
      held.write('{');
      await until(
        'the only connection has an open call',
        async () => {
          const refused = await fetch(`http://127.0.0.1:${port}/readyz`).then(
            () => false,
            () => true,
          );
          return refused;
        },
        10_000,
      );
      const base = gateway.metrics.replace('/metrics', '');
      assert.equal(await probeOf(`${base}/healthz`), [200, { status: 'alive' }]);
      assert.equal(await probeOf(`${base}/readyz`), [200, { status: 'ready' }]);
      assert.is((await fetch(`${base}/other`)).status, 404);
      held.destroy();
    });
  });
});

test('metrics are for this machine: a page whose name points here gets none', async () => {
  await withTenant(async (nats) => {
    const port = await freePort();
    await withRole('gateway/main.ts', ['--nats-url', nats.url, '--port', String(port)], async (gateway) => {
      await until('it answers', async () => (await fetch(gateway.metrics).catch(() => undefined))?.ok === true, 10_000);
      const { port: metricsPort } = new URL(gateway.metrics);
      const answered = (host: string): Promise<[number, string]> =>
        new Promise((resolve, reject) => {
          const sent = request(
            { host: '127.0.0.1', port: metricsPort, path: '/metrics', headers: { host } },
            (answer) => {
              let text = '';
              answer.on('data', (chunk) => (text += String(chunk)));
              answer.on('end', () => resolve([answer.statusCode ?? 0, text]));
            },
          );
          sent.on('error', reject);
          sent.end();
        });
      const [status, text] = await answered('evil.example');
      assert.is(status, 403);
      assert.match(text, /^The name in the Host header is not one of this server/);
      for (const host of ['localhost', `[::1]:${metricsPort}`]) assert.is((await answered(host))[0], 200);
    });
  });
});

test('a busy metrics port is one line that names the flag, and exit code 1', async () => {
  const holder = createServer().listen(0, '127.0.0.1');
  await once(holder, 'listening');
  const { port } = holder.address() as AddressInfo;
  try {
    for (const entry of ['gateway/main.ts', 'workers/main.ts']) {
      const role = start(entry, port, []);
      assert.is(await role.exited, 1);
      assert.match(role.output(), new RegExp(`^Port ${port} for /metrics .*--metrics-port.*\\n$`));
    }
  } finally {
    holder.close();
  }
});

interface Collector {
  readonly url: string;
  /** All that was received from a service. */
  has(service: string, bytes: Buffer): boolean;
}

async function withCollector(use: (collector: Collector) => Promise<void>): Promise<void> {
  const bodies: Buffer[] = [];
  const server = createServer((request, response) => {
    const chunks: Buffer[] = [];
    request.on('data', (chunk: Buffer) => chunks.push(chunk));
    request.on('end', () => {
      bodies.push(Buffer.concat(chunks));
      response.writeHead(200, { 'content-type': 'application/x-protobuf' }).end();
    });
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  try {
    await use({
      url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/traces`,
      has: (service, bytes) => bodies.some((body) => body.includes(service) && body.includes(bytes)),
    });
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

test("a worker tells rows, latencies and its queue; a caller's trace runs through gateway and worker, and the last spans leave at the end", async () => {
  await withTenant((nats, key) =>
    withClickHouse((clickhouse) =>
      withCollector(async (collector) => {
        const port = await freePort();
        const traced = ['--nats-url', nats.url, '--otlp-url', collector.url, '--trace-ratio', '1'];
        await withRole('gateway/main.ts', [...traced, '--port', String(port)], (gateway) =>
          withRole('workers/main.ts', [...traced, '--clickhouse-url', clickhouse.url], async (worker) => {
            const traceId = '0af7651916cd43dd8448eb211c80319c';
            await publish(port, key, [event('a'), event('b')], `00-${traceId}-b7ad6b7169203331-01`);
            let samples = new Map<string, number>();
            await until(
              'two rows are counted',
              async () => {
                samples = await scrape(worker.metrics);
                return [...samples].some(([name, value]) => name.startsWith('sluice_worker_rows_total') && value === 2);
              },
              20_000,
            );
            assert.is(sum(samples, 'sluice_worker_rows_total'), 2);
            assert.ok(sum(samples, 'sluice_worker_bytes_total') > 50);
            assert.is(sum(samples, 'sluice_worker_blocks_total', 'reason='), 1);
            assert.is(sum(samples, 'sluice_worker_insert_seconds_count'), 1);
            const seconds = sum(samples, 'sluice_worker_insert_seconds_sum');
            assert.ok(seconds > 0 && seconds < 30, `${seconds} s`);
            assert.is(sum(samples, 'sluice_worker_shards'), 2);
            assert.ok(sum(samples, 'sluice_worker_pool') >= 0);
            await until(
              'the queue is reported, and empty',
              async () => {
                samples = await scrape(worker.metrics);
                const told = [...samples.keys()].some((name) => name.startsWith('sluice_worker_queue_depth'));
                return told && sum(samples, 'sluice_worker_queue_depth') === 0;
              },
              10_000,
            );
            processMetricsAreSane(samples);

            // The batch processor sends every five seconds; the end must not wait for that, nor lose what is left.
            const lastTraceId = '4bf92f3577b34da6a3ce929d0e0e4736';
            await publish(port, key, [event('c')], `00-${lastTraceId}-b7ad6b7169203331-01`);
            await until(
              'the last row is counted',
              async () => {
                return sum(await scrape(worker.metrics), 'sluice_worker_rows_total') === 3;
              },
              20_000,
            );
            for (const role of [worker, gateway]) {
              const since = performance.now();
              role.child.kill('SIGTERM');
              assert.is(await role.exited, 0, role.output());
              assert.ok(performance.now() - since < 4_000, `${performance.now() - since} ms`);
            }
            for (const id of [traceId, lastTraceId]) {
              assert.ok(collector.has('sluice-gateway', Buffer.from(id, 'hex')), `the gateway's span of ${id}`);
              assert.ok(collector.has('sluice-worker', Buffer.from(id, 'hex')), `the worker's link to ${id}`);
            }
          }),
        );
      }),
    ),
  );
});

test('a collector that never answers does not hold up the end, and metrics can be read while a gateway drains', async () => {
  await withTenant(async (nats, key) => {
    const silent = createServer(() => {}).listen(0, '127.0.0.1');
    await once(silent, 'listening');
    const url = `http://127.0.0.1:${(silent.address() as AddressInfo).port}/v1/traces`;
    const port = await freePort();
    const flags = ['--nats-url', nats.url, '--port', String(port), '--otlp-url', url, '--trace-ratio', '1'];
    try {
      await withRole('gateway/main.ts', [...flags, '--drain-grace', '3s'], async (gateway) => {
        await publish(port, key, [event('a')]);
        // Work in flight that cannot end: the drain lasts as long as it may.
        await freeze(nats.process());
        const stuck = publish(port, key, [event('b')]).catch(() => undefined);
        await until(
          'bytes in flight',
          async () => sum(await scrape(gateway.metrics), 'sluice_gateway_in_flight_bytes') > 0,
          5_000,
        );
        gateway.child.kill('SIGTERM');
        const since = performance.now();
        await until('it drains', () => gateway.output().includes('"draining"'), 5_000);
        await new Promise((resolve) => setTimeout(resolve, 1_500));
        const samples = await scrape(gateway.metrics);
        assert.is(sum(samples, 'sluice_gateway_batches_total', 'result="stored"'), 1);
        await gateway.exited;
        assert.ok(performance.now() - since < 8_000, `${performance.now() - since} ms`);
        nats.process().kill('SIGCONT');
        await stuck;
      });
    } finally {
      silent.closeAllConnections();
      silent.close();
    }
  });
});

test('figures that are asked for ahead and not read cost their connection, and little memory', async () => {
  await withTenant(async (nats) => {
    const flags = ['--nats-url', nats.url, '--port', '0'];
    await withRole('gateway/main.ts', flags, async (gateway) => {
      const before = sum(await scrape(gateway.metrics), 'sluice_process_memory_bytes', 'kind="rss"');
      const port = Number(new URL(gateway.metrics).port);
      const ahead = 'GET /metrics HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n'.repeat(5_000);
      const ends = Array.from({ length: 16 }, async () => {
        const socket = connect(port, '127.0.0.1');
        socket.on('error', () => {}).pause();
        socket.write(ahead);
        await new Promise((resolve) => setTimeout(resolve, 100));
        await new Promise((resolve) => socket.once('close', resolve).resume());
      });
      await Promise.all(ends);
      const after = sum(await scrape(gateway.metrics), 'sluice_process_memory_bytes', 'kind="rss"');
      assert.ok(after - before < 100 * 1024 ** 2, `from ${before} to ${after}`);
    });
  });
});

test('who scrapes on one connection again and again keeps it', async () => {
  await withTenant(async (nats) => {
    await withRole('gateway/main.ts', ['--nats-url', nats.url, '--port', '0'], async ({ metrics }) => {
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      const ports = new Set<number | undefined>();
      for (let i = 0; i < 20; i++) {
        const asked = request(metrics, { agent }).end();
        const [answer] = (await once(asked, 'response')) as [IncomingMessage];
        assert.is(answer.statusCode, 200);
        ports.add(answer.socket.localPort);
        await once(answer.resume(), 'end');
      }
      agent.destroy();
      assert.is(ports.size, 1);
    });
  });
});

test.run();

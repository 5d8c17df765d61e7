/**
 * Telemetry of a role: traces to an OTLP collector when there is one, metrics on a Prometheus endpoint. Loaded before the
 * role (`node --import ./dist/lib/telemetry/start.js dist/gateway/main.js …`), because instruments made before the SDK
 * has started stay without effect (FACT-10). It reads the role's own command line.
 *
 *   start.ts             the SDK
 *   shared-figures.ts    collects figures for all who ask at the same time
 *   probes.ts            /healthz and /readyz beside /metrics
 *   flush.ts             the last spans, which a role sends when it has drained; metrics can be read until it ends
 *   process-metrics.ts   garbage collection, event loop, memory, CPU
 *
 * Nothing here throws into the role. But a metrics port that is not available ends it at once. With OTEL_SDK_DISABLED=true
 * nothing is started.
 */
import cluster from 'node:cluster';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { extname, sep } from 'node:path';
import { diag, metrics } from '@opentelemetry/api';
import { PrometheusExporter, PrometheusSerializer } from '@opentelemetry/exporter-prometheus';
import { OTLPTraceExporter } from '@opentelemetry/exporter-trace-otlp-proto';
import { resourceFromAttributes } from '@opentelemetry/resources';
import { NodeSDK, tracing } from '@opentelemetry/sdk-node';
import {
  embeddedOptions,
  flagOf,
  gatewayOptions,
  type OptionTable,
  parseArgv,
  resolveOptions,
  telemetryDisabled,
  workerOptions,
} from '../config/index.js';
import { isOwnHost } from '../own-host.js';
import { probe } from './probes.js';
import { observeProcess } from './process-metrics.js';
import { shareFigures } from './shared-figures.js';

interface Role {
  readonly name: string;
  readonly options: OptionTable;
  /** Name of the option with the metrics port. */
  readonly port: string;
}

/** By the end of the path of the file that is run, without extension. */
const roles: Readonly<Record<string, Role>> = {
  'gateway/main': { name: 'gateway', options: gatewayOptions, port: 'metricsPort' },
  'workers/main': { name: 'worker', options: workerOptions, port: 'metricsPort' },
  'workers/embedded/main': { name: 'clickhouse', options: embeddedOptions, port: 'clickhouseMetricsPort' },
};

function roleOf(entry: string): Role | undefined {
  const path = entry.slice(0, -extname(entry).length).split(sep).join('/');
  return Object.entries(roles).find(([file]) => path === file || path.endsWith(`/${file}`))?.[1];
}

/** Undefined when the command line is wrong: the role itself will say so. */
function settingsOf(role: Role): Record<string, unknown> | undefined {
  try {
    return resolveOptions(role.options, parseArgv(process.argv.slice(2), role.options)) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}

/** A request for figures is small, ms. */
const readWithin = { headersTimeout: 10_000, requestTimeout: 10_000, keepAliveTimeout: 60_000 } as const;
/** Of those who read figures. */
const maxConnections = 32;
/** Between two collections of figures. */
const apartMs = 50;

/** Of all metrics, as Prometheus reads them. */
async function collectText(endpoint: PrometheusExporter, serializer: PrometheusSerializer): Promise<string> {
  const { resourceMetrics, errors } = await endpoint.collect();
  if (errors.length > 0) diag.error('metrics could not be collected', ...errors);
  return serializer.serialize(resourceMetrics);
}

/**
 * Who asks again before the answer is there loses the connection: no scraper and no probe pipelines, and each answer of those that are
 * not read would be held.
 */
function oneByOne(serve: RequestListener): RequestListener {
  const busy = new WeakSet<Socket>();
  return (request, response) => {
    const { socket } = request;
    if (socket.destroyed) return;
    if (busy.has(socket)) {
      socket.destroy();
      return;
    }
    busy.add(socket);
    response.once('close', () => busy.delete(socket));
    serve(request, response);
  };
}

async function start(role: Role, config: Record<string, unknown>): Promise<void> {
  const host = String(config.host);
  const port = Number(config[role.port]);
  // A server of our own: the exporter's takes port 0 for its default, and would keep the process from ending.
  const endpoint = new PrometheusExporter({ preventServerStart: true });
  const serializer = new PrometheusSerializer();
  const figures = shareFigures({ apartMs, collect: () => collectText(endpoint, serializer) });
  const serve: RequestListener = (request, response) => {
    if (!isOwnHost(request.headers.host, host)) {
      const names = [...new Set(['127.0.0.1', 'localhost', '[::1]', host])].join(', ');
      return response
        .writeHead(403)
        .end(`The name in the Host header is not one of this server: call it as ${names}.\n`);
    }
    const path = (request.url ?? '').split('?', 1)[0] ?? '';
    if (path === '/metrics') {
      const fail = (error: Error) => response.writeHead(500).end(`# The figures cannot be had: ${error.message}\n`);
      return figures().then((text) => response.writeHead(200, { 'content-type': 'text/plain' }).end(text), fail);
    }
    const answer = probe(path);
    if (answer === undefined) return response.writeHead(404).end('Metrics are at /metrics.\n');
    const { status, body } = answer;
    response.writeHead(status, { 'content-type': 'application/json' }).end(`${JSON.stringify(body)}\n`);
  };
  const server = createServer(readWithin, oneByOne(serve));
  try {
    // Exclusive: of several gateway processes each has its own, also where they take any free port.
    await new Promise<void>((resolve, reject) =>
      server.once('error', reject).listen({ port, host, exclusive: true }, resolve),
    );
  } catch (error) {
    process.stderr.write(
      `Port ${port} for /metrics cannot be had (${(error as Error).message}): set ${flagOf(role.port)} to another.\n`,
    );
    process.exit(1);
  }
  server.maxConnections = maxConnections;
  server.unref();
  if (port === 0) process.send?.({ metricsPort: (server.address() as AddressInfo).port });
  const url = String(config.otlpUrl ?? '');
  const sdk = new NodeSDK({
    resource: resourceFromAttributes({ 'service.name': `sluice-${role.name}` }),
    autoDetectResources: false,
    instrumentations: [],
    metricReaders: [endpoint],
    sampler: new tracing.ParentBasedSampler({
      root: new tracing.TraceIdRatioBasedSampler(Number(config.traceRatio ?? 0)),
    }),
    // Without a collector spans still carry the context on, and go nowhere.
    spanProcessors: url === '' ? [] : [new tracing.BatchSpanProcessor(new OTLPTraceExporter({ url }))],
  });
  sdk.start();
  observeProcess(metrics.getMeter('sluice'));
}

const role = roleOf(process.argv[1] ?? '');
const config = role === undefined || telemetryDisabled() ? undefined : settingsOf(role);
// A process that only starts others has nothing to tell, and its port is the first one's.
const startsOthers = Number(config?.processes ?? 1) > 1 && cluster.isPrimary;
if (role !== undefined && config !== undefined && !startsOthers) await start(role, config);

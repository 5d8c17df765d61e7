/**
 * `sluice up`: the whole stack on one machine, each part its own process.
 *
 *   index.ts         the order of starting and ending, what is printed
 *   child.ts         one supervised process
 *   tether.mjs       ends nats-server with the supervisor, however that one ends
 *   nats-config.ts   nats-server's settings and readiness
 *   ports.ts         free ports, and who has a busy one
 *   data-folder.ts   whether a folder may hold the data
 *   lock.ts          one supervisor per data folder
 */
import { chmodSync, existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { flagOf, type UpConfig } from '../../lib/config/index.js';
import { UsageError } from '../../lib/errors.js';
import { reachable, urlHost } from '../../lib/host.js';
import { silentLogger } from '../../lib/logger.js';
import { makeFolder } from '../../lib/make-folder.js';
import { connectNats } from '../../lib/nats.js';
import { secretIn, writeSecret } from '../../lib/secret-file.js';
import { addTenant, watchTenants } from '../../lib/tenants.js';
import { shellWord } from '../../lib/terminal.js';
import { ensureNatsServer } from '../nats-server.js';
import { nodeArguments, nodeEnvironment } from '../roles.js';
import {
  clickhousePasswordOf,
  keyFileOf,
  natsCredentialsOf,
  removeRunningStack,
  survivors,
  writeRunningStack,
} from '../stack-file.js';
import { type ChildOptions, type SupervisedChild, supervise } from './child.js';
import { folderProblem } from './data-folder.js';
import { lockFolder } from './lock.js';
import { natsGreets, writeNatsConfig } from './nats-config.js';
import { portProblem } from './ports.js';

const demoTenant = 'demo';
/** Of the stack's nats-server. */
const natsUser = 'sluice';
const readyWithinMs = 60_000;

/** Every port that the stack listens on, by the option that sets it. */
function portsOf(config: UpConfig): { readonly option: string; readonly port: number; readonly what: string }[] {
  return [
    { option: 'port', port: config.port, what: 'gateway' },
    { option: 'gatewayMetricsPort', port: config.gatewayMetricsPort, what: "gateway's metrics" },
    { option: 'clickhousePort', port: config.clickhousePort, what: 'embedded ClickHouse' },
    { option: 'clickhouseMetricsPort', port: config.clickhouseMetricsPort, what: "embedded ClickHouse's metrics" },
    { option: 'natsPort', port: config.natsPort, what: 'nats-server' },
    ...(config.natsMonitorPort === 0
      ? []
      : [{ option: 'natsMonitorPort', port: config.natsMonitorPort, what: "nats-server's monitoring" }]),
    ...Array.from({ length: config.workers }, (_, i) => ({
      option: 'workerMetricsPort',
      port: config.workerMetricsPort + i,
      what: `metrics of worker ${i + 1}`,
    })),
  ];
}

export interface PortLook {
  readonly port: number;
  readonly what: string;
  /** Why it cannot be had, and the fix; undefined when all is well. */
  readonly problem: string | undefined;
}

/** Looks at every port: whether it is wanted once, and free. */
export async function lookAtPorts(config: UpConfig): Promise<PortLook[]> {
  const seen = new Map<number, string>();
  const looks: PortLook[] = [];
  for (const { option, port, what } of portsOf(config)) {
    const other = seen.get(port);
    seen.set(port, what);
    const taken = other === undefined ? await portProblem(config.host, port, flagOf(option)) : undefined;
    const problem =
      other !== undefined
        ? `is wanted twice, for ${other} and ${what}: set ${flagOf(option)} to another.`
        : taken !== undefined
          ? `(${what}) ${taken}`
          : undefined;
    looks.push({ port, what, problem });
  }
  return looks;
}

/** How long ports are waited for that a killed stack may hold: one that was killed while it started has left no list of its parts. */
const portsFreeWithinMs = 20_000;

/** @throws UsageError that names the first port that cannot be had */
async function refuseBusyPorts(config: UpConfig, lastWasKilled: boolean, say: (line: string) => void): Promise<void> {
  const until = Date.now() + (lastWasKilled ? portsFreeWithinMs : 0);
  for (let told = false; ; told = true) {
    const looks = await lookAtPorts(config);
    const busy = looks.find(({ problem }) => problem !== undefined);
    if (busy === undefined) return;
    if (Date.now() >= until) throw new UsageError(`Port ${busy.port} ${busy.problem}`);
    if (!told)
      say(`The last stack of this folder was killed. Waiting for port ${busy.port}, which it may still hold …`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Longer than any part takes to finish what it has, once its supervisor is gone. */
const survivorsEndWithinMs = 40_000;

/**
 * The parts of a stack whose supervisor was killed end by themselves, each when it has finished; until then they hold their ports.
 * @throws UsageError that names those which go on
 */
async function lastStackEnded(data: string, say: (line: string) => void): Promise<void> {
  const until = Date.now() + survivorsEndWithinMs;
  for (let told = false; ; told = true) {
    const left = survivors(data);
    if (left.length === 0) return;
    const named = left.map(({ name, pid }) => `${name} (process ${pid})`).join(', ');
    if (!told) say(`The last stack of this folder was killed. Waiting for what is left of it: ${named} …`);
    if (Date.now() > until)
      throw new UsageError(`Parts of the last stack do not end: ${named}. End them, then start again.`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** The demo tenant's key: that of an earlier start if it is still valid, else a new one. */
async function demoKey(nats: string, data: string): Promise<string> {
  const file = keyFileOf(data);
  const credentials = natsCredentialsOf(data);
  const nc = await connectNats({
    servers: nats,
    credentials,
    name: 'sluice up',
    logger: silentLogger,
    timeoutMs: 10_000,
  });
  try {
    if (existsSync(file)) {
      chmodSync(file, 0o600);
      const key = readFileSync(file, 'utf8').trim();
      const directory = await watchTenants(nc, silentLogger);
      try {
        directory.lookup(`Bearer ${key}`);
        return key;
      } catch {
        // Revoked, or from another log: a new one below.
      } finally {
        await directory.close();
      }
    }
    const { key } = await addTenant(nc, { tenant: demoTenant, note: 'made by sluice up' });
    writeSecret(file, `${key}\n`);
    return key;
  } finally {
    await nc.close();
  }
}

/** @throws UsageError the file was edited to something else */
function loginOf(text: string, file: string): { readonly user: string; readonly password: string } {
  const colon = text.indexOf(':');
  if (colon < 1 || colon === text.length - 1)
    throw new UsageError(
      `${file} does not hold a line \`user:password\`: remove it, and the next start makes a new one.`,
    );
  return { user: text.slice(0, colon), password: text.slice(colon + 1) };
}

/** Runs the stack until it is asked to end. @returns the exit code */
export async function up(config: UpConfig): Promise<number> {
  const say = (line: string): void => {
    process.stderr.write(`${line}\n`);
  };
  const data = resolve(config.data);
  const problem = folderProblem(config.data);
  if (problem !== undefined) throw new UsageError(problem);
  const natsServer = ensureNatsServer(say);
  // Of all parts: what they write is for this user alone.
  process.umask(0o077);
  const lock = lockFolder(data);
  const children: SupervisedChild[] = [];
  let finish: (code: number) => void = () => {};
  const finished = new Promise<number>((resolve) => {
    finish = resolve;
  });
  let signals = 0;
  const onSignal = (): void => {
    signals++;
    if (signals === 1) {
      say(
        '\nEnding: the gateway finishes what it has taken, then the workers, ClickHouse and NATS end. Ctrl-C again: at once.',
      );
      finish(0);
    } else {
      for (const child of children) child.kill();
    }
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onSignal);

  try {
    await lastStackEnded(data, say);
    await refuseBusyPorts(config, lock.takenOver, say);
    for (const folder of ['logs', 'nats', 'clickhouse']) makeFolder(join(data, folder));
    const { host } = config;
    const at = urlHost(reachable(host));
    const nats = `${at}:${config.natsPort}`;
    const clickhouse = `http://${at}:${config.clickhousePort}`;
    const gateway = `http://${at}:${config.port}`;
    const [natsCredentials, clickhousePasswordFile] = [natsCredentialsOf(data), clickhousePasswordOf(data)];
    const login = loginOf(secretIn(natsCredentials, `${natsUser}:`), natsCredentials);
    secretIn(clickhousePasswordFile);
    let key = '';
    const describe = (): void => {
      if (key === '') return;
      writeRunningStack(data, {
        pid: process.pid,
        gateway,
        clickhouse,
        clickhousePasswordFile,
        nats,
        natsCredentials,
        metrics: {
          gateway: `http://${at}:${config.gatewayMetricsPort}/metrics`,
          clickhouse: `http://${at}:${config.clickhouseMetricsPort}/metrics`,
          ...Object.fromEntries(
            Array.from({ length: config.workers }, (_, i) => [
              `worker-${i + 1}`,
              `http://${at}:${config.workerMetricsPort + i}/metrics`,
            ]),
          ),
        },
        pids: Object.fromEntries(children.map((child) => [child.name, child.pid ?? 0])),
        tenant: demoTenant,
      });
    };
    const add = (
      name: string,
      args: readonly string[],
      more: Pick<ChildOptions, 'env' | 'probe' | 'mayWait' | 'endWithinMs'>,
    ): SupervisedChild => {
      const child = supervise({
        name,
        args,
        logFile: join(data, 'logs', `${name}.log`),
        readyWithinMs,
        say,
        onReady: describe,
        ...more,
      });
      children.push(child);
      return child;
    };
    const common = ['--host', host, '--log-level', config.logLevel];
    const observed = [
      ...common,
      ...['--nats-url', nats, '--nats-credentials', natsCredentials],
      '--trace-ratio',
      String(config.traceRatio),
      '--otlp-url',
      config.otlpUrl,
    ];

    say('Starting nats-server and ClickHouse …');
    const natsConfig = writeNatsConfig({
      folder: join(data, 'nats'),
      host,
      port: config.natsPort,
      monitorPort: config.natsMonitorPort || undefined,
      login,
    });
    const tether = fileURLToPath(new URL('./tether.mjs', import.meta.url));
    const first = [
      add('nats', [tether, natsServer, '-c', natsConfig], {
        probe: (ended) => natsGreets(reachable(host), config.natsPort, readyWithinMs, ended),
        endWithinMs: 15_000,
      }),
      add(
        'clickhouse',
        nodeArguments('clickhouse', [
          ...common,
          ...['--clickhouse-port', String(config.clickhousePort), '--clickhouse-data', join(data, 'clickhouse')],
          ...['--clickhouse-metrics-port', String(config.clickhouseMetricsPort)],
          ...['--clickhouse-password-file', clickhousePasswordFile],
        ]),
        { endWithinMs: 30_000 },
      ),
    ];
    const early = await Promise.race([Promise.all(first.map((child) => child.ready)).then(() => undefined), finished]);
    if (early !== undefined) return early;
    key = await demoKey(nats, data);

    say('Starting the gateway and the workers …');
    /** Undefined when all are ready; the exit code when the user ended it first. */
    const until = (started: readonly SupervisedChild[]): Promise<number | undefined> =>
      Promise.race([Promise.all(started.map((child) => child.ready)).then(() => undefined), finished]);
    const gatewayFlags = [
      ...['--port', config.port, '--metrics-port', config.gatewayMetricsPort, '--shards', config.shards],
      ...['--reflection', config.reflection],
    ].map(String);
    // The gateway makes streams and buckets, and the workers come when they are there: nats-server 2.9.10 was seen to crash
    // when a bucket was read while it was being made.
    const front = await until([
      add('gateway', nodeArguments('gateway', [...observed, ...gatewayFlags]), {
        env: nodeEnvironment('gateway'),
        // Without it the workers go on loading what is in the log.
        mayWait: true,
        endWithinMs: 20_000,
      }),
    ]);
    if (front !== undefined) return front;
    const late = await until(
      Array.from({ length: config.workers }, (_, i) => {
        const own = [
          ...['--clickhouse-url', clickhouse, '--metrics-port', String(config.workerMetricsPort + i)],
          // Whatever user and password the environment has: they are of another ClickHouse.
          ...[
            '--clickhouse-user=default',
            '--clickhouse-password=',
            '--clickhouse-password-file',
            clickhousePasswordFile,
          ],
        ];
        return add(
          config.workers === 1 ? 'worker' : `worker-${i + 1}`,
          nodeArguments('worker', [...observed, ...own]),
          // Without them the gateway goes on taking events into the log.
          { mayWait: true, endWithinMs: 20_000 },
        );
      }),
    );
    if (late !== undefined) return late;
    describe();
    const waits = children.filter((child) => !child.wasReady).map((child) => child.name);
    process.stdout.write(greeting({ config, gateway, data: config.data, key, waits }));
    return await finished;
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`The stack could not be started. ${(error as Error).message}`);
  } finally {
    // Gateway first, so that nothing new comes; NATS last, so that everybody can finish.
    for (const name of ['gateway', 'worker', 'clickhouse', 'nats']) {
      await Promise.all(children.filter((child) => child.name.startsWith(name)).map((child) => child.end()));
    }
    removeRunningStack(data);
    lock.release();
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.off(signal, onSignal);
  }
}

function greeting(stack: {
  config: UpConfig;
  gateway: string;
  data: string;
  key: string;
  waits: readonly string[];
}): string {
  const { config, gateway, data, key, waits } = stack;
  const state = waits.length === 0 ? 'is ready' : `runs without ${waits.join(' and ')}, which waits (see above),`;
  const at = new Date().toISOString();
  const event = (id: string): string =>
    `{"eventId":"${id}","type":"EVENT_TYPE_PAGE","occurredAt":"${at}","page":{"url":"https://shop.example/"}}`;
  const dataFlag = data === 'sluice-data' ? '' : ` --data ${shellWord(data)}`;
  const keyFile = shellWord(keyFileOf(data));
  const [passwordFile, credentials] = [shellWord(clickhousePasswordOf(data)), shellWord(natsCredentialsOf(data))];
  const host = urlHost(reachable(config.host));
  // To curl and to shells, brackets are a pattern.
  const globs = host.startsWith('[') ? '-g ' : '';
  const authority = gateway.slice('http://'.length);
  return `
Sluice ${state} at ${gateway} (gRPC, gRPC-Web, Connect, HTTP).

  Key of the tenant "${demoTenant}":   ${key}
                            (kept in ${keyFileOf(data)})
  Metrics:                  http://${host}:${config.gatewayMetricsPort}/metrics (gateway), :${config.workerMetricsPort} (worker), :${config.clickhouseMetricsPort} (ClickHouse)
  Logs:                     ${join(data, 'logs')}

Send an event with curl:

  curl -s ${globs}${shellWord(`${gateway}/v1/events`)} -H "authorization: Bearer $(cat ${keyFile})" -H 'content-type: application/json' \\
    -d '${event('hello-1')}'

… or with grpcurl, which needs no .proto files:

  grpcurl -plaintext -H "authorization: Bearer $(cat ${keyFile})" \\
    -d '{"batchId":"hello-batch-2","batch":{"events":[${event('hello-2')}]}}' \\
    ${shellWord(authority)} sluice.ingest.v1.IngestService/Publish

See it in ClickHouse a second later:

  npx sluice query${dataFlag} "SELECT event_id, type, page_url, received_at FROM events ORDER BY received_at DESC LIMIT 5"

ClickHouse and NATS ask for secrets, which lie in the data folder. Other programs log in like this:

  printf 'x-clickhouse-key: %s' "$(cat ${passwordFile})" | curl -s ${globs}-H @- ${shellWord(`http://${host}:${config.clickhousePort}/?query=SELECT+count()+FROM+sluice.events`)}
  NATS_URL="nats://$(cat ${credentials})@${host}:${config.natsPort}" nats stream ls

Ctrl-C ends everything.
`;
}

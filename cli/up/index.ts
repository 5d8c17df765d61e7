/**
 * `sluice up`: the whole stack on one machine, each part its own process.
 *
 *   index.ts         the order of starting and ending
 *   parts.ts         how each part is started, and where it is reached
 *   greeting.ts      what is printed when all run
 *   child.ts         one supervised process
 *   tether.mjs       ends nats-server with the supervisor, however that one ends
 *   nats-config.ts   nats-server's settings and readiness
 *   ports.ts         free ports, and who has a busy one
 *   data-folder.ts   whether a folder may hold the data
 *   lock.ts          one supervisor per data folder
 */
import { chmodSync, existsSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { flagOf, type UpConfig } from '../../lib/config/index.js';
import { UsageError } from '../../lib/errors.js';
import { silentLogger } from '../../lib/logger.js';
import { makeFolder } from '../../lib/make-folder.js';
import { connectNats } from '../../lib/nats.js';
import { writeSecret } from '../../lib/secret-file.js';
import { addTenant, watchTenants } from '../../lib/tenants.js';
import { ensureNatsServer } from '../nats-server.js';
import { keyFileOf, natsCredentialsOf, removeRunningStack, survivors, writeRunningStack } from '../stack-file.js';
import { type SupervisedChild, supervise } from './child.js';
import { folderProblem } from './data-folder.js';
import { greeting } from './greeting.js';
import { lockFolder } from './lock.js';
import {
  demoTenant,
  describeStack,
  makeSecrets,
  placesOf,
  readyWithinMs,
  type Start,
  startGateway,
  startStores,
  startWorkers,
} from './parts.js';
import { portProblem } from './ports.js';

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
  const interrupted = watchSignals(children, say);

  try {
    await lastStackEnded(data, say);
    await refuseBusyPorts(config, lock.takenOver, say);
    for (const folder of ['logs', 'nats', 'clickhouse']) makeFolder(join(data, folder));
    const places = placesOf(config, data);
    const login = makeSecrets(places);
    let key = '';
    const describe = (): void => {
      if (key !== '') writeRunningStack(data, describeStack(config, places, children));
    };
    const start: Start = (name, args, more) => {
      const logFile = join(data, 'logs', `${name}.log`);
      const child = supervise({ name, args, logFile, readyWithinMs, say, onReady: describe, ...more });
      children.push(child);
      return child;
    };
    /** Undefined when all are ready; the exit code when the user ended it first. */
    const until = (started: readonly SupervisedChild[]): Promise<number | undefined> =>
      Promise.race([Promise.all(started.map((child) => child.ready)).then(() => undefined), interrupted.code]);

    say('Starting nats-server and ClickHouse …');
    const early = await until(startStores(start, config, places, { natsServer, login }));
    if (early !== undefined) return early;
    key = await demoKey(places.nats, data);

    say('Starting the gateway and the workers …');
    // The gateway makes streams and buckets, and the workers come when they are there: nats-server 2.9.10 was seen to crash
    // when a bucket was read while it was being made.
    const front = await until([startGateway(start, config, places)]);
    if (front !== undefined) return front;
    const late = await until(startWorkers(start, config, places));
    if (late !== undefined) return late;
    describe();
    const waits = children.filter((child) => !child.wasReady).map((child) => child.name);
    process.stdout.write(greeting({ config, gateway: places.gateway, key, waits }));
    return await interrupted.code;
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
    interrupted.unwatch();
  }
}

const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** The first signal ends the stack in order, and the next one kills its parts. */
function watchSignals(
  children: readonly SupervisedChild[],
  say: (line: string) => void,
): { readonly code: Promise<number>; unwatch(): void } {
  let finish: (code: number) => void = () => {};
  const code = new Promise<number>((resolve) => {
    finish = resolve;
  });
  let seen = 0;
  const onSignal = (): void => {
    seen++;
    if (seen === 1) {
      say(
        '\nEnding: the gateway finishes what it has taken, then the workers, ClickHouse and NATS end. Ctrl-C again: at once.',
      );
      finish(0);
    } else {
      for (const child of children) child.kill();
    }
  };
  for (const signal of signals) process.on(signal, onSignal);
  return {
    code,
    unwatch() {
      for (const signal of signals) process.off(signal, onSignal);
    },
  };
}

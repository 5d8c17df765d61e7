/**
 * A cluster of real nats-servers with JetStream for one test: free ports, own folders, gone at the end. Its nodes can be
 * killed, frozen and started again, one at a time or all at once.
 *
 * A SIGKILL takes a process, not what the system holds of its files: power loss cannot be made here.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { jetstreamManager } from '@nats-io/jetstream';
import { connect, type NatsConnection } from '@nats-io/transport-node';
import { gone } from '../child-process.js';
import { freePort, jetstreamBlock, type NatsSettings, natsEnvironment } from './nats.js';

export interface TestNode {
  readonly name: string;
  /** `127.0.0.1:<port>`. */
  readonly url: string;
  /** For SIGSTOP and SIGCONT. */
  process(): ChildProcess;
  /** SIGKILL; resolves when it is gone. */
  kill(): Promise<void>;
  /** Starts it again on its ports and files. Does not wait until it serves. */
  start(): void;
}

export interface TestNatsCluster {
  readonly nodes: readonly TestNode[];
  /** The addresses of all nodes, with commas. */
  readonly url: string;
  /** A connection of the test's own, which outlives any node; closed at the end. */
  readonly nc: NatsConnection;
  /** The node that leads the stream now. @throws Error when it has no leader within 30 s */
  leaderOf(stream: string): Promise<TestNode>;
  /** Resolves when every node says that it is healthy: it has a leader, and all of its streams are up to date. */
  healthy(withinMs?: number): Promise<void>;
  /** The end of each node's log, for a test that fails. */
  logs(): Promise<string>;
}

const healthyWithinMs = 60_000;
const leaderWithinMs = 30_000;

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Runs `use` with a cluster that is healthy, and ends all of its nodes, also after an error. */
export async function withNatsCluster<T>(
  size: number,
  settings: NatsSettings,
  use: (cluster: TestNatsCluster) => Promise<T>,
): Promise<T> {
  const folder = await mkdtemp(join(settings.parent ?? tmpdir(), 'sluice-nats-cluster-'));
  const ports: { client: number; route: number; monitor: number }[] = [];
  for (let i = 0; i < size; i++) {
    ports.push({ client: await freePort(), route: await freePort(), monitor: await freePort() });
  }
  const routes = ports.map(({ route }) => `"nats://127.0.0.1:${route}"`).join(', ');
  const nodes: (TestNode & { gone(): Promise<void>; readonly monitor: number })[] = [];
  for (const [i, { client, route, monitor }] of ports.entries()) {
    const name = `n${i + 1}`;
    const store = join(folder, name);
    await mkdir(store);
    const config = join(folder, `${name}.conf`);
    await writeFile(
      config,
      `server_name: ${name}\nlisten: "127.0.0.1:${client}"\nhttp: "127.0.0.1:${monitor}"\nmax_payload: 8MB\n` +
        `cluster { name: sluice-test, listen: "127.0.0.1:${route}", routes: [${routes}] }\n` +
        jetstreamBlock(store, settings),
    );
    const spawned = (): ChildProcess => {
      const started = spawn(settings.program ?? 'nats-server', ['-c', config], {
        stdio: ['ignore', 'ignore', 'pipe'],
        env: natsEnvironment(),
      });
      started.stderr?.pipe(createWriteStream(join(folder, `${name}.log`), { flags: 'a' }));
      return started;
    };
    let child = spawned();
    nodes.push({
      name,
      url: `127.0.0.1:${client}`,
      monitor,
      process: () => child,
      gone: () => gone(child),
      kill() {
        child.kill('SIGKILL');
        return gone(child);
      },
      start() {
        child = spawned();
      },
    });
  }
  const url = nodes.map((node) => node.url).join(',');

  const logs = async (): Promise<string> => {
    const texts = nodes.map(async ({ name }) => {
      const text = await readFile(join(folder, `${name}.log`), 'utf8').catch(() => '');
      return `${name}:\n${text.split('\n').slice(-30).join('\n')}`;
    });
    return (await Promise.all(texts)).join('\n');
  };
  const isHealthy = async (monitor: number): Promise<boolean> => {
    const answer = await fetch(`http://127.0.0.1:${monitor}/healthz`, { signal: AbortSignal.timeout(2_000) });
    await answer.arrayBuffer();
    return answer.ok;
  };
  const healthy = async (withinMs = healthyWithinMs): Promise<void> => {
    const end = Date.now() + withinMs;
    for (;;) {
      const all = await Promise.all(nodes.map(({ monitor }) => isHealthy(monitor).catch(() => false)));
      if (all.every(Boolean)) return;
      if (Date.now() > end) throw new Error(`the cluster was not healthy within ${withinMs} ms\n${await logs()}`);
      await pause(50);
    }
  };

  try {
    await healthy();
    const nc = await connect({
      servers: url.split(','),
      maxReconnectAttempts: -1,
      noAsyncTraces: true,
      reconnectTimeWait: 100,
    });
    try {
      const jsm = await jetstreamManager(nc, { checkAPI: false });
      return await use({
        nodes,
        url,
        nc,
        healthy,
        logs,
        async leaderOf(stream) {
          const end = Date.now() + leaderWithinMs;
          for (;;) {
            const info = await jsm.streams.info(stream).catch(() => undefined);
            const leader = nodes.find(({ name }) => name === info?.cluster?.leader);
            if (leader !== undefined) return leader;
            if (Date.now() > end)
              throw new Error(`${stream} had no leader within ${leaderWithinMs} ms\n${await logs()}`);
            await pause(50);
          }
        },
      });
    } finally {
      await nc.close();
    }
  } finally {
    await Promise.all(nodes.map((node) => node.kill()));
    await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

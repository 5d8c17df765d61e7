/**
 * The log's servers of a run: one nats-server as `sluice up` runs it, or a cluster of three with replicated streams (`--cluster`).
 * Each has a proxy to itself on the way from the gateways and on the way from the workers, so that clients choose among the nodes as
 * they do in production; what nodes would tell clients of one another (past the proxies) is switched off.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { natsGreets, writeNatsConfig } from '../cli/up/nats-config.js';
import { freePort } from '../lib/testing/nats.js';
import { root } from './build.js';
import { type ChaosProxy, startProxy } from './proxy.js';
import type { SlotOptions } from './slot.js';

export interface ClusterOptions {
  /** nats-server, new enough for replicated streams. */
  readonly program: string;
  /** Every message is on the disk before it is acknowledged. */
  readonly syncAlways: boolean;
}

export interface NatsNodes {
  /** What their slots run. */
  readonly nodes: readonly (Pick<SlotOptions, 'launch' | 'probe'> & { readonly name: string })[];
  readonly ports: readonly number[];
  /** JetStream replicas that this log can have. */
  readonly replicas: number;
  /** Resolves when all nodes are there, with a leader and all of the log; also when the signal says stop. */
  healthy(stop: AbortSignal): Promise<void>;
}

const clusterSize = 3;
const greetsWithinMs = 60_000;
const healthyEveryMs = 100;

export async function natsNodes(folder: string, cluster: ClusterOptions | undefined): Promise<NatsNodes> {
  const count = cluster === undefined ? 1 : clusterSize;
  const ports: { client: number; route: number; monitor: number }[] = [];
  for (let i = 0; i < count; i++) {
    ports.push({ client: await freePort(), route: await freePort(), monitor: await freePort() });
  }
  const routes = ports.map(({ route }) => `"nats://127.0.0.1:${route}"`).join(', ');
  const configs = ports.map(({ client, route, monitor }, i) => {
    const name = cluster === undefined ? 'nats' : `nats-${i + 1}`;
    const own = join(folder, name);
    mkdirSync(own, { recursive: true });
    const file = writeNatsConfig({
      folder: own,
      host: '127.0.0.1',
      port: client,
      monitorPort: monitor,
      jetstream: cluster?.syncAlways === true ? ['sync_interval: always'] : [],
      more:
        cluster === undefined
          ? []
          : [
              `server_name: ${name}`,
              `cluster { name: chaos, listen: "127.0.0.1:${route}", routes: [${routes}], no_advertise: true }`,
            ],
    });
    return { name, file, client };
  });
  const isHealthy = async (monitor: number): Promise<boolean> => {
    const answer = await fetch(`http://127.0.0.1:${monitor}/healthz`, { signal: AbortSignal.timeout(2_000) });
    await answer.arrayBuffer();
    return answer.ok;
  };
  return {
    nodes: configs.map(({ name, file, client }) => ({
      name,
      launch: () => ({ args: [join(root, 'cli/up/tether.mjs'), cluster?.program ?? 'nats-server', '-c', file] }),
      probe: (life) => natsGreets('127.0.0.1', client, greetsWithinMs, life),
    })),
    ports: ports.map(({ client }) => client),
    replicas: count,
    async healthy(stop) {
      while (!stop.aborted) {
        const all = await Promise.all(ports.map(({ monitor }) => isHealthy(monitor).catch(() => false)));
        if (all.every(Boolean)) return;
        await new Promise((resolve) => setTimeout(resolve, healthyEveryMs));
      }
    },
  };
}

/** A proxy for each port, all controlled together. */
export async function proxyEach(ports: readonly number[]): Promise<ChaosProxy & { readonly addresses: string }> {
  const proxies: ChaosProxy[] = [];
  for (const port of ports) proxies.push(await startProxy(() => [port]));
  return {
    port: proxies[0]?.port ?? 0,
    addresses: proxies.map(({ port }) => `127.0.0.1:${port}`).join(','),
    get connections() {
      return proxies.reduce((sum, { connections }) => sum + connections, 0);
    },
    set(mode) {
      for (const proxy of proxies) proxy.set(mode);
    },
    cut() {
      for (const proxy of proxies) proxy.cut();
    },
    async close() {
      await Promise.all(proxies.map((proxy) => proxy.close()));
    },
  };
}

/** A whole stack for one test: real nats-server, gateway, worker and ClickHouse, each a process that may be killed. */
import { type ChildProcess, fork } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { endProcess } from '../../../lib/child-process.js';
import { addTenant } from '../../../lib/tenants.js';
import { freePort, withNats } from '../../../lib/testing/nats.js';
import { programFlags, programPath } from '../../../lib/testing/program.js';

type RoleName = 'gateway' | 'worker' | 'clickhouse';

export interface TestStack {
  readonly gateway: string;
  readonly clickhouse: string;
  /** `127.0.0.1:<port>`. */
  readonly nats: string;
  readonly key: string;
  /** kill -9, then a new process with the same settings. Resolves when that is ready. */
  crash(role: RoleName): Promise<void>;
  /** The same with SIGTERM: a drain, then a new process. */
  replace(role: RoleName): Promise<void>;
}

const root = fileURLToPath(new URL('../../..', import.meta.url));
const entries: Readonly<Record<RoleName, string>> = {
  gateway: 'gateway/main.ts',
  worker: 'workers/main.ts',
  clickhouse: 'workers/embedded/main.ts',
};

const endWithinMs = 15_000;

function start(role: RoleName, flags: readonly string[]): Promise<ChildProcess> {
  return new Promise((resolve, reject) => {
    const child = fork(programPath(entries[role]), flags, {
      cwd: root,
      execArgv: [...programFlags, '--max-http-header-size=1048576'],
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`${role} was not ready within 60 s`));
    }, 60_000);
    child.once('message', () => {
      clearTimeout(timer);
      resolve(child);
    });
    child.once('exit', (code, signal) => {
      clearTimeout(timer);
      reject(new Error(`${role} ended with ${signal ?? code} before it was ready`));
    });
  });
}

/** @param gatewayFlags more flags of the gateway, e.g. `--cors-origins *` */
export async function withStack<T>(
  use: (stack: TestStack) => Promise<T>,
  gatewayFlags: readonly string[] = [],
): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-demo-'));
  const roles = new Map<RoleName, ChildProcess>();
  try {
    return await withNats(async (nats) => {
      try {
        const ports = { gateway: await freePort(), clickhouse: await freePort() };
        const clickhouse = `http://127.0.0.1:${ports.clickhouse}`;
        const common = ['--nats-url', nats.url, '--metrics-port', '0', '--log-level', 'error'];
        const flags: Readonly<Record<RoleName, readonly string[]>> = {
          clickhouse: [
            '--clickhouse-port',
            String(ports.clickhouse),
            '--clickhouse-data',
            join(folder, 'clickhouse'),
            '--log-level',
            'error',
          ],
          gateway: [...common, '--port', String(ports.gateway), '--shard-max-bytes', '256MiB', ...gatewayFlags],
          worker: [...common, '--clickhouse-url', clickhouse, '--block-delay', '200ms'],
        };
        const { key } = await addTenant(nats.nc, { tenant: 'demo' });
        for (const role of ['clickhouse', 'gateway', 'worker'] as const)
          roles.set(role, await start(role, flags[role]));
        const again = async (role: RoleName, signal: NodeJS.Signals): Promise<void> => {
          const child = roles.get(role);
          if (child !== undefined) await endProcess(child, { withinMs: endWithinMs, ask: () => child.kill(signal) });
          roles.set(role, await start(role, flags[role]));
        };
        return await use({
          gateway: `http://127.0.0.1:${ports.gateway}`,
          clickhouse,
          nats: nats.url,
          key,
          crash: (role) => again(role, 'SIGKILL'),
          replace: (role) => again(role, 'SIGTERM'),
        });
      } finally {
        for (const role of ['worker', 'gateway', 'clickhouse'] as const) {
          const child = roles.get(role);
          if (child !== undefined) await endProcess(child, { withinMs: endWithinMs });
        }
      }
    });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

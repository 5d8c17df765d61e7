/**
 * A gateway as a process of its own, as it runs in production, with a key for each tenant and the memory that it takes.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { nodeFlags } from '../../lib/config/index.js';
import { addTenant } from '../../lib/tenants.js';
import { freePort, withNats } from '../../lib/testing/nats.js';
import { programFlags, programPath } from '../../lib/testing/program.js';

const main = programPath('gateway/main.ts');

export interface GatewayProcess {
  readonly port: number;
  readonly url: string;
  /** Of the tenants, in order. */
  readonly keys: readonly string[];
  /** Its nats-server: for SIGSTOP and SIGCONT. */
  readonly nats: ChildProcess;
  /** Resident memory now, MiB. */
  rss(): number;
  /** The most that it was, looked at every 50 ms, MiB. */
  readonly peak: number;
}

/** @param flags of `sluice gateway`, such as `--hot-path=false` */
export async function withGatewayProcess(
  flags: readonly string[],
  tenants: readonly string[],
  use: (gateway: GatewayProcess) => Promise<void>,
): Promise<void> {
  await withNats(async (nats) => {
    const keys = await Promise.all(tenants.map(async (tenant) => (await addTenant(nats.nc, { tenant })).key));
    const port = await freePort();
    const child = fork(main, ['--metrics-port=0', '--port', String(port), '--nats-url', nats.url, ...flags], {
      execArgv: [...nodeFlags.gateway, ...programFlags],
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    });
    const gone = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    const rss = (): number => {
      const text = readFileSync(`/proc/${child.pid}/status`, 'utf8');
      return Number(/VmRSS:\s+(\d+)/.exec(text)?.[1] ?? 0) / 1024;
    };
    let peak = 0;
    const sampler = setInterval(() => {
      peak = Math.max(peak, rss());
    }, 50);
    try {
      await new Promise((resolve) => child.once('message', resolve));
      await use({
        port,
        url: `http://127.0.0.1:${port}`,
        keys,
        nats: nats.process(),
        rss,
        get peak() {
          return peak;
        },
      });
    } finally {
      clearInterval(sampler);
      child.kill('SIGKILL');
      await gone;
    }
  });
}

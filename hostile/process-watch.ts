/**
 * What an attack costs the gateway's processes: resident memory with its true peak, the delay of their event loops as they report
 * it themselves, CPU time. With several processes the figures are those of the worst one; CPU is the sum.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { Agent, get } from 'node:http';
import { cpuSeconds, family, rssMib } from '../lib/testing/process-use.js';
import type { Role } from '../lib/testing/role-process.js';

export interface ProcessWatch {
  /** MiB now. */
  rss(): number;
  /** Forgets the peaks so far: of memory and of the loop's delay. */
  reset(): Promise<void>;
  /** MiB at most since the last reset. */
  peakRss(): number;
  /** ms at most since the last reset; NaN when a process did not tell. */
  loopDelay(): Promise<number>;
  /** CPU seconds so far. */
  cpu(): number;
  close(): void;
}

const scrapeWithinMs = 15_000;

/** The kernel's own peak: a sample would miss what is allocated and gone between two looks. */
function peakMib(pid: number): number {
  try {
    const match = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
    return match === null ? Number.NaN : Number(match[1]) / 1024;
  } catch {
    return Number.NaN;
  }
}

function forgetPeak(pid: number): void {
  try {
    writeFileSync(`/proc/${pid}/clear_refs`, '5');
  } catch {
    // The process is gone, or this is not Linux: the figures are NaN.
  }
}

/** The longest delay of the event loop since the endpoint was asked last, ms. */
function askDelay(agent: Agent, port: number): Promise<number> {
  return new Promise((resolve) => {
    const call = get({ host: '127.0.0.1', port, path: '/metrics', agent, timeout: scrapeWithinMs }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      response.once('end', () => {
        const match = /^sluice_process_event_loop_delay_seconds\{[^}]*quantile="1"[^}]*\} (\S+)/m.exec(text);
        resolve(match === null ? Number.NaN : Number(match[1]) * 1_000);
      });
      response.once('error', () => resolve(Number.NaN));
    });
    call.once('timeout', () => call.destroy());
    call.once('error', () => resolve(Number.NaN));
  });
}

export function watchProcesses({ pid, metricsPorts }: Pick<Role, 'pid' | 'metricsPorts'>): ProcessWatch {
  const pids = family(pid);
  const worst = (read: (pid: number) => number): number =>
    Math.max(0, ...pids.map(read).filter((value) => !Number.isNaN(value)));
  const agent = new Agent({ keepAlive: true });
  const loopDelay = async (): Promise<number> =>
    metricsPorts.length === 0
      ? Number.NaN
      : Math.max(...(await Promise.all(metricsPorts.map((port) => askDelay(agent, port)))));
  return {
    rss: () => worst(rssMib),
    async reset() {
      await loopDelay();
      for (const one of pids) forgetPeak(one);
    },
    peakRss: () => worst(peakMib),
    loopDelay,
    cpu: () => pids.reduce((sum, one) => sum + cpuSeconds(one), 0),
    close: () => agent.destroy(),
  };
}

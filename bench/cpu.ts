/**
 * What processes use, from /proc: CPU time of all threads, resident memory. Elsewhere than on Linux there is no /proc
 * and all figures are NaN (null in JSON).
 */
import { readFileSync } from 'node:fs';

/** Linux gives times in clock ticks; USER_HZ is 100 on every platform that Node runs on. */
const ticksPerSecond = 100;

/** CPU seconds (user + system) of a process since it started, all threads, 10 ms steps; NaN when it is gone. */
export function cpuSeconds(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name in brackets may hold blanks: count fields after it. utime and stime are fields 14 and 15.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
  } catch {
    return Number.NaN;
  }
}

/** Resident memory in MiB; NaN when the process is gone. */
export function rssMib(pid: number): number {
  try {
    const match = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'));
    return match === null ? Number.NaN : Number(match[1]) / 1024;
  } catch {
    return Number.NaN;
  }
}

/** Processes by role; a role may have several. */
export type Pids = Readonly<Record<string, readonly number[]>>;

const sumBy = (pids: Pids, read: (pid: number) => number): Record<string, number> =>
  Object.fromEntries(Object.entries(pids).map(([role, list]) => [role, list.reduce((sum, pid) => sum + read(pid), 0)]));

/** CPU seconds by role. */
export const cpuByRole = (pids: Pids): Record<string, number> => sumBy(pids, cpuSeconds);

export interface RssWatch {
  /** Peak and last value by role, MiB. Several processes of a role count together. */
  stop(): { peak: Record<string, number>; end: Record<string, number> };
}

/** Samples resident memory until stopped. */
export function watchRss(pids: Pids, everyMs = 250): RssWatch {
  const peak: Record<string, number> = {};
  const sample = () => {
    const now = sumBy(pids, rssMib);
    for (const [role, mib] of Object.entries(now)) {
      if (!(mib <= (peak[role] ?? 0))) peak[role] = mib;
    }
    return now;
  };
  sample();
  const timer = setInterval(sample, everyMs);
  return {
    stop: () => {
      clearInterval(timer);
      const end = sample();
      return { peak, end };
    },
  };
}

/**
 * What processes and disks use, from /proc: CPU time of all threads, resident memory. Elsewhere than on Linux there is no
 * /proc and all figures are NaN (null in JSON).
 */
import { readFileSync, readlinkSync } from 'node:fs';

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

/** Processes by role; a role may have several. Those that they have started of their own program count with them. */
export type Pids = Readonly<Record<string, readonly number[]>>;

/**
 * A process and those of its children that run the same program, as `gateway --processes` has them; the compiler's helper of a
 * process that runs from source is another program.
 */
export function family(pid: number): number[] {
  try {
    const program = readlinkSync(`/proc/${pid}/exe`);
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8')
      .trim()
      .split(' ')
      .filter(Boolean)
      .map(Number);
    return [pid, ...children.filter((child) => isOf(child, program)).flatMap(family)];
  } catch {
    return [pid];
  }
}

function isOf(pid: number, program: string): boolean {
  try {
    return readlinkSync(`/proc/${pid}/exe`) === program;
  } catch {
    return false;
  }
}

const sumBy = (pids: Pids, read: (pid: number) => number): Record<string, number> =>
  Object.fromEntries(
    Object.entries(pids).map(([role, list]) => [role, list.flatMap(family).reduce((sum, pid) => sum + read(pid), 0)]),
  );

/** CPU seconds by role. */
export const cpuByRole = (pids: Pids): Record<string, number> => sumBy(pids, cpuSeconds);

/** Resident memory by role, MiB. Several processes of a role count together. */
export const rssByRole = (pids: Pids): Record<string, number> => sumBy(pids, rssMib);

/** What the machine's disks have done since it started. */
export interface DiskUse {
  readonly writtenBytes: number;
  /** Ms in which the busiest disk had something to do. */
  readonly busyMs: number;
}

/** Whole disks only; NaN elsewhere than on Linux. */
export function diskUse(): DiskUse {
  try {
    const disks = readFileSync('/proc/diskstats', 'utf8')
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
      .filter(([, , name]) => name !== undefined && /^(?:[shv]d[a-z]+|xvd[a-z]+|nvme\d+n\d+)$/.test(name));
    return {
      // Field 10 of a line is sectors written, of 512 bytes whatever the disk; field 13 is the ms of doing I/O.
      writtenBytes: disks.reduce((sum, fields) => sum + Number(fields[9]) * 512, 0),
      busyMs: Math.max(0, ...disks.map((fields) => Number(fields[12]))),
    };
  } catch {
    return { writtenBytes: Number.NaN, busyMs: Number.NaN };
  }
}

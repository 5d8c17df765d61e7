/** Whether another process has a data folder. */
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { UsageError } from '../../lib/errors.js';

export const inUse = (folder: string, by: string): UsageError =>
  new UsageError(`${folder} is in use by ${by}: end it, or give another folder by --clickhouse-data.`);

/** As /proc/locks writes the numbers of a device. */
const hex = (number: number): string => number.toString(16).padStart(2, '0');

/**
 * Who has the folder's lock, where the system tells (Linux). The engine's own answer is a line on stderr of its own and an
 * error that does not say why, so it is asked last.
 */
export function lockHolder(folder: string): string | undefined {
  try {
    // Of another file system, a file may have the same number: on each tmpfs they begin again.
    const { dev, ino } = statSync(join(folder, 'status'));
    const file = `${hex(((dev / 256) & 0xfff) >>> 0)}:${hex((dev & 0xff) | ((dev >>> 12) & 0xfff00))}:${ino}`;
    const lock = readFileSync('/proc/locks', 'utf8')
      .split('\n')
      .map((line) => line.trim().split(/\s+/))
      .find((words) => words[1] === 'FLOCK' && words[5] === file);
    return lock === undefined ? undefined : `process ${lock[4]}`;
  } catch {
    return undefined;
  }
}

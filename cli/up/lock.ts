/**
 * One supervisor per data folder. A lock whose owner is dead is taken over.
 */
import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { UsageError } from '../../lib/errors.js';
import { makePrivateFolder } from '../../lib/make-folder.js';
import { isAlive } from '../stack-file.js';

/** A pid may have been given to another program since. */
function isSupervisor(pid: number): boolean {
  if (!isAlive(pid)) return false;
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('sluice');
  } catch {
    return true;
  }
}

export interface FolderLock {
  /** The last supervisor was killed: parts of its stack may run on for a moment. */
  readonly takenOver: boolean;
  release(): void;
}

/**
 * @throws UsageError when another supervisor has the folder, or it cannot be written
 */
export function lockFolder(data: string): FolderLock {
  const file = join(data, 'up.lock');
  let takenOver = false;
  try {
    makePrivateFolder(data);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(
      `The data folder ${data} cannot be made: ${(error as Error).message}. Give another by --data.`,
    );
  }
  for (;;) {
    try {
      writeFileSync(file, String(process.pid), { flag: 'wx' });
      return { takenOver, release: () => rmSync(file, { force: true }) };
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') {
        throw new UsageError(
          `The data folder ${data} cannot be written: ${(error as Error).message}. Give another by --data.`,
        );
      }
      const owner = Number(readFileSync(file, 'utf8'));
      if (Number.isInteger(owner) && owner > 0 && owner !== process.pid && isSupervisor(owner)) {
        throw new UsageError(
          `The data folder ${data} is in use by the stack of process ${owner}: end that one, or give another folder by --data.`,
        );
      }
      takenOver = true;
      rmSync(file, { force: true });
    }
  }
}

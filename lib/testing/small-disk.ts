/**
 * A disk of few MiB for one test, which can be filled to the last byte: a tmpfs, mounted and gone at the end.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, openSync, writeSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export interface SmallDisk {
  /** A folder on it. */
  readonly folder: string;
  /** Leaves no room. */
  fill(): void;
  /** Gives the room back. */
  empty(): Promise<void>;
}

/** Runs `use` with a disk of so many MiB. Where none can be mounted (only root may), says so and answers false. */
export async function withSmallDisk(mebibytes: number, use: (disk: SmallDisk) => Promise<void>): Promise<boolean> {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-disk-'));
  const { status, stderr } = spawnSync('mount', ['-t', 'tmpfs', '-o', `size=${mebibytes}m`, 'tmpfs', folder], {
    encoding: 'utf8',
  });
  if (status !== 0) {
    await rm(folder, { recursive: true, force: true });
    process.stdout.write(`skipped: a small disk cannot be mounted here (${(stderr ?? 'no mount').trim()})\n`);
    return false;
  }
  const ballast = join(folder, 'ballast');
  try {
    await use({
      folder,
      fill() {
        const file = openSync(ballast, 'w');
        try {
          const chunk = Buffer.alloc(64 * 1024, 1);
          // Ends with ENOSPC, or with a write of less than was asked.
          while (writeSync(file, chunk) > 0);
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
        } finally {
          closeSync(file);
        }
      },
      empty: () => rm(ballast),
    });
  } finally {
    // Lazily: the kernel may take a moment to forget a process that was killed on it.
    spawnSync('umount', ['-l', folder]);
    await rm(folder, { recursive: true, force: true });
  }
  return true;
}

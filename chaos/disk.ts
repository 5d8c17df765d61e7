/**
 * A disk that can be full: a tmpfs under a folder, whose size is set to what is used. Needs root on Linux.
 */
import { spawnSync } from 'node:child_process';
import { statfs } from 'node:fs/promises';
import { GiB } from '../lib/units.js';

export interface Disk {
  /** Leaves so many bytes. */
  fill(leaveBytes: number): Promise<void>;
  /** There is room again. */
  free(): void;
  close(): void;
}

/** Memory is taken only as it is used. */
const roomBytes = 4 * GiB;
const pageBytes = 4_096;

function mount(args: readonly string[]): string | undefined {
  const { status, stderr, error } = spawnSync('mount', [...args], { encoding: 'utf8' });
  return status === 0 ? undefined : (error?.message ?? stderr.trim());
}

/** @returns why there can be none, where it needs what this process may not do */
export function mountDisk(folder: string): Disk | string {
  if (process.platform !== 'linux' || process.getuid?.() !== 0) return 'a disk of its own needs root on Linux';
  const problem = mount(['-t', 'tmpfs', '-o', `size=${roomBytes}`, 'sluice-chaos', folder]);
  if (problem !== undefined) return `a disk of its own cannot be mounted: ${problem}`;
  const resize = (bytes: number): void => {
    const refused = mount(['-o', `remount,size=${bytes}`, folder]);
    if (refused !== undefined) throw new Error(`the size of the disk cannot be changed: ${refused}`);
  };
  return {
    async fill(leaveBytes) {
      // What is written meanwhile makes the size too small, which the kernel refuses.
      for (let tries = 0; ; tries++) {
        const { blocks, bfree, bsize } = await statfs(folder);
        const used = (blocks - bfree) * bsize;
        try {
          return resize(Math.ceil((used + leaveBytes) / pageBytes) * pageBytes);
        } catch (error) {
          if (tries === 20) throw error;
        }
      }
    },
    free: () => resize(roomBytes),
    // Lazily: a process that is about to die may still have files open.
    close: () => void spawnSync('umount', ['-l', folder]),
  };
}

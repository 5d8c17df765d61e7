/**
 * Folders that users name.
 */
import { chmodSync, mkdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';
import { UsageError } from './errors.js';

const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code;

/**
 * Makes the folder and those above it, level by level: node's own recursive way never returns below /proc and its like, which say
 * ENOENT for a folder that cannot be made.
 * @returns the folders that it has made, outermost first
 * @throws Error as `mkdir` does, e.g. EACCES, ENOTDIR
 */
export function makeFolder(folder: string): string[] {
  try {
    if (statSync(folder).isDirectory()) return [];
  } catch (error) {
    if (codeOf(error) !== 'ENOENT') throw error;
    const parent = dirname(folder);
    const made = parent === folder ? [] : makeFolder(parent);
    try {
      mkdirSync(folder);
    } catch (reason) {
      if (codeOf(reason) === 'EEXIST') return made;
      throw reason;
    }
    return [...made, folder];
  }
  throw Object.assign(new Error(`ENOTDIR: not a directory, mkdir '${folder}'`), { code: 'ENOTDIR' });
}

/**
 * Makes a folder that only its owner can enter, or makes one so that is there.
 * @throws Error as {@link makeFolder}; UsageError that names the owner when it is another user's
 */
export function makePrivateFolder(folder: string): void {
  makeFolder(folder);
  const { uid, mode } = statSync(folder);
  const user = process.getuid?.() ?? uid;
  if (uid !== user) {
    throw new UsageError(
      `The folder ${folder} belongs to another user (uid ${uid}, and this is ${user}), who could read and change what is in it: give a folder of your own.`,
    );
  }
  if ((mode & 0o777) !== 0o700) chmodSync(folder, 0o700);
}

/**
 * Folders that users name.
 */
import { mkdirSync, statSync } from 'node:fs';
import { dirname } from 'node:path';

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

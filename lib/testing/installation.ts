/**
 * An installation for tests: what `npm run build` makes, with the packages that `npm ci --omit=dev` leaves. It lies outside the checkout, so
 * that no package of development can be found from there.
 */
import { spawnSync } from 'node:child_process';
import { copyFileSync, linkSync, mkdirSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));

interface LockedPackage {
  readonly dev?: boolean;
  readonly devOptional?: boolean;
  readonly optional?: boolean;
}

/** Compiles the sources of a folder to its dist/. @throws Error with what the compiler says */
export function buildSources(from: string, to: string): void {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(from, 'cli/build.mjs'), to], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`the build failed:\n${stdout}${stderr}`.slice(0, 4_000));
}

/** The same files as links, or as copies where the folder is on another disk. */
function linkTree(from: string, to: string): void {
  mkdirSync(to, { recursive: true });
  for (const entry of readdirSync(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) linkTree(source, target);
    else {
      try {
        linkSync(source, target);
      } catch {
        copyFileSync(source, target);
      }
    }
  }
}

/**
 * Puts the packages of production that are installed here into the folder's node_modules.
 * @param optional also those without which the rest runs, as the embedded ClickHouse
 */
export function linkProductionPackages(folder: string, optional: boolean): void {
  const { packages } = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, LockedPackage>;
  };
  const absent = new Set(
    Object.entries(packages)
      .filter(([, { dev, devOptional, optional: may }]) => dev || devOptional || (may && !optional))
      .map(([path]) => path),
  );
  for (const path of Object.keys(packages)) {
    // Those inside another package come with it.
    if (path.lastIndexOf('node_modules/') !== 0 || absent.has(path)) continue;
    try {
      linkTree(join(root, path), join(folder, path));
    } catch (error) {
      // Of another platform.
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
  }
}

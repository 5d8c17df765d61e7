#!/usr/bin/env node
/**
 * The way in for every command of a checkout, on a machine that may have nothing but Node and npm: checks Node, installs the packages when
 * they are missing or not those of package-lock.json, and runs the sources through tsx. Plain JavaScript, no packages. An installation
 * runs what `npm run build` makes of sluice.ts.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, lstatSync, mkdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

const [major] = process.versions.node.split('.');
if (Number(major) < 20) {
  process.stderr.write(`Sluice needs Node 20 or newer; this is ${process.version}. See https://nodejs.org.\n`);
  process.exit(1);
}

/** Whether what is installed is what the lock file says; optional packages may be left out. */
function packagesAreThere() {
  const installed = join(root, 'node_modules', '.package-lock.json');
  if (!existsSync(installed)) return false;
  try {
    const wanted = JSON.parse(readFileSync(join(root, 'package-lock.json'), 'utf8')).packages;
    const present = JSON.parse(readFileSync(installed, 'utf8')).packages;
    return Object.entries(wanted).every(
      ([path, entry]) =>
        path === '' ||
        entry.optional === true ||
        entry.devOptional === true ||
        present[path]?.version === entry.version,
    );
  } catch {
    return false;
  }
}

/**
 * Makes the folder in which tsx keeps what it has compiled, and runs it the next time. Its name in the folder for temporary files can be
 * guessed, so that another user of this machine may have made it before, with a program of theirs in it.
 * @returns whether this user alone can write to the folder
 */
function compilerCacheIsOwn() {
  const user = process.geteuid?.();
  if (user === undefined) return true; // Windows: each user has a folder for temporary files.
  const folder = join(tmpdir(), `tsx-${user}`);
  try {
    mkdirSync(folder, { mode: 0o700 });
  } catch {
    // It is there, or cannot be made: what follows tells.
  }
  try {
    const found = lstatSync(folder);
    return found.isDirectory() && found.uid === user && (found.mode & 0o022) === 0;
  } catch {
    return false;
  }
}

if (!packagesAreThere()) {
  process.stderr.write('Installing the packages of package-lock.json (npm ci) …\n');
  const result = spawnSync('npm', ['ci', '--include=dev', '--ignore-scripts', '--no-audit', '--no-fund'], {
    cwd: root,
    stdio: ['ignore', 2, 2],
    shell: process.platform === 'win32',
  });
  if (result.status !== 0) {
    process.stderr.write(
      'The packages could not be installed: see the lines above. With a network that reaches an npm registry, `npm ci` in ' +
        `${root} does the same.\n`,
    );
    process.exit(1);
  }
}

// Before tsx is loaded, which reads the variable then. The parts that a command starts inherit it.
if (!compilerCacheIsOwn()) process.env.TSX_DISABLE_CACHE = '1';
const { register } = await import('tsx/esm/api');
register();
await import('./sluice.ts');

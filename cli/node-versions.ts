/**
 * The versions of Node that Sluice supports. Programs of other versions than the running one come from npm's packages of Node, and are
 * kept in node_modules/.cache.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { arch, platform } from 'node:os';
import { join } from 'node:path';
import { root } from './roles.js';

/** README.md, CONTRIBUTING.md, package.json's `engines` and the image say the same. */
export const supportedVersions = [20, 22, 24] as const;

const windows = platform() === 'win32';

/** As `v24.21.0`; empty when the program does not run. */
export function versionOf(program: string): string {
  return spawnSync(program, ['--version'], { encoding: 'utf8' }).stdout?.trim() ?? '';
}

/**
 * The program of a version, installed when it is not there yet.
 * @param withinMs how long npm may take
 * @returns undefined when npm has none for this machine, or cannot be reached
 */
export function programOf(major: number, withinMs = 300_000): string | undefined {
  if (process.version.startsWith(`v${major}.`)) return process.execPath;
  const name = `node-${windows ? 'win' : platform()}-${arch()}`;
  const folder = join(root, 'node_modules/.cache/node-versions', String(major));
  const program = join(folder, 'node_modules', name, 'bin', windows ? 'node.exe' : 'node');
  if (!existsSync(program)) {
    mkdirSync(folder, { recursive: true });
    const quiet = ['--ignore-scripts', '--no-save', '--no-audit', '--no-fund', '--loglevel=error'];
    spawnSync('npm', ['install', ...quiet, '--prefix', folder, `${name}@${major}`], {
      stdio: 'ignore',
      shell: windows,
      timeout: withinMs,
    });
  }
  return versionOf(program).startsWith(`v${major}.`) ? program : undefined;
}

/**
 * The nats-server of the local stack: found on this machine, or installed from the system's packages.
 */
import { spawnSync } from 'node:child_process';
import { accessSync, constants, existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { searchPath } from '../lib/config/index.js';
import { UsageError } from '../lib/errors.js';

/** Debian puts servers where an ordinary user's PATH does not look. */
const alsoIn = ['/usr/sbin', '/usr/local/sbin', '/usr/local/bin'];

const byHand =
  'Install nats-server 2.9 or newer and run this again: `apt-get install nats-server`, `brew install nats-server`, ' +
  'or a release from https://github.com/nats-io/nats-server/releases on the PATH.';

/** The oldest whose JetStream was tried. */
const oldest: readonly [number, number] = [2, 9];

/** Where programs are looked for, then {@link alsoIn}. */
const usualFolders = (): readonly string[] => [...searchPath().split(delimiter), ...alsoIn];

/** Path of the program; undefined when none of the folders has it. */
export function findNatsServer(folders: readonly string[] = usualFolders()): string | undefined {
  for (const folder of folders) {
    const file = join(folder, 'nats-server');
    try {
      accessSync(file, constants.X_OK);
      return file;
    } catch {
      // Not here.
    }
  }
  return undefined;
}

/** E.g. "2.9.10". @throws UsageError when it does not run, or is too old */
export function natsServerVersion(file: string): string {
  const { stdout } = spawnSync(file, ['--version'], { encoding: 'utf8' });
  const match = /v?(\d+)\.(\d+)\.(\d+)/.exec(stdout ?? '');
  if (match === null) throw new UsageError(`${file} does not show its version. ${byHand}`);
  const [major, minor] = [Number(match[1]), Number(match[2])];
  if (major < oldest[0] || (major === oldest[0] && minor < oldest[1])) {
    throw new UsageError(`${file} is version ${match[0]}, which is too old. ${byHand}`);
  }
  return match[0].replace(/^v/, '');
}

const succeeds = (command: string, args: readonly string[]): boolean =>
  spawnSync(command, args, { stdio: 'ignore' }).status === 0;

/**
 * Finds nats-server, or installs it with apt-get when that may be done without a password.
 * @param say gets a line before anything is installed
 * @param folders where to look for it
 * @throws UsageError that says how to install it by hand
 */
export function ensureNatsServer(say: (line: string) => void, folders?: readonly string[]): string {
  const found = findNatsServer(folders);
  if (found !== undefined) {
    natsServerVersion(found);
    return found;
  }
  const isRoot = process.getuid?.() === 0;
  const prefix = isRoot ? [] : ['sudo', '-n'];
  if (!succeeds('apt-get', ['--version']) || (!isRoot && !succeeds('sudo', ['-n', 'true']))) {
    throw new UsageError(`nats-server is not on the PATH, and cannot be installed from here. ${byHand}`);
  }
  const apt = (...args: string[]): boolean => {
    const [command, ...rest] = [...prefix, 'env', 'DEBIAN_FRONTEND=noninteractive', 'apt-get', '-qq', ...args];
    return spawnSync(command as string, rest, { stdio: ['ignore', 2, 2] }).status === 0;
  };
  say('Installing nats-server from the system packages (apt-get) …');
  const install = ['install', '-y', '--no-install-recommends', 'nats-server'];
  if (!apt(...install) && !(apt('update') && apt(...install))) {
    throw new UsageError(`nats-server is not on the PATH, and apt-get could not install it (see above). ${byHand}`);
  }
  // Debian's package starts another server on port 4222 when it is installed.
  if (existsSync('/run/systemd/system')) {
    const [command, ...rest] = [...prefix, 'systemctl', 'disable', '--now', 'nats-server'];
    succeeds(command as string, rest);
  }
  const installed = findNatsServer(folders);
  if (installed === undefined) throw new UsageError(`nats-server was installed, but is not on the PATH. ${byHand}`);
  natsServerVersion(installed);
  return installed;
}

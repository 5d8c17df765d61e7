/**
 * A nats-server that is new enough for replicated streams: the one on the PATH, or one that is built with Go, where there
 * is Go. It is built once: the program stays in node_modules/.cache.
 */
import { execFile } from 'node:child_process';
import { access, constants, mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { replicatesFrom, replicatesSafely } from '../nats-version.js';
import { natsEnvironment } from './nats.js';

const run = promisify(execFile);

/** What is built: the newest of the line that was tried. Go checks its sum and those of its modules in its public sum database. */
export const builtVersion = '2.14.9';

const cache = fileURLToPath(new URL('../../node_modules/.cache/sluice/', import.meta.url));

export interface CurrentNats {
  readonly program: string;
  readonly version: string;
}

/** None: why, and what would help. */
export interface NoCurrentNats {
  readonly program: undefined;
  readonly reason: string;
}

let found: Promise<CurrentNats | NoCurrentNats> | undefined;

/**
 * @param buildWithinMs how long the first build may take; on two cores and a common line it took 53 s, 37 s of them CPU.
 * What a build that ran out of time has compiled stays in Go's own cache, so the next one is shorter.
 */
export function currentNats(buildWithinMs = 600_000): Promise<CurrentNats | NoCurrentNats> {
  found ??= find(buildWithinMs);
  return found;
}

async function find(buildWithinMs: number): Promise<CurrentNats | NoCurrentNats> {
  const installed = await versionOf('nats-server');
  if (installed !== undefined && replicatesSafely(installed)) return { program: 'nats-server', version: installed };
  const cached = join(cache, `nats-server-${builtVersion}`);
  if (await isProgram(cached)) return { program: cached, version: builtVersion };
  const without = (why: string): NoCurrentNats => ({
    program: undefined,
    reason: `this needs nats-server ${replicatesFrom} or newer on the PATH (there is ${installed ?? 'none'}), or Go to build it: ${why}`,
  });
  try {
    await run('go', ['version']);
  } catch {
    return without('Go is not on the PATH');
  }
  try {
    await build(cached, buildWithinMs);
  } catch (error) {
    const { killed, stderr } = error as { killed?: boolean; stderr?: string };
    const lines = (stderr ?? String(error)).trim().split('\n');
    return without(
      killed === true ? `it took more than ${buildWithinMs / 1_000} s` : (lines.at(-1) ?? '').slice(0, 300),
    );
  }
  return { program: cached, version: builtVersion };
}

async function build(target: string, withinMs: number): Promise<void> {
  await mkdir(cache, { recursive: true });
  // Two at once do no harm: each builds in a folder of its own, and the last one's program stays.
  const folder = await mkdtemp(join(cache, 'build-'));
  try {
    const install = [
      'go',
      'install',
      '-trimpath',
      '-ldflags=-s -w',
      `github.com/nats-io/nats-server/v2@v${builtVersion}`,
    ];
    // Other work on this machine goes first.
    await run('nice', ['-n', '15', ...install], {
      env: { ...natsEnvironment(), GOBIN: folder },
      timeout: withinMs,
    });
    await rename(join(folder, 'nats-server'), target);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function versionOf(program: string): Promise<string | undefined> {
  try {
    const { stdout } = await run(program, ['--version'], { env: natsEnvironment() });
    return /(\d+\.\d+\.\d+\S*)/.exec(stdout)?.[1];
  } catch {
    return undefined;
  }
}

const isProgram = (file: string): Promise<boolean> =>
  access(file, constants.X_OK).then(
    () => true,
    () => false,
  );

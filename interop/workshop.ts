/**
 * Where foreign clients are built: a folder outside the repository that stays from run to run. A client is built again when its sources
 * or the .proto files have changed.
 */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { cp, mkdir, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { testEnvironment } from '../lib/config/index.js';
import { MiB } from '../lib/units.js';

const run = promisify(execFile);

export const root = fileURLToPath(new URL('..', import.meta.url));
export const defaultCache = join(homedir(), '.cache', 'sluice-interop');

/** A first build fetches and compiles a library and all that it needs. */
const buildWithinMs = 1_200_000;
const maxOutput = 64 * MiB;

/** What a client needs is not on this machine; the message is the word for the table. */
export class Missing extends Error {}

/** Finds a program on the PATH or in a folder that Debian or Go keep out of it. */
export function find(program: string): string | undefined {
  const folders = [...(testEnvironment().PATH ?? '').split(delimiter), '/usr/sbin', join(homedir(), 'go', 'bin')];
  return folders.map((folder) => join(folder, program)).find((file) => existsSync(file));
}

/** @throws Missing with what to install */
export function need(program: string, install: string): string {
  const found = find(program);
  if (found === undefined) throw new Missing(`no ${program} on the PATH (${install})`);
  return found;
}

export interface Workshop {
  /** The folder of this client in the cache. */
  readonly folder: string;
  /** Runs a program there. @throws Error with the end of what it printed */
  sh(program: string, ...args: readonly string[]): Promise<string>;
}

function* files(path: string): Generator<string> {
  for (const entry of readdirSync(path, { withFileTypes: true }).sort((a, b) => a.name.localeCompare(b.name))) {
    const at = join(path, entry.name);
    if (entry.isDirectory()) yield* files(at);
    else yield at;
  }
}

function digest(folders: readonly string[]): string {
  const hash = createHash('sha256');
  for (const folder of folders) for (const file of files(folder)) hash.update(file).update(readFileSync(file));
  return hash.digest('hex');
}

/**
 * Builds a client of `interop/peers/<name>` in the cache, unless it is there already.
 * @param build compiles it; the folder has a copy of the sources, and of proto/
 * @param has the file that shows that it was built
 * @throws Missing, Error with the compiler's words
 */
export async function workshop(
  cache: string,
  name: string,
  build: (shop: Workshop) => Promise<void>,
): Promise<Workshop> {
  const folder = join(cache, name);
  const source = join(root, 'interop', 'peers', name);
  const stamp = join(folder, '.built');
  const shop: Workshop = { folder, sh: (program, ...args) => shell(folder, program, args) };
  const wanted = digest([source, join(root, 'proto')]);
  if (existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) return shop;
  await mkdir(folder, { recursive: true });
  await rm(stamp, { force: true });
  await cp(source, folder, { recursive: true });
  await rm(join(folder, 'proto'), { recursive: true, force: true });
  await cp(join(root, 'proto'), join(folder, 'proto'), { recursive: true });
  await build(shop);
  await writeFile(stamp, wanted);
  return shop;
}

/** Whether {@link workshop} would have nothing to do. */
export function isBuilt(cache: string, name: string): boolean {
  const stamp = join(cache, name, '.built');
  return (
    existsSync(stamp) &&
    readFileSync(stamp, 'utf8') === digest([join(root, 'interop', 'peers', name), join(root, 'proto')])
  );
}

async function shell(folder: string, program: string, args: readonly string[]): Promise<string> {
  try {
    const { stdout } = await run(program, [...args], { cwd: folder, timeout: buildWithinMs, maxBuffer: maxOutput });
    return stdout;
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string };
    const words = `${stdout}\n${stderr}`.trim().split('\n').slice(-15).join('\n');
    throw new Error(`${program} ${args.join(' ')} failed: ${words || String(error)}`);
  }
}

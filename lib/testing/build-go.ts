/**
 * Builds a program in Go into a temporary folder, once a process. Its modules come through Go's own proxy, as go.sum has them.
 */
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { GoMissing } from './go-missing.js';

const run = promisify(execFile);
const built = new Map<string, Promise<string>>();

/** The first build fetches modules. */
const buildWithinMs = 600_000;

/**
 * @param folder of the program's main package, with go.mod and go.sum
 * @returns the program's path
 * @throws GoMissing without Go, Error with the compiler's words when it does not build
 */
export function buildGo(folder: URL): Promise<string> {
  const known = built.get(folder.href) ?? build(fileURLToPath(folder));
  built.set(folder.href, known);
  return known;
}

async function build(source: string): Promise<string> {
  try {
    await run('go', ['version']);
  } catch {
    throw new GoMissing('skipped: it needs Go (https://go.dev/dl, or the system package golang), which is not on PATH');
  }
  try {
    await run('go', ['mod', 'download'], { cwd: source, timeout: buildWithinMs });
  } catch (error) {
    throw new GoMissing(`skipped: its Go modules cannot be fetched (${firstLine(error)})`);
  }
  const target = mkdtempSync(join(tmpdir(), 'sluice-go-'));
  process.once('exit', () => rmSync(target, { recursive: true, force: true }));
  const program = join(target, basename(source));
  await run('go', ['build', '-trimpath', '-o', program, '.'], { cwd: source, timeout: buildWithinMs });
  return program;
}

const firstLine = (error: unknown): string =>
  String((error as { stderr?: string }).stderr ?? error)
    .trim()
    .split('\n')[0]
    ?.slice(0, 200) ?? '';

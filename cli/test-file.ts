/**
 * Starts a process for one compiled test file, and reads from its output which tests ran and failed. uvu has no time-out, and exits with 0
 * when a hook throws or `.run()` is forgotten (FACT-11). So the exit code alone is not enough.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { testEnvironment } from '../lib/config/index.js';
import { root } from './roles.js';
import { compiledFile, type TestBuild } from './test-build.js';

export interface FileOutcome {
  readonly file: string;
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  /** Why the file as a whole failed. */
  readonly problem: string | undefined;
  /** The end of what it printed. */
  readonly output: string;
  readonly seconds: number;
  /** Of those, after the last test: something kept the process. */
  readonly lingered: number;
}

const printable = 'lib/testing/printable-errors.ts';
/** ms that a file may go on after its last test: servers stay open after a failed assertion. */
const maxLingerMs = 10_000;
/** The last of the lines in which uvu sums up a file. */
const summedUp = /^ *Duration: +\S+$/m;
/** Output kept of one file. */
const maxOutput = 200_000;

/** The processes of a test file, which are a group, so that what a test leaves behind ends with it. */
interface Group {
  /** @returns whether there was a process to signal; 0 only asks */
  signal(signal: NodeJS.Signals | 0): boolean;
  readonly id: number;
}

function groupOf(child: ChildProcess): Group {
  const id = child.pid as number;
  return {
    id,
    signal(signal) {
      try {
        process.kill(-id, signal);
        return true;
      } catch {
        return false;
      }
    },
  };
}

/**
 * Whether a process group has more than dead processes whose exit code was not asked for yet: in a container the first process may take
 * its time, and a signal reaches them all the same. Where there is no /proc: yes.
 */
function hasLiving(group: number): boolean {
  if (!existsSync('/proc/self/stat')) return true;
  return readdirSync('/proc').some((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      // pid (name) state parent group …: the name may hold anything.
      const [state, , of] = readFileSync(`/proc/${pid}/stat`, 'utf8')
        .replace(/^.*\) /s, '')
        .split(' ');
      return Number(of) === group && state !== 'Z';
    } catch {
      return false;
    }
  });
}

/** Ends what is left of a group. @returns whether a process was left after 2 s: the compiler's helper process ends a little later */
async function endGroup(group: Group): Promise<boolean> {
  for (let i = 0; i < 100 && group.signal(0); i++) {
    if (!hasLiving(group.id)) return false;
    await new Promise((next) => setTimeout(next, 20));
  }
  return group.signal('SIGKILL');
}

/** Sum of the numbers that uvu printed behind a word. */
const countOf = (output: string, name: string): number =>
  [...output.matchAll(new RegExp(`^ *${name}: +(\\d+)`, 'gm'))].reduce((sum, match) => sum + Number(match[1]), 0);

interface End {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  readonly timedOut: boolean;
  /** It went on for {@link maxLingerMs} after its last test, and was killed. */
  readonly stuck: boolean;
  readonly leftProcesses: boolean;
}

function problemOf(end: End, total: number, failed: number, limitMs: number): string | undefined {
  const { code, signal, timedOut, stuck, leftProcesses } = end;
  if (timedOut) return `not done within ${limitMs / 1000} s`;
  if (stuck) return 'killed, since something was left open';
  if (signal !== null || (code !== 0 && failed === 0)) return `ended with ${signal ?? `code ${code}`}`;
  if (total === 0) return 'ran no test: is test.run() missing?';
  return leftProcesses ? 'left processes behind' : undefined;
}

/** Runs one file, for `limitMs` at most, and `lingerMs` after its last test. Never rejects. */
export function runFile(
  build: Pick<TestBuild, 'folder'>,
  file: string,
  limitMs: number,
  lingerMs = maxLingerMs,
): Promise<FileOutcome> {
  const since = Date.now();
  return new Promise((resolve) => {
    let output = '';
    let timedOut = false;
    let stuck = false;
    let lingering: NodeJS.Timeout | undefined;
    const flags = ['--enable-source-maps', '--import', compiledFile(build, printable)];
    const child = spawn(process.execPath, [...flags, compiledFile(build, file)], {
      cwd: root,
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: testEnvironment(),
    });
    const group = groupOf(child);
    const timer = setTimeout(() => {
      timedOut = true;
      group.signal('SIGKILL');
    }, limitMs);
    let printedAt = since;
    const keep = (chunk: Buffer): void => {
      output = (output + chunk.toString()).slice(-maxOutput);
      printedAt = Date.now();
      if (lingering !== undefined || !summedUp.test(output.slice(-chunk.length - 80))) return;
      lingering = setTimeout(() => {
        stuck = true;
        group.signal('SIGKILL');
      }, lingerMs);
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    child.once('error', (error) => {
      output += String(error);
    });
    child.once('exit', async (code, signal) => {
      clearTimeout(timer);
      clearTimeout(lingering);
      const lingered = (Date.now() - printedAt) / 1000;
      const leftProcesses = await endGroup(group);
      const end = { code, signal, timedOut, stuck, leftProcesses };
      const [total, passed, skipped] = [
        countOf(output, 'Total'),
        countOf(output, 'Passed'),
        countOf(output, 'Skipped'),
      ];
      const failed = Math.max(0, total - passed - skipped);
      const problem = problemOf(end, total, failed, limitMs);
      const seconds = (Date.now() - since) / 1000;
      const failures = problem === undefined ? failed : Math.max(1, failed);
      resolve({ file, passed, failed: failures, skipped, problem, output, seconds, lingered });
    });
  });
}

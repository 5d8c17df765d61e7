/**
 * `sluice test` (npm test): every *.test.ts in a process of its own. uvu ends with 0 on a throwing hook, on a forgotten
 * `.run()` and has no time-out (FACT-11), so this looks at what was run, not only at exit codes.
 *
 * The last line is `N passed, N failed`, with `, N skipped` where there are any.
 */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { testEnvironment } from '../lib/config/index.js';

const root = join(dirname(fileURLToPath(import.meta.url)), '..');

/** Files at a time: the machine that this is made for has two cores. */
const concurrency = 2;
const timeOutMs = 240_000;
/** Seconds that a process may go on after its last test before the report names it: a forgotten timer costs the whole run. */
const maxLinger = 3;
const printable = './lib/testing/printable-errors.ts';
/** Output kept of one file. */
const maxOutput = 200_000;
/** They load the machine so much that others beside them would be measured, not tested. */
const alone: readonly string[] = ['gate.it', 'chaos.it', 'control.it'];
/** Longest first, so that the end is not one long file on one core. */
const longFirst: readonly string[] = [
  'simulator',
  'fuzz',
  'engine-agreement',
  'up.it',
  'demo.it',
  'load.it',
  'main.it',
  'guard',
  '.it.',
];

interface Outcome {
  readonly file: string;
  readonly passed: number;
  readonly failed: number;
  readonly skipped: number;
  /** Why the file as a whole failed. */
  readonly problem: string | undefined;
  readonly output: string;
  readonly seconds: number;
  /** Of those, after the last test: something kept the process. */
  readonly lingered: number;
}

function* testFiles(folder: string): Generator<string> {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      if (entry.name !== 'node_modules' && !entry.name.startsWith('.') && entry.name !== 'sluice-data')
        yield* testFiles(path);
    } else if (entry.name.endsWith('.test.ts')) {
      yield relative(root, path);
    }
  }
}

const rank = (file: string): number => {
  const at = longFirst.findIndex((part) => file.includes(part));
  return at < 0 ? longFirst.length : at;
};

/**
 * Whether a process group has more than dead processes that were not collected yet: in a container the first process may take its
 * time, and a signal reaches them all the same. Where there is no /proc: yes.
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

/** Runs one file. Never rejects. */
export function runFile(file: string, limitMs = timeOutMs): Promise<Outcome> {
  const since = Date.now();
  return new Promise((resolve) => {
    let output = '';
    let timedOut = false;
    // A process group of its own, so that what a test leaves behind ends with it.
    const child = spawn(process.execPath, ['--import', 'tsx', '--import', printable, file], {
      cwd: root,
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: testEnvironment(),
    });
    const signalGroup = (signal: NodeJS.Signals | 0): boolean => {
      try {
        process.kill(-(child.pid as number), signal);
        return true;
      } catch {
        return false;
      }
    };
    /** Whether somebody is still there after a moment's grace: the compiler's helper process ends a little later. */
    const leavesSomebody = async (): Promise<boolean> => {
      for (let i = 0; i < 100 && signalGroup(0); i++) {
        if (!hasLiving(child.pid as number)) return false;
        await new Promise((next) => setTimeout(next, 20));
      }
      return signalGroup('SIGKILL');
    };
    const timer = setTimeout(() => {
      timedOut = true;
      signalGroup('SIGKILL');
    }, limitMs);
    let toldAt = since;
    const keep = (chunk: Buffer): void => {
      output = (output + chunk.toString()).slice(-maxOutput);
      toldAt = Date.now();
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    child.once('error', (error) => {
      output += String(error);
    });
    const finish = async (code: number | null, signal: NodeJS.Signals | null): Promise<void> => {
      clearTimeout(timer);
      const lingered = (Date.now() - toldAt) / 1000;
      const leftovers = await leavesSomebody();
      const count = (name: string): number =>
        [...output.matchAll(new RegExp(`^ *${name}: +(\\d+)`, 'gm'))].reduce((sum, match) => sum + Number(match[1]), 0);
      const [total, passed, skipped] = [count('Total'), count('Passed'), count('Skipped')];
      const failed = Math.max(0, total - passed - skipped);
      const problem = timedOut
        ? `not done within ${limitMs / 1000} s`
        : signal !== null || (code !== 0 && failed === 0)
          ? `ended with ${signal ?? `code ${code}`}`
          : total === 0
            ? 'ran no test: is test.run() missing?'
            : leftovers
              ? 'left processes behind'
              : undefined;
      resolve({
        file,
        passed,
        failed: problem === undefined ? failed : Math.max(1, failed),
        skipped,
        problem,
        output,
        seconds: (Date.now() - since) / 1000,
        lingered,
      });
    };
    child.once('exit', (code, signal) => void finish(code, signal));
  });
}

function report(outcome: Outcome, done: number, of: number): void {
  const { file, passed, failed, skipped, problem, seconds, lingered } = outcome;
  const state = failed === 0 ? '✓' : '✗';
  const extra = [
    skipped > 0 ? `${skipped} skipped` : '',
    failed > 0 ? `${failed} failed` : '',
    problem ?? '',
    lingered > maxLinger ? `kept by something for ${lingered.toFixed(0)} s after its last test` : '',
  ].filter(Boolean);
  const tail = extra.length === 0 ? '' : ` (${extra.join('; ')})`;
  process.stdout.write(
    `${state} ${String(done).padStart(3)}/${of} ${seconds.toFixed(1).padStart(6)} s  ${file}: ${passed}${tail}\n`,
  );
  if (failed > 0) process.stdout.write(`${outcome.output.trimEnd()}\n\n`);
}

/** @returns the exit code */
async function main(filters: readonly string[]): Promise<number> {
  const files = [...testFiles(root)]
    .filter((file) => filters.length === 0 || filters.some((part) => file.includes(part)))
    .sort((a, b) => rank(a) - rank(b) || a.localeCompare(b));
  if (files.length === 0) {
    process.stdout.write(`No test file has ${filters.join(' or ')} in its path.\n0 passed, 1 failed\n`);
    return 1;
  }
  const sum = { passed: 0, failed: 0, skipped: 0 };
  let done = 0;
  const take = async (queue: string[]): Promise<void> => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      const outcome = await runFile(file);
      sum.passed += outcome.passed;
      sum.failed += outcome.failed;
      sum.skipped += outcome.skipped;
      report(outcome, ++done, files.length);
    }
  };
  const isAlone = (file: string): boolean => alone.some((part) => file.includes(part));
  const together = files.filter((file) => !isAlone(file));
  await Promise.all(Array.from({ length: concurrency }, () => take(together)));
  await take(files.filter(isAlone));
  process.stdout.write(
    `${sum.passed} passed, ${sum.failed} failed${sum.skipped > 0 ? `, ${sum.skipped} skipped` : ''}\n`,
  );
  return sum.failed === 0 ? 0 : 1;
}

process.exitCode = await main(process.argv.slice(2));

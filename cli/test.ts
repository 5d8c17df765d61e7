/**
 * `sluice test` (npm test): compiles the tests (test-build.ts), and starts a process for each file (test-file.ts). Words choose files by
 * their path. `--unit` and `--long` choose another suite (test-suites.ts).
 *
 * The last line is `N passed, N failed`, with `, N skipped` where there are any.
 */
import { buildTests } from './test-build.js';
import { type FileOutcome, runFile } from './test-file.js';
import { filesAtATime, filesOf, limitMs, type Suite } from './test-suites.js';

/** Seconds that a process may go on after its last test before the report names it: a forgotten timer costs the whole run. */
const maxLinger = 3;

function report(outcome: FileOutcome, done: number, of: number): void {
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
async function main(suite: Suite, words: readonly string[]): Promise<number> {
  const since = Date.now();
  const { together, alone } = filesOf(suite, words);
  const files = together.length + alone.length;
  if (files === 0) {
    process.stdout.write(`No test file has ${words.join(' or ')} in its path.\n0 passed, 1 failed\n`);
    return 1;
  }
  const build = buildTests();
  const sum = { passed: 0, failed: 0, skipped: 0 };
  let done = 0;
  const take = async (queue: string[]): Promise<void> => {
    for (let file = queue.shift(); file !== undefined; file = queue.shift()) {
      const outcome = await runFile(build, file, limitMs[suite]);
      sum.passed += outcome.passed;
      sum.failed += outcome.failed;
      sum.skipped += outcome.skipped;
      report(outcome, ++done, files);
    }
  };
  try {
    await Promise.all(Array.from({ length: filesAtATime[suite] }, () => take(together)));
    await take(alone);
  } finally {
    build.remove();
  }
  process.stdout.write(`${Math.round((Date.now() - since) / 1000)} s\n`);
  process.stdout.write(
    `${sum.passed} passed, ${sum.failed} failed${sum.skipped > 0 ? `, ${sum.skipped} skipped` : ''}\n`,
  );
  return sum.failed === 0 ? 0 : 1;
}

const words = process.argv.slice(2);
const suite = words.includes('--unit') ? 'unit' : words.includes('--long') ? 'long' : 'change';
process.exitCode = await main(
  suite,
  words.filter((word) => word !== '--unit' && word !== '--long'),
);

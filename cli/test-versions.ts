/**
 * `sluice test-versions` (npm run test:versions): the tests on every supported version of Node, one after another. A version that is
 * not available is skipped with one line. The last lines show the result of each.
 */
import { spawnSync } from 'node:child_process';
import { delimiter, dirname, join } from 'node:path';
import { testEnvironment } from '../lib/config/index.js';
import { programOf, supportedVersions, versionOf } from './node-versions.js';
import { root } from './roles.js';

/** Runs the tests with a program of Node, also for what they start as `node`. */
function passesOn(program: string, words: readonly string[]): boolean {
  const environment = testEnvironment();
  const { status } = spawnSync(program, [join(root, 'cli/sluice.mjs'), 'test', ...words], {
    cwd: root,
    stdio: 'inherit',
    env: { ...environment, PATH: `${dirname(program)}${delimiter}${environment.PATH}` },
  });
  return status === 0;
}

/** @returns the exit code */
function main(words: readonly string[]): number {
  let failed = false;
  const results = supportedVersions.map((major) => {
    const program = programOf(major);
    if (program === undefined)
      return `Node ${major}: skipped, npm has no such package for this machine or cannot be reached`;
    const version = versionOf(program);
    process.stdout.write(`\nNode ${version}\n`);
    const passed = passesOn(program, words);
    failed ||= !passed;
    return `Node ${major}: ${passed ? 'passed' : 'FAILED'} (${version})`;
  });
  process.stdout.write(`\n${results.join('\n')}\n`);
  return failed ? 1 : 0;
}

process.exitCode = main(process.argv.slice(2));

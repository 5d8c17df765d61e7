/** What becomes of test files that end well, fail, hang, or run nothing. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type FileOutcome, runFile } from './test-file.js';

/** Runs the body of a test file as if it were compiled. */
async function outcomeOf(body: string, limitMs = 20_000): Promise<FileOutcome> {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-test-file-'));
  try {
    mkdirSync(join(folder, 'lib/testing'), { recursive: true });
    writeFileSync(join(folder, 'package.json'), '{"type":"module"}');
    writeFileSync(join(folder, 'lib/testing/printable-errors.js'), '');
    writeFileSync(join(folder, 'x.test.js'), `import { test } from '${import.meta.resolve('uvu')}';\n${body}`);
    return await runFile({ folder }, 'x.test.ts', limitMs, 500);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test('a file that ends by itself is counted', async () => {
  const { passed, failed, problem } = await outcomeOf("test('a', () => {}); test.skip('b'); test.run();");
  assert.equal([passed, failed, problem], [1, 0, undefined]);
});

test('a failed assertion is shown; a server that it left open does not keep the file', async () => {
  const { failed, problem, output, seconds } = await outcomeOf(
    "test('a', () => { setInterval(() => {}, 1_000); throw new Error('not so'); }); test.run();",
  );
  assert.is(failed, 1);
  assert.match(problem ?? '', /something was left open/);
  assert.match(output, /not so/);
  assert.ok(seconds < 15, `${seconds} s`);
});

test('a file that passed and stays open has failed', async () => {
  const { passed, failed } = await outcomeOf("test('a', () => { setInterval(() => {}, 1_000); }); test.run();");
  assert.equal([passed, failed], [1, 1]);
});

test('a test that does not end is killed at the limit, and a file without test.run() has failed', async () => {
  const hangs = "test('a', () => new Promise(() => setInterval(() => {}, 1_000))); test.run();";
  assert.match((await outcomeOf(hangs, 2_000)).problem ?? '', /not done within 2 s/);
  assert.match((await outcomeOf("test('a', () => {});")).problem ?? '', /is test\.run\(\) missing/);
});

test.run();

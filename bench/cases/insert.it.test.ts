import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { programFlags, programPath } from '../../lib/testing/program.js';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../..', import.meta.url));
const bench = (...options: string[]) =>
  run(process.execPath, [...programFlags, programPath('bench/main.ts'), 'insert', ...options], {
    cwd: root,
    timeout: 60_000,
  });

test('each table stores the same rows, merges them, and tells what that cost; what stores nothing says so', async () => {
  const { stdout } = await bench('--blocks', '1', '--rows', '3000', '--tenants', '3', '--json');
  const lines = stdout.split('\n').filter((line) => line.startsWith('{'));
  const tables = lines.map((line) => JSON.parse(line) as Record<string, number | string>);
  assert.ok(tables.length >= 10);
  assert.is(tables[0]?.table, 'as it is');
  for (const one of tables) {
    assert.ok((one.insert_cpu_s_per_million as number) > 0, String(one.table));
    // A table that a change left empty would look cheap.
    if (String(one.table).startsWith('(')) assert.is(one.bytes_per_row, 0);
    else assert.ok((one.bytes_per_row as number) > 20 && (one.merged_bytes_per_row as number) > 20, String(one.table));
  }
});

test('a name that no table has is refused', async () => {
  const error = await bench('--only', 'nonsense').catch((e: { code: number; stderr: string }) => e);
  assert.match((error as { stderr: string }).stderr, /no variant is called "nonsense"/);
  assert.is((error as { code: number }).code, 1);
});

test.run();

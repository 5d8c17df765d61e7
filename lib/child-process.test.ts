import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { endProcess, gone, logTail } from './child-process.js';
import { testFiles } from './testing/test-files.js';

/** A process that runs this code, and says when it does. */
async function running(code: string): Promise<ChildProcess> {
  const child = spawn(process.execPath, ['-e', `${code}; setInterval(() => {}, 1000); console.log('up')`]);
  await once(child.stdout, 'data');
  return child;
}

test('a process that ends when it is asked to is not killed', async () => {
  const child = await running("process.on('SIGTERM', () => process.exit(7))");
  await endProcess(child, { withinMs: 60_000 });
  assert.is(child.exitCode, 7);
});

test('a process that does not end is killed', async () => {
  const child = await running("process.on('SIGTERM', () => {})");
  await endProcess(child, { withinMs: 50 });
  assert.is(child.signalCode, 'SIGKILL');
});

test('a process that has ended, or was never started, is gone', async () => {
  const child = await running('setTimeout(() => process.exit(0), 1)');
  await gone(child);
  await endProcess(child, { withinMs: 60_000 });
  const never = spawn('/no/such/program');
  never.on('error', () => undefined);
  await gone(never);
});

test('the tail of a log has its last lines, and is empty where there is no file', () => {
  const file = testFiles('sluice-tail-')('log', 'one\ntwo\nthree\n');
  assert.is(logTail(file, 2), 'two\nthree');
  assert.is(logTail(`${file}.none`, 2), '');
});

test.run();

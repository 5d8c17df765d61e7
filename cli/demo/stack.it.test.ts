import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { UsageError } from '../../lib/errors.js';
import { isAlive, keyFileOf, runningStack } from '../stack-file.js';
import { findStack, type StackOptions } from './stack.js';

/** Does what `sluice up` does for who looks on: a gateway that is ready after a while, two files, an end on SIGTERM. */
const upScript = `
import { createServer } from 'node:http';
import { rmSync, writeFileSync } from 'node:fs';
const data = process.argv[2];
let asked = 0;
const server = createServer((request, response) => {
  response.statusCode = request.url === '/readyz' && ++asked > 2 ? 200 : 503;
  response.end();
});
server.listen(0, '127.0.0.1', () => {
  const gateway = 'http://127.0.0.1:' + server.address().port;
  writeFileSync(data + '/demo-key', 'slk_test\\n');
  writeFileSync(data + '/up.json', JSON.stringify({ pid: process.pid, gateway, clickhouse: 'http://127.0.0.1:9' }));
});
process.on('SIGTERM', () => {
  rmSync(data + '/up.json');
  process.exit(0);
});
`;

interface Setting {
  readonly data: string;
  readonly said: string[];
  readonly options: StackOptions;
  readonly command: readonly string[];
}

async function withFolder(use: (setting: Setting) => Promise<void>): Promise<void> {
  const data = await mkdtemp(join(tmpdir(), 'sluice-demo-stack-'));
  try {
    const script = join(data, 'up.mjs');
    await writeFile(script, upScript);
    const said: string[] = [];
    const command = [process.execPath, script, data];
    const options = {
      data,
      command,
      said,
      say: (line: string) => said.push(line),
      signal: new AbortController().signal,
    };
    await use({ data, said, options, command });
  } finally {
    await rm(data, { recursive: true, force: true });
  }
}

test('starts a stack when none runs, says so, and stops it at the end', async () => {
  await withFolder(async ({ data, said, options }) => {
    const stack = await findStack(options);
    assert.match(said[0] ?? '', /No stack runs on .*: starting one/);
    assert.is(stack.key, 'slk_test');
    assert.is(stack.clickhouse, 'http://127.0.0.1:9');
    const pid = runningStack(data)?.pid ?? 0;
    assert.ok(isAlive(pid));
    await stack.stop();
    assert.not(isAlive(pid));
    await stack.stop();
  });
});

test('uses the stack that runs, waits until it is ready, and leaves it running', async () => {
  await withFolder(async ({ data, said, options, command: [program, ...args] }) => {
    const child = spawn(program as string, args, { stdio: 'inherit' });
    const gone = new Promise((resolve) => child.once('exit', resolve));
    try {
      while (runningStack(data) === undefined) await new Promise((resolve) => setTimeout(resolve, 10));
      const stack = await findStack({ ...options, command: ['false'] });
      assert.match(said[0] ?? '', /Using the stack that runs/);
      await stack.stop();
      assert.is(child.exitCode, null);
    } finally {
      child.kill('SIGTERM');
      await gone;
    }
  });
});

test('a stack that was killed left its files behind, and is not taken for running', async () => {
  await withFolder(async ({ data, options }) => {
    const dead = spawn(process.execPath, ['-e', '']);
    await new Promise((resolve) => dead.once('exit', resolve));
    await writeFile(keyFileOf(data), 'slk_old\n');
    await writeFile(
      join(data, 'up.json'),
      JSON.stringify({ pid: dead.pid, gateway: 'http://127.0.0.1:9', clickhouse: '' }),
    );
    const stack = await findStack(options);
    assert.is(stack.key, 'slk_test');
    await stack.stop();
  });
});

test('a stack that cannot be started is reported with the end of its log', async () => {
  await withFolder(async ({ options }) => {
    const command = [process.execPath, '-e', 'console.error("Port 4222 is taken."); process.exit(1)'];
    const error = await findStack({ ...options, command }).then(
      () => undefined,
      (reason: unknown) => reason,
    );
    assert.instance(error, UsageError);
    assert.match(String(error), /exit code 1\. Try `sluice doctor`[\s\S]*Port 4222 is taken/);
    const missing = await findStack({ ...options, command: ['/no/such/program'] }).catch(String);
    assert.match(String(missing), /could not be started: spawn .*ENOENT/);
  });
});

test('one that is not ready in time, or an interruption, leaves no process behind', async () => {
  await withFolder(async ({ data, options }) => {
    const hang = [process.execPath, '-e', 'setInterval(() => undefined, 1000)'];
    const slow = await findStack({ ...options, command: hang, upWithinMs: 300 }).catch(String);
    assert.match(String(slow), /was not ready in time/);
    const interrupt = new AbortController();
    const asked = findStack({ ...options, signal: interrupt.signal });
    const outcome = asked.then(
      () => 'found',
      () => 'interrupted',
    );
    interrupt.abort();
    assert.is(await outcome, 'interrupted');
    assert.is(runningStack(data), undefined);
  });
});

test.run();

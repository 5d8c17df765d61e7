import { spawn, spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { testEnvironment } from './config/index.js';
import { armFailpoint, failpoint, failpoints } from './failpoint.js';
import { programFlags, programPath } from './testing/program.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const loads = `const { armFailpoint, failpoint } = await import(${JSON.stringify(programPath('lib/failpoint.ts'))});`;

function passes(spec: string): { signal: string | null; output: string } {
  const program =
    `${loads} armFailpoint('${spec}', 'gateway'); ` +
    "for (let i = 1; i <= 4; i++) { failpoint('gateway.after-ack'); process.stdout.write(String(i)); failpoint('gateway.draining'); }";
  const { signal, stdout } = spawnSync(process.execPath, [...programFlags, '--input-type=module', '-e', program], {
    cwd: root,
    encoding: 'utf8',
    env: testEnvironment(),
  });
  return { signal, output: stdout };
}

test('an armed failpoint kills the process at its n-th passing, and no other does', () => {
  assert.equal(passes('gateway.after-ack@3'), { signal: 'SIGKILL', output: '12' });
  assert.equal(passes('gateway.draining'), { signal: 'SIGKILL', output: '1' });
  assert.equal(passes('gateway.before-publish'), { signal: null, output: '1234' });
});

test('a failpoint that freezes stops the process there, and SIGCONT lets it go on', async () => {
  const program =
    `${loads} armFailpoint('gateway.draining@2:freeze', 'gateway'); ` +
    "for (let i = 1; i <= 4; i++) { failpoint('gateway.draining'); process.stdout.write(String(i)); }";
  const child = spawn(process.execPath, [...programFlags, '--input-type=module', '-e', program], {
    cwd: root,
    env: testEnvironment(),
  });
  let output = '';
  child.stdout.on('data', (chunk: Buffer) => {
    output += chunk.toString();
  });
  const exited = new Promise((resolve) => child.once('exit', (code) => resolve(code)));
  try {
    while (output !== '1') await new Promise((resolve) => setTimeout(resolve, 20));
    await new Promise((resolve) => setTimeout(resolve, 200));
    assert.is(output, '1');
    child.kill('SIGCONT');
    assert.is(await exited, 0);
    assert.is(output, '1234');
  } finally {
    child.kill('SIGKILL');
  }
});

test('without the option nothing happens; an unknown name, or one of another process, is refused with the names', () => {
  armFailpoint('', 'gateway');
  failpoint('gateway.after-ack');
  for (const spec of [
    'gateway.nowhere',
    'loader.before-insert',
    'gateway.after-ack@0',
    'after-ack',
    'gateway.after-ack@',
  ]) {
    assert.throws(
      () => armFailpoint(spec, 'gateway'),
      (error: Error) =>
        error.name === 'UsageError' && error.message.includes('gateway.before-publish, gateway.after-publish'),
    );
  }
});

test('every failpoint of the table is passed somewhere, and nowhere is there one that the table lacks', () => {
  const passed = new Set<string>();
  for (const room of ['gateway', 'workers']) {
    for (const entry of readdirSync(join(root, room), { recursive: true, encoding: 'utf8' })) {
      if (!entry.endsWith('.ts') || entry.endsWith('.test.ts')) continue;
      for (const [, name] of readFileSync(join(root, room, entry), 'utf8').matchAll(/\bfailpoint\('([^']+)'\)/g)) {
        passed.add(name as string);
      }
    }
  }
  assert.equal([...passed].sort(), Object.keys(failpoints).sort());
});

test.run();

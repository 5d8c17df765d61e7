/** Programs whose supervisor is killed before they have loaded their own code. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { programFlags, programPath } from '../../lib/testing/program.js';
import { until } from '../../lib/testing/until.js';
import { processesNaming } from '../testing/running-stack.js';

const tetherFile = fileURLToPath(new URL('tether.mjs', import.meta.url));

test('a program whose supervisor is gone before the tether has loaded is ended', async () => {
  const seconds = `${30 + process.pid / 1e7}`;
  const tether = spawn(process.execPath, [tetherFile, 'sleep', seconds], {
    stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
  });
  let err = '';
  tether.stderr?.on('data', (chunk) => (err += String(chunk)));
  tether.disconnect();
  await once(tether, 'exit');
  assert.is(err, '');
  await until('the program has ended', () => processesNaming(seconds).length === 0, 5_000);
});

test('a part of the stack hears that its supervisor is gone, also when it went before the part listened', async () => {
  const program = `
    const { onParentGone } = await import(${JSON.stringify(programPath('lib/parent-gone.ts'))});
    await new Promise((resolve) => setTimeout(resolve, 300));
    const alive = setTimeout(() => {}, 20_000);
    onParentGone(() => clearTimeout(alive));
    process.stdout.write('listens');
  `;
  const since = performance.now();
  const part = spawn(process.execPath, [...programFlags, '--input-type=module', '-e', program], {
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  });
  let out = '';
  part.stdout?.on('data', (chunk) => (out += String(chunk)));
  part.disconnect();
  const [code] = await once(part, 'exit');
  assert.is(code, 0);
  assert.is(out, 'listens');
  assert.ok(performance.now() - since < 15_000);
});

test.run();

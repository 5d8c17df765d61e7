import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

test('a stream that is reset in any state never makes node spin, whatever ends beside it', () => {
  const program = fileURLToPath(new URL('../testing/reset-states.ts', import.meta.url));
  // A spinning process takes 300 MB a second: it is given no more than a moment longer than it needs (4 s).
  const { stdout, stderr, signal } = spawnSync(process.execPath, ['--import', 'tsx', program], {
    encoding: 'utf8',
    timeout: 30_000,
    killSignal: 'SIGKILL',
  });
  assert.is(signal, null, `ended with ${signal}: it span`);
  assert.is(stdout, 'done\n', stderr);
});

test.run();

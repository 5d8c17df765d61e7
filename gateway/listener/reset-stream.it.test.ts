import { spawnSync } from 'node:child_process';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { programFlags, programPath } from '../../lib/testing/program.js';

test('a stream that is reset in any state never makes node spin, whatever ends beside it', () => {
  const program = programPath('gateway/testing/reset-states.ts');
  // A spinning process takes 300 MB a second: it is given no more than a moment longer than it needs (4 s).
  const { stdout, stderr, signal } = spawnSync(process.execPath, [...programFlags, program], {
    encoding: 'utf8',
    timeout: 30_000,
    killSignal: 'SIGKILL',
  });
  assert.is(signal, null, `ended with ${signal}: it span`);
  assert.is(stdout, 'done\n', stderr);
});

test.run();

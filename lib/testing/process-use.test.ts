import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { cpuByRole, family, rssByRole } from './process-use.js';

const hasProc = existsSync('/proc/self/stat');

test('children of the same program count with their parent, other programs do not', async () => {
  if (!hasProc) return;
  // A parent that idles, a child of its program that does not, and one of another program.
  const child = "while (process.cpuUsage().user < 300_000); console.log('done'); setInterval(() => {}, 1_000)";
  const parent = `
    const { spawn } = require('node:child_process');
    const other = spawn('sleep', ['60']);
    const same = spawn(process.execPath, ['-e', ${JSON.stringify(child)}], { stdio: ['ignore', 'inherit', 'ignore'] });
    process.stdin.on('end', () => { other.kill(); same.kill(); process.exit(); }).resume();`;
  const process_ = spawn(process.execPath, ['-e', parent], { stdio: ['pipe', 'pipe', 'inherit'] });
  try {
    await once(process_.stdout, 'data');
    const pid = process_.pid as number;
    assert.is(family(pid).length, 2);
    const { role: cpu = 0 } = cpuByRole({ role: [pid] });
    assert.ok(cpu >= 0.2, `${cpu} s of two processes, one of which was busy for 0.3 s`);
    const { role: alone = 0 } = rssByRole({ role: family(pid).slice(1) });
    assert.ok((rssByRole({ role: [pid] }).role ?? 0) > alone);
  } finally {
    process_.stdin.end();
    await once(process_, 'exit');
  }
});

test('of a process that is gone nothing is known', () => {
  assert.equal(family(2 ** 30), [2 ** 30]);
  assert.ok(Number.isNaN(cpuByRole({ role: [2 ** 30] }).role));
});

test.run();

/**
 * The harness can fail: with a protection switched off, it finds what the protection prevents.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { testEnvironment } from '../lib/config/index.js';
import { buildProject, root } from './build.js';
import { type Control, controls } from './controls.js';

test('each control still finds the statement that it switches off', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'sluice-control-'));
  try {
    buildProject(
      join(folder, 'build'),
      Object.values<Control>(controls).flatMap(({ patches }) => patches),
    );
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('without the look whether a batch that was sent again is stored already, the check finds events that are there twice', async () => {
  const words = [
    'chaos/main.ts',
    '--control',
    'retry-check',
    '--seed',
    '5',
    '--rate',
    '1000',
    '--faults',
    '4',
    '--json',
  ];
  const child = spawn(process.execPath, ['--import', 'tsx', ...words], { cwd: root, env: testEnvironment() });
  let output = '';
  child.stdout.on('data', (chunk) => {
    output += String(chunk);
  });
  child.stderr.on('data', (chunk) => {
    output += String(chunk);
  });
  const code = await new Promise((resolve) => child.once('exit', resolve));
  assert.is(code, 0, output);
  const last = JSON.parse(output.trimEnd().split('\n').at(-1) ?? '');
  assert.ok(last.doubled > 0, output);
  assert.is(last.lost, 0, output);
});

test.run();

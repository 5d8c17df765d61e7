/**
 * The harness can fail: with a protection switched off, it finds what the protection prevents.
 */
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { testEnvironment } from '../lib/config/index.js';
import { type Protection, protections } from '../lib/failpoint.js';
import { root } from './build.js';

test('each protection has one seam in the code, and only the harness leaves one out', () => {
  const sources = ['gateway', 'workers', 'lib', 'cli'].flatMap((room) =>
    readdirSync(join(root, room), { recursive: true, encoding: 'utf8' })
      .filter((file) => file.endsWith('.ts'))
      .map((file) => readFileSync(join(root, room, file), 'utf8')),
  );
  const places = (text: string) => sources.reduce((sum, source) => sum + source.split(text).length - 1, 0);
  for (const name of Object.keys(protections)) assert.is(places(`isLeftOut('${name}')`), 1, name);
  assert.not(sources.some((source) => /import[^;]*\bleaveOut\b[^;]*failpoint\.js/.test(source)));
});

/** A run with a protection switched off: its last line, as an object. */
async function runWithout(control: Protection, ...more: string[]): Promise<{ lost: number; doubled: number }> {
  const words = ['chaos/main.ts', '--control', control, '--seed', '5', '--rate', '1000', ...more, '--json'];
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
  return JSON.parse(output.trimEnd().split('\n').at(-1) ?? '');
}

test('without the look whether a batch that was sent again is stored already, the check finds events that are there twice', async () => {
  const { lost, doubled } = await runWithout('retry-check', '--faults', '4');
  assert.ok(doubled > 0);
  assert.is(lost, 0);
});

// One client, so that each death is one of the client that counts, and six of them: not every time are the events of its next life fewer.
test('without the look at event ids, the check finds that a client that counts from 1 again has lost events', async () => {
  const { lost, doubled } = await runWithout('event-ids', '--faults', '6', '--clients', '1');
  assert.ok(lost > 0);
  assert.is(doubled, 0);
});

test.run();
